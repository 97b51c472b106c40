"""How an operation becomes commands."""
