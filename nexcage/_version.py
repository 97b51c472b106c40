"""The version, in its one place; the distribution's metadata reads it from here."""

__version__ = "1.0.0a1"
