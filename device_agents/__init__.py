"""What runs on the board. Python 3.8 syntax, standard library only; never imports hwnas_sdk."""

__version__ = "1.0.0"
