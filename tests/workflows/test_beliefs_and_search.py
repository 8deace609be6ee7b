from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.types import Architecture, Candidate, Measurement, ParetoFront
from hwnas_sdk.predictors.encodings import executed_cells
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.beliefs import Beliefs, Label, none_edge_ms
from hwnas_sdk.workflows.fronts import (
    front_from_mapping,
    front_to_mapping,
    verdict_from_mapping,
    verdict_to_mapping,
)
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.profile import reference_architectures
from hwnas_sdk.workflows.search import METHODS, SearchPlan, search_front
from hwnas_sdk.workflows.verify import judge, reference_box, scaled_hypervolume

SPACE = get_space("nasbench201")
SMALL = {"population": 40, "generations": 6, "candidates": 8}


def latency_of(arch: Architecture, *, folded: bool) -> float:
    """A board on which operators cost (.02, .1, .5, .2) ms and an empty edge .05 when executed."""
    genes = np.array([arch.genotype])
    if folded:
        genes = executed_cells(genes)
    cost = np.array([0.0 if folded else 0.05, 0.02, 0.1, 0.5, 0.2])
    return float(0.3 + cost[genes].sum())


def label(arch: Architecture, *, folded: bool = False) -> Label:
    return Label(
        architecture=arch, folded=folded, latency_ms=latency_of(arch, folded=folded),
        rel_sd=0.005, peak_memory_mib=60.0 + latency_of(arch, folded=True),
    )  # fmt: skip


@pytest.fixture(scope="module")
def labels() -> list[Label]:
    archs = [SPACE.decode(text) for text in reference_architectures("ours")]
    pair = Architecture("nasbench201", (0, 0, 0, 4, 0, 0))
    return [label(arch) for arch in archs] + [label(pair), label(pair, folded=True)]


def test_what_an_empty_edge_costs_is_read_off_the_pair(labels: list[Label]) -> None:
    assert none_edge_ms(labels) == pytest.approx(0.05)
    assert none_edge_ms(labels[:10]) == 0.0


def test_folded_predictions_do_without_empty_edges(labels: list[Label]) -> None:
    cells = np.array([a.genotype for a in SPACE.sample(200, seed=3)])
    for folded in (False, True):
        beliefs = Beliefs.fit(SPACE, labels, folded=folded)
        mean, sd = beliefs.predict(cells, ["latency"])
        truth = [latency_of(SPACE.architecture(cell), folded=folded) for cell in cells]
        error = np.abs(mean[:, 0] - truth) / truth
        assert np.median(error) < 0.06, folded
        assert (sd > 0).all()
        assert (mean > 0).all()


def test_every_objective_or_a_reason(labels: list[Label]) -> None:
    cells = np.array([a.genotype for a in SPACE.sample(5, seed=4)])
    beliefs = Beliefs.fit(SPACE, labels, folded=True)
    mean, sd = beliefs.predict(cells, ["error", "latency", "memory"])
    assert mean.shape == sd.shape == (5, 3)
    assert ((mean[:, 0] > 4) & (mean[:, 0] < 90)).all()
    with pytest.raises(ConfigError, match="energy"):
        beliefs.predict(cells, ["energy"])
    assert "predicted" in beliefs.provenance()["error_pct"]


def test_energy_is_predicted_once_it_was_measured(labels: list[Label]) -> None:
    def with_energy(x: Label) -> Label:
        return replace(x, energy_mj=3.0 + 2.0 * x.latency_ms)

    cells = np.array([a.genotype for a in SPACE.sample(100, seed=4)])
    beliefs = Beliefs.fit(SPACE, [with_energy(x) for x in labels], folded=True)
    mean, sd = beliefs.predict(cells, ["latency", "energy"])
    assert np.median(np.abs(mean[:, 1] / (3.0 + 2.0 * mean[:, 0]) - 1)) < 0.1
    assert (sd > 0).all()
    assert beliefs.none_mj == pytest.approx(0.1)
    assert "energ" in beliefs.provenance()["energy_mj"]
    plan = SearchPlan(objectives=("error", "latency", "energy"), **SMALL)
    front = search_front(SPACE, beliefs, plan=plan, device_id="d")
    assert all(c.values["energy_mj"] > 0 for c in front.candidates)
    few = [with_energy(x) for x in labels[:4]] + labels[4:]
    with pytest.raises(ConfigError, match="4 networks have a measured energy"):
        Beliefs.fit(SPACE, few, folded=True).predict(cells, ["energy"])


