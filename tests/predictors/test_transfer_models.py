"""Every registered model keeps the promises of `TransferModelConformance`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.predictors.registry import TRANSFER_MODELS, model_names, transfer_model
from hwnas_sdk.testing.predictor import TransferModelConformance

HELD_HERE = {
    "auto",
    "stack",
    "meta",
    "bayes",
    "flops",
    "params",
    "additive",
    "linear-transfer",
    "nearest-device",
    "xgboost",
    "lightgbm",
    "brp-nas",
    "gates",
    "help",
    "help-paper",
}


class TestBayes(TransferModelConformance):
    least_spearman = 0.95

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("bayes")


def test_auto_is_a_model_that_is_held_to_the_promises() -> None:
    assert transfer_model("auto") is transfer_model("bayes")


@pytest.mark.slow
class TestMeta(TransferModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("meta")


@pytest.mark.slow
class TestStack(TransferModelConformance):
    least_spearman = 0.95

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("stack")


class TestFlops(TransferModelConformance):
    learns_from_known = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("flops")


class TestParams(TransferModelConformance):
    learns_from_known = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("params")


class TestAdditive(TransferModelConformance):
    learns_from_known = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("additive")


class TestLinearTransfer(TransferModelConformance):
    predicts_unseen = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("linear-transfer")


class TestNearestDevice(TransferModelConformance):
    predicts_unseen = False

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("nearest-device")


@pytest.mark.slow
class TestXgboost(TransferModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        pytest.importorskip("xgboost")
        return transfer_model("xgboost")


@pytest.mark.slow
class TestLightgbm(TransferModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        pytest.importorskip("lightgbm")
        return transfer_model("lightgbm")


@pytest.mark.slow
class TestBrpNas(TransferModelConformance):
    learns_from_known = False
    least_spearman = 0.4

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        class Short(transfer_model("brp-nas")):
            epochs = 60  # of 250: the promises do not depend on how well it learned

        return Short


@pytest.mark.slow
class TestGates(TransferModelConformance):
    learns_from_known = False
    least_spearman = 0.4

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return transfer_model("gates")


def short_help(name):
    """The model with a plan that takes seconds: the promises are those of the whole one."""

    class Short(transfer_model(name)):
        default_plan = dataclasses.replace(
            transfer_model(name).default_plan, epochs=6, n_query=60, n_tasks=2, n_draws=2
        )

    return Short


@pytest.mark.slow
class TestHelp(TransferModelConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return short_help("help")


@pytest.mark.slow
class TestHelpPaper(TransferModelConformance):
    n_samples = 20

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return short_help("help-paper")


def test_every_model_is_held_to_the_promises():
    assert set(model_names()) == HELD_HERE


@pytest.mark.slow
def test_every_target_exists():
    for name in TRANSFER_MODELS:
        assert callable(transfer_model(name).fit)


def test_an_unknown_model_names_those_there_are():
    with pytest.raises(ConfigError, match="oracle") as caught:
        transfer_model("oracle")
    assert "bayes" in caught.value.hint


@pytest.mark.slow
def test_the_list_of_models_is_cheap():
    code = (
        "import sys; from hwnas_sdk.predictors.registry import model_names; assert model_names();"
        "print(sorted({'numpy', 'scipy', 'torch', 'xgboost', 'lightgbm'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
