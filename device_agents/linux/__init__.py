"""Any other Linux board."""
