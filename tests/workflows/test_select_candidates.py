"""select: scores from images take the place of predicted errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from image_folders import striped

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import DataError, ModelError, SpaceError  # noqa: E402
from hwnas_sdk.core.types import Architecture, Candidate, ParetoFront  # noqa: E402
from hwnas_sdk.networks.supernet import SupernetConfig  # noqa: E402
from hwnas_sdk.networks.supernet_response import (  # noqa: E402
    inherited_accuracy_pct,
    new_supernet,
    search_halves,
)
from hwnas_sdk.networks.training import sotl  # noqa: E402
from hwnas_sdk.networks.training.fit import TrainPlan  # noqa: E402
from hwnas_sdk.predictors.card import Card  # noqa: E402
from hwnas_sdk.spaces import get_space  # noqa: E402
from hwnas_sdk.workflows import select_candidates  # noqa: E402
from hwnas_sdk.workflows.fronts import front_from_mapping, front_to_mapping  # noqa: E402
from hwnas_sdk.workflows.select_candidates import (  # noqa: E402
    select_by_inheritance,
    select_by_sotl,
)
from hwnas_sdk.workflows.supernet_files import check_supernet  # noqa: E402

SPACE = get_space("nasbench201")
IMAGES = search_halves(striped(96))
PLAN = TrainPlan(epochs=2, batch_size=16, learning_rate=0.05, padding=0, flip=False)
CELLS = ((0, 0, 0, 1, 0, 0), (1, 0, 0, 2, 0, 0), (0, 0, 0, 4, 0, 0))


def front(latencies_ms=(1.0, 2.0, 3.0), *, objectives=("error", "latency"), memory_mib=()):
    candidates = []
    for i, (cell, ms) in enumerate(zip(CELLS, latencies_ms, strict=True)):
        arch = SPACE.architecture(cell)
        values = {"error_pct": 10.0, "latency_ms": ms}
        if memory_mib:
            values["memory_mib"] = memory_mib[i]
        candidates.append(Candidate(architecture=arch, arch=SPACE.encode(arch), values=values))
    return ParetoFront(
        device_id="x@1", space="nasbench201", folded=True, objectives=objectives,
        candidates=tuple(candidates), method="modnas", seed=0, n_evaluations=3, duration_s=0.1,
    )  # fmt: skip


def tiny_supernet():
    return new_supernet(
        SupernetConfig(input_shape=(1, 8, 8), channels=(2, 4, 8), cells_per_stage=1), seed=0
    )


def trained_with(monkeypatch, losses):
    """Trainings that end at once, in these losses by epoch."""
    answers = iter(losses)
    result = sotl.TrainResult

    def short(space, architecture, images, plan, **options):
        row = next(answers)
        return result(tuple(row), tuple(100.0 - 10.0 * loss for loss in row), 0.0)

    monkeypatch.setattr(sotl, "short_training", short)


def test_who_is_dominated_in_score_and_costs_goes(monkeypatch):
    trained_with(monkeypatch, [(2.0, 1.0), (1.0, 0.5), (1.5, 1.0)])
    selection = select_by_sotl(front(), IMAGES, PLAN)
    # The third is slower than the second and learns worse.
    assert [row.kept for row in selection.scored] == [True, True, False]
    assert selection.scored[0].score == pytest.approx(2.0 + 0.01 * 2.0 + 0.99 * 1.0)
    assert selection.scored[0].trained_accuracy_pct == 90.0
    assert [c.arch for c in selection.front.candidates] == [row.arch for row in selection.scored][
        :2
    ]
    assert "2 of 3 candidates" in selection.front.provenance["selection"]
    assert selection.kendall is None
    assert front_from_mapping(front_to_mapping(selection.front)) == selection.front


def test_a_third_objective_counts(monkeypatch):
    trained_with(monkeypatch, [(2.0, 1.0), (1.0, 0.5), (1.5, 1.0)])
    asked = front(objectives=("error", "latency", "memory"), memory_mib=(3.0, 3.0, 2.0))
    selection = select_by_sotl(asked, IMAGES, PLAN)
    assert [row.kept for row in selection.scored] == [True, True, True]


def altered(**changes):
    """The front, with something about its last candidate changed."""
    first, *middle, last = front().candidates
    return replace(front(), candidates=(first, *middle, replace(last, **changes)))


def named(cell, space="nasbench201"):
    arch = Architecture(space, cell)
    try:
        return {"architecture": arch, "arch": SPACE.encode(arch)}
    except SpaceError:
        return {"architecture": arch}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (replace(front(), objectives=("error", "latency", "memory")), "1 has no memory_mib"),
        (replace(front(), objectives=("error", "beauty")), "unknown objective 'beauty'"),
        (replace(front(), objectives=("error", ["latency"])), "unknown objective"),
        (replace(front(), space="nowhere"), "unknown search space 'nowhere'"),
        (altered(values={"error_pct": 10.0}), "candidate 3 has no latency_ms"),
        (altered(values={"latency_ms": "fast"}), "latency_ms of candidate 3 is no number"),
        (altered(values={"latency_ms": float("nan")}), "latency_ms of candidate 3 is no number"),
        (altered(**named((0, 0, 0, 9, 0, 0))), "candidate 3: nasbench201: decision 3 must be in"),
        (altered(**named((0, 0, 0, 1))), "candidate 3: nasbench201: a genotype has 6 decisions"),
        (altered(**named((0, 0, 0, 1, 0, 0), "nowhere")), "candidate 3: nowhere:"),
        (altered(**named((0,) * 6)), "candidate 3 ignores its input"),
        (altered(arch=SPACE.encode(SPACE.architecture(CELLS[0]))), "the name of another network"),
    ],
)
def test_a_bad_front_is_found_before_anything_is_trained(monkeypatch, asked, message):
    monkeypatch.setattr(sotl, "short_training", lambda *a, **k: pytest.fail("trained"))
    supernet = tiny_supernet()
    monkeypatch.setattr(supernet, "forward", lambda *a: pytest.fail("asked"))
    for go in (
        lambda: select_by_sotl(asked, IMAGES, PLAN),
        lambda: select_by_inheritance(asked, IMAGES, supernet),
    ):
        with pytest.raises(DataError, match=message) as caught:
            go()
        assert caught.value.code == "bad_front"
        assert "\n" not in str(caught.value)


def test_a_supernetwork_of_another_space_is_not_asked(monkeypatch):
    """The front is in order, only of a space the supernetwork knows nothing of."""
    other = replace(front(), space="other")
    monkeypatch.setattr(select_candidates, "checked_costs", lambda front: (Other(), []))
    with pytest.raises(DataError, match="the front those of other"):
        select_by_inheritance(other, IMAGES, tiny_supernet())
    with pytest.raises(DataError, match="the front those of other"):
        select_by_sotl(other, IMAGES, PLAN, supernet=tiny_supernet())


class Other:
    name = "other"


def test_inherited_weights_score_without_training():
    supernet = tiny_supernet()
    selection = select_by_inheritance(front(), IMAGES, supernet)
    pct = inherited_accuracy_pct(supernet, CELLS, IMAGES, IMAGES.valid)
    assert [row.inherited_accuracy_pct for row in selection.scored] == pct.tolist()
    assert [row.score for row in selection.scored] == (100.0 - pct).tolist()
    assert selection.scored[0].kept  # the fastest


class KilledError(Exception):
    pass


def test_killed_and_repeated_it_trains_each_candidate_once(tmp_path, monkeypatch):
    whole = select_by_sotl(front(), IMAGES, PLAN, supernet=tiny_supernet())
    assert whole.kendall is None or -1.0 <= whole.kendall <= 1.0
    path = tmp_path / "chosen.json.selection"

    def dies(event):
        if event.done == 3:  # the second candidate, after its first epoch
            raise KilledError

    with pytest.raises(KilledError):
        select_by_sotl(front(), IMAGES, PLAN, checkpoint=path, on_event=dies)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "chosen.json.selection", "chosen.json.selection.2",
    ]  # fmt: skip
    # Killed after the result was kept, before the training's own checkpoint was removed.
    (tmp_path / "chosen.json.selection.1").write_bytes(b"left over")
    with pytest.raises(ModelError, match="another selection"):
        select_by_sotl(front(), IMAGES, replace(PLAN, epochs=3), checkpoint=path)
    done = []
    again = select_by_sotl(
        front(), IMAGES, PLAN, supernet=tiny_supernet(), checkpoint=path,
        on_event=lambda event: done.append(event.done),
    )  # fmt: skip
    assert again == whole
    assert done == [4, 5, 6]
    assert [file.name for file in tmp_path.iterdir()] == ["chosen.json.selection"]
    monkeypatch.setattr(sotl, "short_training", lambda *a, **k: pytest.fail("trained again"))
    assert select_by_sotl(front(), IMAGES, PLAN, checkpoint=path).front == whole.front
    path.write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        select_by_sotl(front(), IMAGES, PLAN, checkpoint=path)


def test_a_supernetwork_of_other_images_is_refused():
    card = Card(name="net", kind="supernetwork", space="nasbench201", schema=1,
                data={"fingerprint": IMAGES.fingerprint()})  # fmt: skip
    check_supernet(card, IMAGES)
    with pytest.raises(DataError, match="other images"):
        check_supernet(card, search_halves(striped(96, seed=1)))
