"""The score of a search by rank: beliefs of a profiled device, or a file of `train rank`."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, save_model
from hwnas_sdk.predictors.encodings import executed_cells
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.rank import RankPredictor
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.searcher import SearcherConformance
from hwnas_sdk.workflows import rank_guide
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.profile import reference_architectures
from hwnas_sdk.workflows.rank_guide import _normal, rank_scores_of, ranker_scores
from hwnas_sdk.workflows.search import SearchPlan, search_front
from hwnas_sdk.workflows.searchers import SEARCHERS, Task

SPACE = get_space("nasbench201")
SMALL = {"method": "rank", "population": 40, "generations": 6, "candidates": 8}
CELLS = SPACE.all_genotypes()[SPACE.live_mask()]
BOTH = ("error", "latency")


def latency_of(genotype):
    """A board on which operators cost (0, .02, .1, .5, .2) ms."""
    cost = np.array([0.0, 0.02, 0.1, 0.5, 0.2])
    return float(0.3 + cost[executed_cells(np.array([genotype]))].sum())


def label_of(arch, **changes):
    ms = latency_of(arch.genotype)
    known = {"latency_ms": ms, "peak_memory_mib": 60.0 + ms, "energy_mj": 3.0 + 2.0 * ms}
    return Label(architecture=arch, folded=True, rel_sd=0.005, **{**known, **changes})


@pytest.fixture(scope="module")
def labels():
    return [label_of(SPACE.decode(text)) for text in reference_architectures("ours")]


@pytest.fixture(scope="module")
def beliefs(labels):
    return Beliefs.fit(SPACE, labels, folded=True)


class TestRankOfTheCommand(SearcherConformance):
    @pytest.fixture
    def make(self):
        def made(space, seed):
            return SEARCHERS["rank"](
                Task(
                    space=space,
                    objectives=BOTH,
                    population=20,
                    seed=seed,
                    predict=lambda genotypes, names: np.zeros((len(genotypes), len(names))),
                )
            )

        return made


@pytest.mark.parametrize("objectives", [BOTH, ("energy", "latency", "error")])
def test_scores_order_by_the_rank_of_what_is_believed(beliefs, objectives):
    cells = np.unique(executed_cells(CELLS), axis=0)
    scores = rank_scores_of(SPACE, beliefs, objectives, seed=0, draws=8)(cells)
    fronts = pareto.ranks(beliefs.predict(cells, objectives)[0])
    assert kendall(fronts, -scores) > 0.75
    assert scores.max() <= 0.0
    assert scores[fronts == 0].mean() > np.quantile(scores, 0.9)


def test_folded_networks_that_execute_the_same_have_one_score(beliefs):
    score = rank_scores_of(SPACE, beliefs, BOTH, seed=0, draws=2)
    np.testing.assert_array_equal(score(CELLS[:500]), score(executed_cells(CELLS[:500])))
    unfolded = rank_scores_of(SPACE, replace(beliefs, folded=False), BOTH, seed=0, draws=2)
    assert not np.array_equal(unfolded(CELLS[:500]), unfolded(executed_cells(CELLS[:500])))


def test_a_shared_doubt_changes_no_rank(beliefs):
    asked = CELLS[::97]
    sure = rank_scores_of(SPACE, beliefs, BOTH, seed=1, draws=4)(asked)
    doubtful = replace(beliefs, scale_log_sd=0.5)
    np.testing.assert_array_equal(
        rank_scores_of(SPACE, doubtful, BOTH, seed=1, draws=4)(asked), sure
    )


def test_measurements_change_the_score(labels, beliefs):
    """What is found far slower than it was believed to be ranks lower from then on."""
    before = rank_scores_of(SPACE, beliefs, BOTH, seed=0, draws=4)
    cells = np.unique(executed_cells(CELLS), axis=0)
    best = cells[np.argsort(-before(cells), kind="stable")[:20]]
    slow = [label_of(SPACE.architecture(c), latency_ms=4.0 * latency_of(c)) for c in best]
    refined = Beliefs.fit(SPACE, [*labels, *slow], folded=True)
    after = rank_scores_of(SPACE, refined, BOTH, seed=0, draws=4)
    assert before(best).min() >= -1.0
    assert (after(best) < -5.0).sum() >= 3


def test_what_exceeds_a_limit_scores_below_everything_else(beliefs):
    def violation(genotypes):
        return np.maximum(beliefs.predict(genotypes, ["latency"])[0][:, 0] / 1.0 - 1.0, 0.0)

    score = rank_scores_of(SPACE, beliefs, BOTH, seed=0, violation=violation, draws=4)
    scores, over = score(CELLS[::7]), violation(CELLS[::7]) > 0.0
    assert over.any()
    assert scores[~over].min() > scores[over].max()
    # A limit that nothing keeps leaves all of them ranked, for the search to say so.
    everything = rank_scores_of(
        SPACE, beliefs, BOTH, seed=0, violation=lambda g: np.ones(len(g)), draws=4
    )
    assert len(np.unique(everything(CELLS[::7]))) > 10


def test_a_sample_ranks_the_others_of_a_large_space(beliefs, monkeypatch):
    """Whoever is not in the sample is scored as if it joined, and orders almost the same."""
    whole = rank_scores_of(SPACE, beliefs, BOTH, seed=0, draws=8)(CELLS[::97])
    sample = rank_guide.population_of(SPACE)
    part = replace(sample, genotypes=sample.genotypes[::10])
    monkeypatch.setattr(rank_guide, "population_of", lambda space: part)
    sampled = rank_scores_of(SPACE, beliefs, BOTH, seed=0, draws=8)(CELLS[::97])
    assert np.isfinite(sampled).all()
    assert kendall(whole, sampled) > 0.85


@pytest.mark.parametrize("objectives", [BOTH, ("energy", "error", "latency")])
def test_a_front_is_repeatable_distinct_and_keeps_limits(beliefs, objectives):
    plan = SearchPlan(**SMALL, objectives=objectives, max_latency_ms=1.5, seed=2)
    front = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    assert front.method == "rank"
    assert front.n_evaluations == plan.n_evaluations == 240
    assert len({SPACE.family(c.architecture) for c in front.candidates}) == 8
    assert max(c.values["latency_ms"] for c in front.candidates) <= 1.5
    again = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    assert again.candidates == front.candidates
    measured = [label_of(c.architecture) for c in front.candidates]
    other = search_front(SPACE, beliefs, plan=plan, device_id="x@1", measured=measured, stream=2)
    families = {SPACE.family(c.architecture) for c in front.candidates}
    assert not families & {SPACE.family(c.architecture) for c in other.candidates}


@pytest.mark.slow
def test_it_finds_what_scoring_the_whole_space_finds(beliefs):
    """Hypervolume by predicted values, within a percent of the exhaustive search."""
    found = {}
    for method in ("auto", "rank"):
        plan = SearchPlan(method=method, seed=0)
        front = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
        found[method] = np.array(
            [[c.values["error_pct"], c.values["latency_ms"]] for c in front.candidates]
        )
    worst = np.concatenate(list(found.values())).max(axis=0) * 1.1
    volumes = {name: pareto.hypervolume(points, worst) for name, points in found.items()}
    assert volumes["rank"] > 0.99 * volumes["auto"]


def test_what_is_known_to_the_last_digit_ties_in_every_draw():
    means, sds = np.array([[10.0, 2.0], [20.0, 2.0]]), np.array([[0.5, 2e-6], [0.5, 2e-3]])
    told = SimpleNamespace(predict=lambda genotypes, objectives: (means, sds))
    values, doubts = _normal(told, CELLS[:2], ("error", "latency"))
    np.testing.assert_allclose(values, [[-0.1, np.log(2)], [-0.05, np.log(2)]])
    np.testing.assert_allclose(doubts, [[0.005, 0.0], [0.00125, 1e-3]])


@pytest.fixture
def ranker_file(tmp_path):
    """Writes a ranker of some devices that was made for some objectives."""

    def written(devices=("board",), objectives=BOTH):
        rng = np.random.default_rng(0)
        cells = CELLS[rng.choice(len(CELLS), 60, replace=False)]
        ms = np.array([latency_of(cell) for cell in cells])
        errors = 5.0 + 20.0 / (0.2 + ms)
        model = RankPredictor.fit(SPACE, cells, errors, dict.fromkeys(devices, ms), draws=4)
        path = tmp_path / "ranker.safetensors"
        model.save(path, data={"objectives": list(objectives)}, metrics={})
        return path

    return written


def test_a_ranker_takes_the_place_of_the_beliefs(beliefs, ranker_file):
    path = ranker_file()
    model = RankPredictor.load(path)
    score = ranker_scores(path, SPACE, ("latency", "error"))
    np.testing.assert_array_equal(score(CELLS[:50]), -model.expected_ranks(CELLS[:50], "board"))
    plan = SearchPlan(**SMALL, ranker=path, seed=2)
    assert json.loads(json.dumps(plan.to_json()))["ranker"] == str(path)
    guided = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    believed = search_front(SPACE, beliefs, plan=replace(plan, ranker=None), device_id="x@1")
    assert len(guided.candidates) == 8
    assert {c.arch for c in guided.candidates} != {c.arch for c in believed.candidates}


@pytest.mark.parametrize(
    ("options", "objectives", "message"),
    [
        ({"objectives": ("error", "energy")}, BOTH, "ranks by error,energy"),
        ({"devices": ("a", "b")}, BOTH, "for 2 devices"),
    ],
)
def test_a_ranker_of_something_else_is_refused(ranker_file, options, objectives, message):
    with pytest.raises(ConfigError, match=message):
        ranker_scores(ranker_file(**options), SPACE, objectives)


def test_a_file_that_is_no_ranker_is_refused(tmp_path):
    shipped = WEIGHTS_FOLDER / "nb201_accuracy_cifar10.safetensors"
    with pytest.raises(ModelError, match="accuracy"):
        ranker_scores(shipped, SPACE, BOTH)


def test_the_papers_network_guides_as_well(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from hwnas_sdk.predictors.neural import rank_network

    class Loaded:
        platforms = ("board",)

        def score(self, genotypes, platform):
            return np.arange(len(genotypes), dtype=np.float64)

    assert rank_guide._NETWORK == rank_network.KIND
    path = tmp_path / "net.safetensors"
    card = Card(name="net", kind=rank_network.KIND, space=SPACE.name, schema=1, data={}, metrics={})
    save_model(path, {"weights": np.zeros(1)}, card)
    monkeypatch.setattr(rank_network.RankNetwork, "load", lambda path: Loaded())
    assert ranker_scores(path, SPACE, BOTH)(CELLS[:3]).tolist() == [0.0, 1.0, 2.0]


def test_a_ranker_needs_the_method(tmp_path):
    with pytest.raises(ConfigError, match="ranker is of no use"):
        SearchPlan(method="nsga2", ranker=tmp_path / "x.safetensors")
