from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_folders import striped

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import Event
from hwnas_sdk.networks.training.fit import TrainPlan, new_module, train
from hwnas_sdk.networks.training.sotl import authors_plan, sotl_front, sotl_score, sotl_scores
from hwnas_sdk.spaces import get_space


def test_the_formula() -> None:
    ema = [2.0, 0.01 * 2 + 0.99 * 1, 0.01 * 1.01 + 0.99 * 0.5]
    assert sotl_score([2.0, 1.0, 0.5]) == pytest.approx(sum(ema))
    assert sotl_score([2.0, 1.0, 0.5], new_share=0.0) == pytest.approx(6.0)
    for losses in ([], [1.0, float("nan")]):
        with pytest.raises(DataError, match="need finite ones"):
            sotl_score(losses)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12))
def test_a_new_share_of_one_is_the_plain_sum(losses: list[float]) -> None:
    assert sotl_score(losses, new_share=1.0) == pytest.approx(sum(losses))


def test_front() -> None:
    scores, latencies = np.array([3.0, 1.0, 2.0, 2.5]), np.array([1.0, 5.0, 2.0, 2.0])
    assert sotl_front(scores, latencies).tolist() == [0, 1, 2]


def test_candidates_are_scored_by_their_own_trainings() -> None:
    space, images = get_space("nasbench201"), striped(48)
    archs = [space.architecture(cell) for cell in ((1, 0, 0, 2, 0, 0), (0, 0, 0, 4, 0, 0))]
    plan = TrainPlan(epochs=2, batch_size=16, learning_rate=0.05, padding=0, flip=False)
    events: list[Event] = []
    scores = sotl_scores(space, archs, images, plan, on_event=events.append)
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]
    module = new_module(space.layers(archs[1], dataset="digits", folded=True), seed=plan.seed)
    assert scores[1] == sotl_score(train(module, images, plan).losses)
    assert scores[0] != scores[1]


def test_the_authors_plan() -> None:
    plan = authors_plan(TrainPlan(batch_size=16))
    assert (plan.epochs, plan.seed, plan.batch_size) == (12, 777, 16)
