"""The only memory: measurements with their raw samples, runs, devices; data sets made from them."""
