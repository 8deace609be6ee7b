"""Structural features: against a slow reference, ranges, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.predictors.encodings import (
    FEATURE_GROUPS,
    FEATURE_NAMES,
    N_FEATURES,
    live_edges,
    longest_path,
    structural_features,
)
from hwnas_sdk.predictors.paths import path_blocks, path_counts
from hwnas_sdk.spaces.nasbench201 import EDGES, NasBench201

PATHS = [(3,), (0, 4), (1, 5), (0, 2, 5)]
cells = st.tuples(*[st.integers(0, 4)] * 6)


@given(cells)
def test_live_edges_lie_on_an_open_path(cell):
    expected = [any(e in p and all(cell[i] for i in p) for p in PATHS) for e in range(6)]
    assert live_edges(np.array([cell]))[0].tolist() == expected


@given(cells)
def test_longest_path_is_the_best_open_path(cell):
    weights = (0.0, 0.1, 0.5, 1.0, 0.7)
    live = live_edges(np.array([cell]))
    sums = [sum(weights[cell[i]] for i in path) for path in PATHS if all(cell[i] for i in path)]
    found = longest_path(np.array([cell]), weights, live)[0]
    assert found == pytest.approx(max(sums, default=0.0))


@given(cells)
def test_counts_agree_with_counting(cell):
    live = live_edges(np.array([cell]))[0]
    value = dict(zip(FEATURE_NAMES, structural_features(np.array([cell]))[0], strict=True))
    for op, name in enumerate(("skip", "conv1", "conv3", "pool"), start=1):
        assert value[f"raw_{name}"] == cell.count(op)
        assert value[f"live_{name}"] == sum(cell[e] == op and bool(live[e]) for e in range(6))
    for e, (source, target) in enumerate(EDGES):
        assert value[f"raw_conv3_{source}{target}"] == (cell[e] == 3)
    assert value["dead_edges"] == sum(1 for e in range(6) if cell[e] and not live[e])


def test_groups_cover_all_columns_once():
    covered = sorted(i for part in FEATURE_GROUPS.values() for i in range(N_FEATURES)[part])
    assert covered == list(range(N_FEATURES))
    assert len(set(FEATURE_NAMES)) == N_FEATURES


def test_each_live_cell_has_exactly_one_pattern():
    genes = NasBench201().all_genotypes()
    patterns = structural_features(genes)[:, FEATURE_GROUPS["patterns"]].sum(axis=1)
    np.testing.assert_array_equal(patterns == 1, live_edges(genes).any(axis=1))


def test_rows_do_not_depend_on_each_other():
    genes = NasBench201().all_genotypes()[:50]
    whole = structural_features(genes)
    np.testing.assert_allclose(whole[7:8], structural_features(genes[7:8]))
    assert structural_features(genes[:0]).shape == (0, N_FEATURES)


@pytest.mark.parametrize("function", [structural_features, path_counts])
@pytest.mark.parametrize("bad", [np.zeros((2, 5)), np.full((1, 6), 5), np.full((1, 6), -1)])
def test_what_is_not_a_cell_is_refused(function, bad):
    with pytest.raises(SpaceError, match="nasbench201"):
        function(bad.astype(int))


@given(cells)
def test_path_counts_agree_with_walking(cell):
    walked = [
        tuple(cell[i] for i in path if cell[i] != 1) for path in PATHS if all(cell[i] for i in path)
    ]
    sequences = [s for n in range(4) for s in itertools.product((2, 3, 4), repeat=n)]
    expected = [walked.count(s) for s in sequences]
    assert path_counts(np.array([cell]))[0].tolist() == expected


def test_equal_functions_have_equal_path_features():
    space = NasBench201()
    genes = space.all_genotypes()[:1500]
    groups: dict[object, list[int]] = {}
    for row, cell in enumerate(genes):
        groups.setdefault(space.family(space.architecture(cell)), []).append(row)
    live = live_edges(genes).any(axis=1)
    blocks = np.concatenate(path_blocks(genes)[2:], axis=1)
    # Pools of one input may be merged or apart in one family, so compare pool-free ones.
    for rows in groups.values():
        same = [r for r in rows if live[r] and 4 not in genes[r]]
        if len(same) > 1:
            np.testing.assert_allclose(blocks[same], blocks[same[:1]].repeat(len(same), axis=0))
