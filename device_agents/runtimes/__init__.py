"""One module per runtime: `describe`, `Session`, `failure_of`. Heavy imports inside functions."""
