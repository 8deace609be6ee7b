"""Predictors that are torch networks. The only package under `predictors` that imports torch."""
