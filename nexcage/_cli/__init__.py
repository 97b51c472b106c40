"""People talk here: words on a command line become intents, outcomes become lines. It uses the public surface only."""
