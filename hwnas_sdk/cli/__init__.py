"""The command line: `hwnas`. Verbs are loaded when they are called, so help is fast."""
