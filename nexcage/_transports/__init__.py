"""How an argv reaches a node."""
