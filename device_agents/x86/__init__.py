"""Facts of x86 machines."""