def test_an_odd_device_is_warned_of(labels: list[Label]) -> None:
    assert Beliefs.fit(SPACE, [], folded=True).warning() == ""
    values = [x.latency_ms for x in labels[:10]]
    odd = [replace(x, latency_ms=y) for x, y in zip(labels, reversed(values), strict=False)]
    beliefs = Beliefs.fit(SPACE, odd, folded=False)
    assert "no known device" in beliefs.warning()
    assert beliefs.warning() in beliefs.provenance()["latency_ms"]


def test_a_front_of_three_objectives_is_judged_by_all(labels: list[Label]) -> None:
    """A network that is slower and worse stays on the front when it needs the least energy."""
    archs = SPACE.sample(3, seed=9)
    believed = [(5.0, 2.0, 9.0), (6.0, 3.0, 1.0), (7.0, 4.0, 5.0)]
    candidates = tuple(
        Candidate(architecture=a, arch=SPACE.encode(a),
                  values={"error_pct": e, "latency_ms": ms, "energy_mj": mj})
        for a, (e, ms, mj) in zip(archs, believed, strict=True)
    )  # fmt: skip
    front = ParetoFront(
        device_id="x@1", space="nasbench201", folded=True,
        objectives=("error", "latency", "energy"), candidates=candidates, method="nsga2", seed=0,
        n_evaluations=1, duration_s=0.0,
    )  # fmt: skip
    measured = {
        c.architecture.id: Measurement(
            arch_id=c.architecture.id, artifact_sha256="", device_id="x@1", settings_id="s",
            origin="simulated", latency_ms=c.values["latency_ms"],
            energy_mj=c.values["energy_mj"] * 1.1,
        )
        for c in candidates
    }  # fmt: skip
    box = reference_box(candidates)
    verdict = judge(front, measured, run_id="r", round_number=1, box=box)
    assert [row.on_measured_front for row in verdict.candidates] == [True, True, False]
    assert verdict.objectives == ("error", "latency", "energy")
    assert verdict.origin == "simulated"
    assert verdict.energy_mape_pct == pytest.approx(100 / 11)
    assert verdict.candidates[0].predicted_mj == 9.0
    assert verdict_from_mapping(json.loads(json.dumps(verdict_to_mapping(verdict)))) == verdict
    # Without a sensor energy is no objective of the verdict, rather than none of the networks.
    blind = {key: replace(m, energy_mj=None) for key, m in measured.items()}
    verdict = judge(front, blind, run_id="r", round_number=1, box=box)
    assert verdict.objectives == ("error", "latency")
    assert [row.on_measured_front for row in verdict.candidates] == [True, False, False]
    assert verdict.energy_mape_pct is None


def test_a_front_is_distinct_live_and_repeatable(labels: list[Label]) -> None:
    beliefs = Beliefs.fit(SPACE, labels, folded=True)
    plan = SearchPlan(**SMALL, seed=2)  # type: ignore[arg-type]
    front = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    families = {SPACE.family(c.architecture) for c in front.candidates}
    assert len(families) == len(front.candidates) == 8
    for candidate in front.candidates:
        assert not SPACE.is_dead(candidate.architecture)
        cell = np.array([candidate.architecture.genotype])
        assert np.array_equal(executed_cells(cell), cell)
        assert set(candidate.values) == {"error_pct", "latency_ms", "memory_mib"}
    again = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    assert [c.arch for c in again.candidates] == [c.arch for c in front.candidates]
    stored = json.loads(json.dumps(front_to_mapping(front)))
    assert front_from_mapping(stored) == front
    measured = [label(c.architecture, folded=True) for c in front.candidates]
    other = search_front(SPACE, beliefs, plan=plan, device_id="x@1", measured=measured)
    assert not families & {SPACE.family(c.architecture) for c in other.candidates}


