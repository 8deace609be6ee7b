"""Training a candidate from scratch on images."""
