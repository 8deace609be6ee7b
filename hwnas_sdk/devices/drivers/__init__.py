"""Drivers open a session for one URI scheme; registered under the entry point ``hwnas.drivers``."""
