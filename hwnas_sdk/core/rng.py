"""Seeded randomness: one root seed, named child generators."""

from __future__ import annotations

import hashlib

import numpy as np


def child_rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to (`seed`, `names`).

    The same arguments give the same stream on every run and platform, and a new consumer with its
    own name never shifts the numbers another consumer draws.
    """
    text = "/".join([str(seed), *(str(name) for name in names)])
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))
