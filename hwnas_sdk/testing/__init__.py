"""Conformance classes: inherit one, say how to make your thing, and pytest says what is missing."""
