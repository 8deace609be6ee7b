"""Searchers ask which architectures to score and are told the scores; they own no loop.

Nothing here knows where scores come from: predictors arrive as callables.
"""
