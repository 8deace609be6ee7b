"""Mutation, crossover and neighbourhoods: they stay inside the space and change what they say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.search.variation import mutate, neighbours, resample, uniform_crossover

CHOICES = st.lists(st.integers(1, 7), min_size=1, max_size=6).map(np.array)


@st.composite
def populations(draw):
    """Choices (d,) and genotypes (n, d) of up to five members."""
    choices = draw(CHOICES)
    n = draw(st.integers(0, 5))
    rows = [[draw(st.integers(0, c - 1)) for c in choices.tolist()] for _ in range(n)]
    return choices, np.array(rows, dtype=np.int64).reshape(n, len(choices))


def test_mutants_differ_and_stay_inside():
    rng = np.random.default_rng(0)
    choices = np.array([5, 2, 1, 7])
    genes = np.stack([rng.integers(0, c, 500) for c in choices], axis=1)
    mutants = mutate(genes, choices, rng)
    assert ((mutants >= 0) & (mutants < choices)).all()
    changed = mutants != genes
    assert not changed[:, 2].any()
    assert changed.any(axis=1).all()
    np.testing.assert_array_equal(mutate(genes[:, 2:3], choices[2:3], rng), genes[:, 2:3])


def test_children_complement_each_other():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 100, 6))
    one, other = uniform_crossover(first, second, rng)
    np.testing.assert_array_equal(one + other, first + second)
    assert ((one == first) | (one == second)).all()


@given(populations())
def test_neighbours_are_all_one_step_away(population):
    choices, genes = population
    found = neighbours(genes, choices)
    n_each = int((choices - 1).sum())
    assert found.shape == (len(genes) * n_each, len(choices))
    assert ((found >= 0) & (found < choices)).all()
    steps = (found.reshape(len(genes), n_each, len(choices)) != genes[:, None, :]).sum(axis=2)
    assert (steps == 1).all()
    for row in found.reshape(len(genes), n_each, len(choices)).tolist():
        assert len(set(map(tuple, row))) == n_each


@given(populations(), st.floats(0, 1), st.integers(0, 99))
def test_resampled_genes_stay_inside(population, probability, seed):
    choices, genes = population
    drawn = resample(genes, choices, probability, np.random.default_rng(seed))
    assert drawn.dtype == np.int64
    assert ((drawn >= 0) & (drawn < choices)).all()
    if probability == 0:
        np.testing.assert_array_equal(drawn, genes)


def test_resampling_changes_genes_as_often_as_it_says():
    rng = np.random.default_rng(0)
    genes = rng.integers(0, 5, (20_000, 1))
    drawn = resample(genes, np.array([5]), 0.5, rng)
    assert abs((drawn != genes).mean() - 0.5 * 0.8) < 0.02
