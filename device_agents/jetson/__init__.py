"""NVIDIA Jetson."""
