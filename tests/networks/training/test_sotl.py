from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_folders import striped

from hwnas_sdk.core.errors import DataError, ModelError
from hwnas_sdk.networks.training.fit import TrainPlan, new_module, train
from hwnas_sdk.networks.training.sotl import short_training, sotl_score
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


def test_a_candidate_is_scored_by_its_own_training(tmp_path) -> None:
    space, images = get_space("nasbench201"), striped(48)
    archs = [space.architecture(cell) for cell in ((1, 0, 0, 2, 0, 0), (0, 0, 0, 4, 0, 0))]
    plan = TrainPlan(epochs=2, batch_size=16, learning_rate=0.05, padding=0, flip=False)
    losses = [short_training(space, arch, images, plan).losses for arch in archs]
    module = new_module(space.layers(archs[1], dataset="digits", folded=True), seed=plan.seed)
    assert losses[1] == train(module, images, plan).losses
    assert losses[0] != losses[1]
    # A checkpoint is one candidate's.
    checkpoint = tmp_path / "training.checkpoint"
    short_training(space, archs[0], images, plan, checkpoint=checkpoint)
    with pytest.raises(ModelError, match="another training"):
        short_training(space, archs[1], images, plan, checkpoint=checkpoint)
