"""Variation of genotypes, whole populations at once.

A genotype is a row of categorical choices: two different choices of a decision are equally far
apart, so a decision changes to any other choice alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.spaces import Genotypes

Choices = NDArray[np.int64]
"""Number of choices of each decision, (d,)."""


def uniform_crossover(
    first: Genotypes, second: Genotypes, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Two children per pair: each decision from one parent, and the other way round.

    Shapes: first (n, d), second (n, d) -> (2, n, d).
    """
    take = rng.random(first.shape) < 0.5
    return np.stack([np.where(take, first, second), np.where(take, second, first)])


def mutate(genes: Genotypes, choices: Choices, rng: np.random.Generator) -> Genotypes:
    """Change each decision with probability 1/d, at least one per row, never to what it was.

    Shapes: genes (n, d), choices (d,) -> (n, d). A decision with one choice stays.
    """
    n, d = genes.shape
    free = np.flatnonzero(choices > 1)
    flips = (rng.random((n, d)) < 1.0 / d) & (choices > 1)
    if len(free) > 0:
        unchanged = np.flatnonzero(~flips.any(axis=1))
        flips[unchanged, rng.choice(free, size=len(unchanged))] = True
    steps = 1 + np.floor(rng.random((n, d)) * np.maximum(choices - 1, 1)).astype(np.int64)
    mutants: Genotypes = np.where(flips, (genes + steps) % choices, genes)
    return mutants


def resample(
    genes: Genotypes, choices: Choices, probability: float, rng: np.random.Generator
) -> Genotypes:
    """Draw each decision anew with `probability`; it may come out as it was.

    Shapes: genes (n, d), choices (d,) -> (n, d). Source: Once-for-all (Cai et al., ICLR 2020).
    """
    drawn = (rng.random(genes.shape) * choices).astype(np.int64)
    mutants: Genotypes = np.where(rng.random(genes.shape) < probability, drawn, genes)
    return mutants


def neighbours(genes: Genotypes, choices: Choices) -> Genotypes:
    """Everything that differs from a row in exactly one decision, row by row.

    Shapes: genes (n, d), choices (d,) -> (n * sum(choices - 1), d); duplicates possible.
    """
    n, d = genes.shape
    decision = np.repeat(np.arange(d), choices - 1)
    step = np.concatenate([np.arange(1, c) for c in choices.tolist()])
    result = np.repeat(genes, len(decision), axis=0).reshape(n, len(decision), d)
    at = np.arange(len(decision))
    result[:, at, decision] = (result[:, at, decision] + step) % choices[decision]
    return result.reshape(-1, d)
