"""Layer graphs as torch modules. Everything here needs torch."""
