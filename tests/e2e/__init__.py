"""The predecessor's end-to-end suite: 57 tests by their names and commands, run on a node over SSH."""
