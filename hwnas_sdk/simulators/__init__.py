"""Accelerators that exist only as a description: latency and energy of networks from a model."""
