"""What becomes of each field of a bundle's config.json on a backend: decided before anything runs."""
