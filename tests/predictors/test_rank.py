"""Expected Pareto ranks: conformance, what scores mean, files, spaces too large to rank whole."""

from __future__ import annotations

import numpy as np
import pytest
from rank_space import Chains

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors import population, rank, standing
from hwnas_sdk.predictors.expected_rank import ranks_among
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.population import population_of
from hwnas_sdk.predictors.rank import RankPredictor
from hwnas_sdk.predictors.rank_independent import independent_ranks, independent_within
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.rank import RankConformance, toy_objectives

SPACE = Chains()
ALL = population_of(SPACE).genotypes


class TestPosterior(RankConformance):
    @pytest.fixture
    def space(self):
        return SPACE

    @pytest.fixture
    def make(self):
        return lambda space, genes, error, costs: RankPredictor.fit(
            space, genes, error, costs, draws=16
        )


def labels(n=60, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    genes = ALL[rng.choice(len(ALL), n, replace=False)]
    error, cost = toy_objectives(SPACE, genes)
    return genes, error, cost * np.exp(noise * rng.normal(size=n))


def truth():
    return pareto.ranks(np.column_stack(toy_objectives(SPACE, ALL)))


def test_unseen_architectures_are_ordered_better_than_by_sorting_the_means():
    """Above all where a coarse clock puts many architectures on one value."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        error, cost = toy_objectives(SPACE, ALL)
        error = error * np.exp(0.05 * rng.normal(size=len(ALL)))
        cost = np.ceil(cost)
        ranks = pareto.ranks(np.column_stack([error, cost]))
        rows = rng.choice(len(ALL), 100, replace=False)
        costs = {"board": cost[rows]}
        model = RankPredictor.fit(SPACE, ALL[rows], error[rows], costs, draws=32)
        own = kendall(ranks, -model.score(ALL, "board"))
        assert own > kendall(ranks, independent_ranks(SPACE, model.platform("board"), ALL)) + 0.02


def test_the_score_is_minus_a_rank():
    genes, error, cost = labels(n=200)
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost})
    scores = model.score(ALL, "board")
    # Nearly everything is known here, so the expected rank is nearly the true one.
    assert kendall(truth(), -scores) > 0.85
    others = scores <= 0
    assert np.abs(-scores - truth())[others].mean() < 4.0  # of 25 fronts


def test_those_not_listed_are_scored_by_their_standing():
    genes, error, cost = labels(n=60, noise=0.3)
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=16)
    scores = model.score(population_of(SPACE).genotypes, "board")
    standing = model.by_platform["board"].standing
    order = standing.order(standing)
    np.testing.assert_array_equal(scores[scores <= 0], -order[scores <= 0])
    assert np.abs(order - standing.ranks).max() > 1.0


def test_the_likely_front_members_come_first():
    genes, error, cost = labels(n=200)
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=4)
    platform = model.by_platform["board"]
    scores = model.score(population_of(SPACE).genotypes, "board")
    drawn = platform._draws(population_of(SPACE), model.seed, model.draws)
    counts = np.sum([pareto.ranks(points) == 0 for points in drawn], axis=0)
    listed = scores > 0
    assert standing.SHORTLIST * len(ALL) <= listed.sum() < len(ALL) / 4
    np.testing.assert_array_equal(listed, counts >= 4 * platform.shortlist)
    assert scores.max() <= 1.0
    order = np.argsort(-scores)[: listed.sum()]
    assert (np.diff(counts[order]) <= 0).all()


def test_ranks_within_a_set_beat_the_sorted_means_and_the_score():
    genes, error, cost = labels(n=60, noise=0.1)
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=32)
    rng = np.random.default_rng(2)
    rows = np.array([rng.choice(len(ALL), 12, replace=False) for _ in range(80)])
    true = pareto.ranks_of_sets(np.column_stack(toy_objectives(SPACE, ALL))[rows])
    scores = model.score(ALL, "board")
    by = {
        "within": model.ranks_within(ALL[rows], "board"),
        "means": independent_within(SPACE, model.platform("board"), ALL[rows]),
        "score": -scores[rows],
    }
    better = true[:, :, None] < true[:, None, :]
    taus = {k: np.sign(r[:, None, :] - r[:, :, None])[better].mean() for k, r in by.items()}
    assert taus["within"] > taus["means"] > 0.5
    assert taus["within"] > taus["score"] > 0.5
    np.testing.assert_array_equal(by["within"], model.ranks_within(ALL[rows], "board"))


def test_ranks_within_depend_on_their_set_alone_and_equals_tie():
    genes, error, cost = labels(n=60, noise=0.1)
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=8)
    sets = np.array([ALL[3:9], ALL[20:26]])
    found = model.ranks_within(sets, "board")
    np.testing.assert_allclose(model.ranks_within(sets[1:], "board")[0], found[1])
    np.testing.assert_allclose(model.ranks_within(sets[:, ::-1], "board"), found[:, ::-1])
    np.testing.assert_array_equal(model.ranks_within(ALL[None, [7, 7, 7]], "board"), [[0, 0, 0]])
    for empty in (np.zeros((0, 5, 4), int), np.zeros((3, 0, 4), int)):
        assert model.ranks_within(empty, "board").shape == empty.shape[:2]
        assert independent_within(SPACE, model.platform("board"), empty).shape == empty.shape[:2]
    whole = model.ranks_within(ALL[None], "board")[0]
    assert kendall(truth(), whole) > 0.7


def test_ranks_within_know_a_coarse_clock():
    genes, error, _ = labels(n=60)
    model = RankPredictor.fit(
        SPACE, genes, error, {"board": np.where(genes[:, 0] > 1, 2.0, 1.0)}, draws=16
    )
    # Both take one step, so the one with the larger error is surely behind.
    better, worse = ALL[None, np.argsort(toy_objectives(SPACE, ALL)[0])[[0, -1]]][0]
    better, worse = better.copy(), worse.copy()
    better[0] = worse[0] = 0
    ranks = model.ranks_within(np.array([[better, worse]]), "board")
    np.testing.assert_allclose(ranks, [[0.0, 1.0]], atol=0.1)


def test_a_file_of_another_schema_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(rank, "get_space", lambda name: SPACE)
    genes, error, cost = labels()
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=4)
    path = tmp_path / "ranks.safetensors"
    monkeypatch.setattr(rank, "SCHEMA", 3)
    model.save(path, data={}, metrics={})
    monkeypatch.undo()
    with pytest.raises(ModelError, match="schema 3, this version reads schema 4") as caught:
        RankPredictor.load(path)
    assert "hwnas train" in caught.value.hint


def test_the_dead_rank_behind_the_others_of_their_set():
    genes, error, cost = labels()
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=4)
    sets = np.array([[[3, 3, 3, 3], [0, 0, 0, 0], [1, 1, 1, 1]]])
    for ranks in (
        model.ranks_within(sets, "board"),
        independent_within(SPACE, model.platform("board"), sets),
    ):
        assert ranks.shape == (1, 3)
        assert ranks[0].argmax() == 1
    with pytest.raises(ModelError, match="sets of genotypes"):
        model.ranks_within(sets[0], "board")


def test_dead_architectures_score_last():
    genes, error, cost = labels()
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=4)
    dead, best = model.score(np.array([[0, 0, 0, 0], [3, 3, 3, 3]]), "board")
    assert dead < model.score(ALL, "board").min() < best


def test_a_coarse_clock_is_noticed():
    genes, error, cost = labels(n=120)
    model = RankPredictor.fit(
        SPACE, genes, error, {"fine": cost, "coarse": np.round(cost) + 1.0}, draws=4
    )
    (fine,), (coarse,) = (model.by_platform[p].levels for p in ("fine", "coarse"))
    assert fine is None
    np.testing.assert_allclose(np.exp(coarse), np.unique(np.round(cost) + 1.0))
    platform = model.by_platform["coarse"]
    drawn = next(platform._draws(population_of(SPACE), model.seed, model.draws))
    assert set(platform.read(drawn)[:, 1]) <= set(coarse)


def test_three_objectives_and_their_correlation():
    genes, error, cost = labels(n=120)
    rng = np.random.default_rng(1)
    shared = np.exp(0.2 * rng.normal(size=len(cost)))
    both = np.column_stack([cost * shared, 3.0 * cost * shared])
    model = RankPredictor.fit(SPACE, genes, error, {"board": both}, draws=8)
    correlation = model.by_platform["board"].correlation
    assert correlation[1, 2] > 0.9
    assert correlation[0, 1] == correlation[0, 2] == 0.0
    assert np.isfinite(model.score(ALL, "board")).all()


def test_an_exact_cost_leaves_the_correlation_of_the_others():
    genes, error, cost = labels(n=120)
    rng = np.random.default_rng(1)
    shared = np.exp(0.2 * rng.normal(size=len(cost)))
    exact = np.pi * (1.0 + genes @ [1.0, 2.0, 0.5, 0.25])
    three = np.column_stack([cost * shared, exact, 3.0 * cost * shared])
    model = RankPredictor.fit(SPACE, genes, error, {"board": three}, draws=4)
    correlation = model.by_platform["board"].correlation
    assert correlation[1, 3] > 0.9
    np.testing.assert_array_equal(correlation[2], [0.0, 0.0, 1.0, 0.0])


def test_a_sampled_population_and_its_outsiders(monkeypatch):
    monkeypatch.setattr(population, "_LARGEST_WHOLE", 10)
    monkeypatch.setattr(population, "_SAMPLE", 100)
    space = Chains()  # populations are remembered per space object
    genes, error, cost = labels(n=150)
    model = RankPredictor.fit(space, genes, error, {"board": cost}, draws=32)
    assert len(population_of(space)) == 100
    outside = population_of(space).rows(ALL) < 0
    assert outside.sum() == len(ALL) - 100
    scores = model.score(ALL, "board")
    assert kendall(truth()[outside], -scores[outside]) > 0.8
    np.testing.assert_allclose(model.score(ALL[outside][5:9], "board"), scores[outside][5:9])


def test_rank_among_others():
    population = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])  # ranks 0 0 1 2
    points = np.array([[0.0, 1.0], [1.0, 1.0], [1.5, 1.5], [2.5, 2.5], [9.0, 9.0]])
    np.testing.assert_array_equal(ranks_among(points, population), [0, 0, 1, 2, 3])


def test_a_new_platform_brings_errors_of_its_own():
    genes, error, cost = labels(n=120)
    model = RankPredictor.fit(SPACE, genes[:60], error[:60], {"board": cost[:60]}, draws=4)
    same = model.add_platform("other", genes[:60], cost[:60], error_pct=error[:60])
    assert same.by_platform["other"].objectives[0] is model.error
    more = model.add_platform("other", genes, cost, error_pct=error)
    assert len(more.by_platform["other"].objectives[0].target) == len(model.error.target) + 60
    np.testing.assert_array_equal(more.score(ALL, "board"), model.score(ALL, "board"))


def test_missing_labels_are_left_out():
    genes, error, cost = labels(n=60)
    error[:10], cost[10:20] = np.nan, np.nan
    model = RankPredictor.fit(SPACE, genes, error, {"board": cost}, draws=4)
    assert len(model.error.target) == 50
    assert len(model.by_platform["board"].objectives[1].target) == 50


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf])
def test_costs_that_are_not_positive_are_refused(bad):
    genes, error, cost = labels()
    cost[3] = bad
    with pytest.raises(ModelError, match="positive"):
        RankPredictor.fit(SPACE, genes, error, {"board": cost})


def test_files(tmp_path, monkeypatch):
    monkeypatch.setattr(rank, "get_space", lambda name: SPACE)
    genes, error, cost = labels()
    costs = {"fine": cost, "coarse": np.round(cost) + 1.0}
    model = RankPredictor.fit(SPACE, genes, error, costs, draws=4)
    path = tmp_path / "ranks.safetensors"
    model.save(path, data={"source": "made up"}, metrics={})
    loaded = RankPredictor.load(path)
    assert loaded.platforms == model.platforms
    for name in costs:
        np.testing.assert_array_equal(loaded.score(ALL, name), model.score(ALL, name))
    # What is learned later needs more than the stored scores.
    a, b = (m.add_platform("new", genes, cost) for m in (loaded, model))
    np.testing.assert_array_equal(a.score(ALL, "new"), b.score(ALL, "new"))
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace('"kind": "rank"', '"kind": "other"'))
    with pytest.raises(ModelError, match="other"):
        RankPredictor.load(path)


@pytest.mark.slow
def test_the_whole_of_nasbench201():
    """Only that it runs: figures are the bench's."""
    space = NasBench201()
    sample = space.sample(40, seed=1)
    genes = np.array([a.genotype for a in sample])
    error, cost = toy_objectives(space, genes)
    model = RankPredictor.fit(space, genes, error, {"board": cost}, draws=2)
    scores = model.score(space.all_genotypes(), "board")
    dead = ~space.live_mask()
    assert scores[dead].max() < scores[~dead].min()
