"""Learning from numbers: latency transfer, accuracy, memory. Numpy and scipy only, no torch."""
