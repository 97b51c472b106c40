"""What the command line tools of a node take and answer: build argv, read output. Pure."""