def test_limits_hold_or_are_named(labels: list[Label]) -> None:
    beliefs = Beliefs.fit(SPACE, labels, folded=True)
    plan = SearchPlan(**SMALL, max_latency_ms=1.0, max_memory_mib=61.0)  # type: ignore[arg-type]
    front = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    assert max(c.values["latency_ms"] for c in front.candidates) <= 1.0
    assert max(c.values["memory_mib"] for c in front.candidates) <= 61.0
    impossible = SearchPlan(**SMALL, max_latency_ms=1e-6)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no network satisfies"):
        search_front(SPACE, beliefs, plan=impossible, device_id="x@1")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_proposes_a_front(labels: list[Label], method: str) -> None:
    """Whatever the order of the objectives, and with a limit."""
    beliefs = Beliefs.fit(SPACE, labels, folded=True)
    plan = SearchPlan(
        **SMALL,  # type: ignore[arg-type]
        method=method,
        objectives=("latency", "error"),
        max_latency_ms=1.5,
        seed=3,
    )
    front = search_front(SPACE, beliefs, plan=plan, device_id="x@1")
    assert front.method == ("exhaustive" if method == "auto" else method)
    n_live = int(SPACE.live_mask().sum())
    assert front.n_evaluations == {"auto": n_live, "modnas": 4 * 8}.get(method, 240)
    assert len({c.arch for c in front.candidates}) == 8
    assert max(c.values["latency_ms"] for c in front.candidates) <= 1.5


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "magic"},
        {"objectives": ("error",)},
        {"objectives": ("error", "latency", "beauty")},
        {"objectives": ("error", "latency", "latency")},
        {"candidates": 0},
    ],
)
def test_wrong_plans_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SearchPlan(**changes)  # type: ignore[arg-type]


def test_a_verdict_by_hand(labels: list[Label]) -> None:
    """Two rows swap places, one falls off the front, one is invalid."""
    archs = SPACE.sample(4, seed=9)
    predicted = [(5.0, 4.0), (6.0, 3.0), (8.0, 2.0), (9.0, 1.0)]
    candidates = tuple(
        Candidate(architecture=a, arch=SPACE.encode(a),
                  values={"error_pct": e, "latency_ms": ms}, sd={"latency_ms": 0.1})
        for a, (e, ms) in zip(archs, predicted, strict=True)
    )  # fmt: skip
    front = ParetoFront(
        device_id="x@1", space="nasbench201", folded=True, objectives=("error", "latency"),
        candidates=candidates, method="nsga2", seed=0, n_evaluations=1, duration_s=0.0,
    )  # fmt: skip
    base = Measurement(
        arch_id="", artifact_sha256="", device_id="x@1", settings_id="s", origin="measured",
        latency_ms=1.0, ci95_ms=0.01,
    )  # fmt: skip
    times = [4.0, 2.0, 2.5, 1.0]
    measured = {
        a.id: replace(base, arch_id=a.id, latency_ms=ms) for a, ms in zip(archs, times, strict=True)
    }
    measured[archs[3].id] = replace(measured[archs[3].id], flags=("contended",))
    box = reference_box(candidates)
    assert box == pytest.approx((9.9, 4.4))
    verdict = judge(front, measured, run_id="r", round_number=1, box=box)
    assert verdict.dominated_after_measuring == (candidates[2].arch,)
    assert [row.measured_ms for row in verdict.candidates] == [4.0, 2.0, 2.5, None]
    assert verdict.n_measured == 3
    assert verdict.spearman == pytest.approx(0.5)
    assert verdict.mape_pct == pytest.approx(100 * (0 + 0.5 + 0.2) / 3)
    # Both points that are left: boxes from (5, 4) and (6, 2) to (9.9, 4.4).
    area = (9.9 - 5) * (4.4 - 4) + (9.9 - 6) * (4 - 2)
    assert verdict.hypervolume_measured == pytest.approx(area / (9.9 * 4.4))
    # Of the predictions only those count that were measured: (5, 4), (6, 3), (8, 2).
    area = (9.9 - 5) * (4.4 - 4) + (9.9 - 6) * (4 - 3) + (9.9 - 8) * (3 - 2)
    assert verdict.hypervolume_predicted == pytest.approx(area / (9.9 * 4.4))
    assert scaled_hypervolume([], [], box) == 0.0
    assert verdict_from_mapping(json.loads(json.dumps(verdict_to_mapping(verdict)))) == verdict


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def test_search_needs_a_profile_and_verify_keeps_its_verdict(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    with pytest.raises(DataError, match="no profile"):
        lab.search(SPACE, on=board)
    lab.profile(board)
    front = lab.search(SPACE, on=board, candidates=4, seed=1)
    verdict = lab.verify(front, on=board)
    assert len(verdict.candidates) == 4
    assert lab.verdict(verdict.run_id) == verdict
