"""Transports move files to a board and start its agent; they know nothing of what is said."""
