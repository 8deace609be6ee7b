"""Where the predictors train: places are checked, and no tensor is made in the wrong one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.neural import help as help_model
from hwnas_sdk.predictors.neural import meta, pretrain
from hwnas_sdk.predictors.neural.encoders import (
    ArchitectureEncoder,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.gates import GatesNet, hinge
from hwnas_sdk.predictors.neural.graph_network import GraphNetwork, brp_graphs
from hwnas_sdk.predictors.neural.help_episode import Episode, HelpPlan
from hwnas_sdk.predictors.neural.help_net import HelpNet
from hwnas_sdk.predictors.neural.known_devices import KnownDevices
from hwnas_sdk.predictors.neural.latency_net import cell_net
from hwnas_sdk.predictors.neural.own_device import BrpNasModel, GatesModel
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.spaces import get_space
from hwnas_sdk.testing.predictor import invented_cells, invented_values

CELLS = invented_cells(80)
KNOWN = {f"known{i}": invented_values(CELLS, i) for i in range(3)}
VALUES = invented_values(CELLS, 5)
SPACE = get_space("nasbench201")
ROWS = torch.arange(20)


def meta_step():
    data = KnownDevices.collect(CELLS, KNOWN, reference_genotypes())
    loss = meta._loss(cell_net(10), data, meta.MetaPlan())
    return lambda: loss(ROWS)


def help_step(*, strict):
    data = KnownDevices.collect(CELLS, KNOWN, reference_genotypes())
    plan = HelpPlan(strict=strict)
    episode = Episode(HelpNet(10, plan.step_size), data, reference_genotypes(), plan, seed=0)
    return lambda: episode.loss(ROWS)


def graph_step():
    net, graphs = GraphNetwork(n_out=1, hidden=16), brp_graphs(CELLS)
    return lambda: net(graphs[ROWS]).sum()


def gates_step():
    net, cells, values = GatesNet(), torch.from_numpy(CELLS), torch.from_numpy(VALUES)
    return lambda: hinge(net(cells[ROWS]), values[ROWS])


def encoder_step():
    encoder, inputs = ArchitectureEncoder(SPACE), encoder_inputs(SPACE, CELLS)
    decoder = pretrain.Decoder(8, encoder.sizes)
    return lambda: decoder(encoder(inputs[ROWS]), 7).sum()


STEPS = {
    "meta": meta_step,
    "help": lambda: help_step(strict=True),
    "help-paper": lambda: help_step(strict=False),
    "brp-nas": graph_step,
    "gates": gates_step,
    "encoders": encoder_step,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_makes_every_tensor_where_its_inputs_are(step):
    """Whatever were made on the default place would be on meta here, and meet one on the CPU."""
    with seeded(0):
        loss = step()
        with torch.device("meta"):
            value = loss()
    assert value.device.type == "cpu"
    assert torch.isfinite(value)
    value.backward()


def short_meta(**options):
    plan = meta.MetaPlan(epochs=1, batch_size=40)
    model = meta.MetaPredictor.fit(CELLS, KNOWN, plan=plan, **options)
    return model.adapt(CELLS[:10], VALUES[:10])


def short_help(**options):
    plan = HelpPlan(epochs=1, n_query=40, n_tasks=2, n_draws=1)
    model = help_model.HelpPredictor.fit(CELLS, KNOWN, plan=plan, **options)
    return model.adapt(CELLS[:10], VALUES[:10])


def short_brp(**options):
    class Short(BrpNasModel):
        epochs = 1

    return Short.fit(CELLS, KNOWN, **options).adapt(CELLS[:60], VALUES[:60])


def short_gates(**options):
    class Short(GatesModel):
        epochs = 1

    return Short.fit(CELLS, KNOWN, **options).adapt(CELLS[:60], VALUES[:60])


def short_pretraining(**options):
    plan = pretrain.PretrainPlan(n=40, epochs=1, batch_size=20)
    return pretrain.pretrain(SPACE, plan=plan, **options)


MODELS = [short_meta, short_help, short_brp, short_gates]


@pytest.mark.parametrize("model", [*MODELS, short_pretraining])
def test_a_place_that_is_not_there_is_refused_in_one_line(model):
    for place in ("abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=f"cannot work on '{place}'") as caught:
            model(torch_device=place)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the accelerator")
def test_auto_is_the_cpu_without_an_accelerator(model):
    there = model(torch_device="auto").predict(CELLS).mean
    np.testing.assert_array_equal(there, model().predict(CELLS).mean)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_an_accelerator_trained_answers_on_the_cpu(model):
    """An accelerator draws other numbers: the answers are alike in their order, not equal."""
    there = model(torch_device="cuda").predict(CELLS).mean
    assert np.isfinite(there).all()
    assert spearman(there, model().predict(CELLS).mean) > 0.5


def test_the_command_refuses_a_place_before_it_reads_tables(tmp_path, capsys):
    arguments = ["train", "meta", "--data", str(tmp_path), "-o", str(tmp_path / "m.safetensors")]
    assert main([*arguments, "--torch-device", "abacus", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "unknown_torch_device"
    assert "\n" not in error["message"]
