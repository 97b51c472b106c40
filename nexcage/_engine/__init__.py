"""Who does what, when, and how many at once."""
