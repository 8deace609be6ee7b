"""Weight files and cards: what fits loads, everything else is refused with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.accuracy import AccuracyModel
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.card import Card, load_model, save_model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    card = Card(name="model", kind="toy", space="nasbench201", schema=1, data={"licence": "MIT"})
    save_model(path, {"b": np.arange(3.0), "a": np.ones((2, 2))}, card)
    return path


def test_round_trip(saved):
    tensors, card = load_model(saved, kind="toy", space="nasbench201", schema=1)
    np.testing.assert_array_equal(tensors["b"], [0.0, 1.0, 2.0])
    assert card.data == {"licence": "MIT"}


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        ({"kind": "other"}, "other_kind"),
        ({"space": "fbnet"}, "other_space"),
        ({"schema": 2}, "other_schema"),
    ],
)
def test_another_purpose_is_refused(saved, expected, code):
    wanted = {"kind": "toy", "space": "nasbench201", "schema": 1, **expected}
    with pytest.raises(ModelError) as caught:
        load_model(saved, **wanted)
    assert caught.value.code == code


@pytest.mark.parametrize("damage", ["truncate", "swap", "remove", "no_card", "bad_card"])
def test_damage_is_noticed(saved, damage):
    card_file = saved.with_suffix(".json")
    if damage == "truncate":
        saved.write_bytes(saved.read_bytes()[:20])
    elif damage == "swap":
        data = bytearray(saved.read_bytes())
        data[-1] ^= 1
        saved.write_bytes(bytes(data))
    elif damage == "remove":
        saved.unlink()
    elif damage == "no_card":
        card_file.unlink()
    else:
        card_file.write_text(json.dumps({"name": "x"}))
    with pytest.raises(ModelError):
        load_model(saved, kind="toy", space="nasbench201", schema=1)


def test_shipped_models_load_and_are_small():
    prior, accuracy = LatencyPrior.shipped(), AccuracyModel.shipped()
    assert len(prior.devices) == 13
    assert not {"titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"} & set(
        prior.devices
    )
    assert accuracy.card is not None
    assert "MIT" in accuracy.card.data["licence"]


def test_the_shipped_network_needs_no_data_and_saw_no_test_device():
    pytest.importorskip("torch")
    from hwnas_sdk.predictors.neural.meta import MetaPredictor

    model = MetaPredictor.shipped()
    assert not {"titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss"} & set(
        model.prior.devices
    )
    cells = np.repeat(np.arange(5)[:, None], 6, axis=1)  # one operator everywhere
    slow, fast = (
        model.adapt(model.references, scale * np.arange(1.0, 11.0)).predict(cells).mean
        for scale in (100.0, 1.0)
    )
    assert np.isfinite(slow).all()
    np.testing.assert_allclose(slow, 100.0 * fast, rtol=1e-3)


def test_one_model_does_not_load_as_the_other(tmp_path):
    from hwnas_sdk.predictors.card import WEIGHTS_FOLDER

    assert sum(f.stat().st_size for f in WEIGHTS_FOLDER.iterdir()) < 2 * 2**20
    with pytest.raises(ModelError, match="kind"):
        AccuracyModel.load(WEIGHTS_FOLDER / "nb201_latency_prior.safetensors")
