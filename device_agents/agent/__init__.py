"""The agent: a supervisor that speaks the protocol and a worker that measures."""
