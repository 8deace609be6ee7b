"""The networks told by, or tuned to, a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from predictor_devices import make_devices

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors.encodings import genotypes_of
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.neural.help import HelpPlan, HelpPredictor, PaperHelp
from hwnas_sdk.predictors.neural.help_episode import Episode, scale_of, trimmed
from hwnas_sdk.predictors.neural.help_net import HelpNet
from hwnas_sdk.predictors.neural.known_devices import KnownDevices
from hwnas_sdk.predictors.neural.latency_net import FlatEncoder, LatencyNet, cell_net, one_hot
from hwnas_sdk.predictors.neural.meta import MetaPlan, MetaPredictor
from hwnas_sdk.predictors.references import reference_genotypes


@pytest.fixture(scope="module")
def devices():
    made = make_devices(6, noise_rel=0.01)
    n = 1500
    columns = {name: y[:n] for name, y in made.latency_ms.items()}
    return genotypes_of(made.features[:n]), columns


@pytest.fixture(scope="module")
def known(devices):
    return {name: y for name, y in devices[1].items() if name != "device0"}


@pytest.fixture(scope="module")
def model(devices, known):
    plan = MetaPlan(epochs=8, batch_size=64, n_real=3, n_mixed=2)
    return MetaPredictor.fit(devices[0], known, plan=plan)


def test_an_unseen_device_is_ranked_and_scaled(devices, model):
    cells, columns = devices
    truth = columns["device0"]
    prediction = model.adapt(cells[:10], truth[:10]).predict(cells[10:])
    assert spearman(truth[10:], prediction.mean) > 0.9
    assert np.median(np.abs(prediction.mean / truth[10:] - 1)) < 0.15
    assert np.isnan(prediction.sd).all()


def test_a_checkpoint_belongs_to_the_devices_it_learned_from(devices, known, tmp_path):
    cells, plan = devices[0][:200], MetaPlan(epochs=2, batch_size=64, n_real=3, n_mixed=2)
    columns = {name: values[:200] for name, values in known.items()}
    epochs = []

    def fitted(columns):
        MetaPredictor.fit(
            cells,
            columns,
            plan=plan,
            checkpoint=tmp_path / "checkpoint",
            on_event=lambda event: epochs.append(event.done),
        )

    fitted(columns)
    assert epochs == [1, 2]
    with pytest.raises(ModelError, match="another training plan"):
        fitted(dict(list(columns.items())[:-1]))
    fitted(columns)
    assert epochs == [1, 2]  # nothing left to do


def test_a_checkpoint_of_help_belongs_to_its_form_and_its_devices(devices, known, tmp_path):
    cells, columns = devices[0][:200], {name: values[:200] for name, values in known.items()}
    epochs = []

    def fitted(model, columns, *, strict):
        model.fit(
            cells,
            columns,
            # Both forms take as many rows a step and have the same weights.
            plan=HelpPlan(strict=strict, epochs=1, n_query=64, n_tasks=2),
            checkpoint=tmp_path / "checkpoint",
            on_event=lambda event: epochs.append(event.done),
        )

    fitted(HelpPredictor, columns, strict=True)
    assert epochs == [1]
    with pytest.raises(ModelError, match="another training plan"):
        fitted(PaperHelp, columns, strict=False)
    with pytest.raises(ModelError, match="another training plan"):
        fitted(HelpPredictor, dict(list(columns.items())[:-1]), strict=True)
    fitted(HelpPredictor, columns, strict=True)
    assert epochs == [1]  # nothing left to do


@pytest.mark.slow
def test_the_unit_is_that_of_the_values(devices, model):
    cells, columns = devices
    y = columns["device0"][:10]
    one = model.adapt(cells[:10], y).predict(cells).mean
    thousand = model.adapt(cells[:10], 1000 * y).predict(cells).mean
    np.testing.assert_allclose(thousand, 1000 * one, rtol=1e-3)


@pytest.mark.slow
def test_one_hot_input_is_the_discrete_path_and_its_gradient_is_right():
    with seeded(1):
        net = cell_net(10).double()
    cells = reference_genotypes()
    vector = torch.linspace(0, 1, 10, dtype=torch.float64)[None]
    hot = one_hot(cells).double()
    assert torch.equal(hot.argmax(dim=2), torch.from_numpy(cells))
    relaxed = (0.7 * hot + 0.06).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, vector), (relaxed,), eps=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(net(relaxed, vector).sum(), relaxed)
    assert (slope.abs().sum(dim=(1, 2)) > 0).all()


def test_the_graph_form_is_that_of_the_source():
    """A' H W + b by hand, on the matrices of `operator_graphs`."""
    from hwnas_sdk.predictors.graphs import operator_graphs
    from hwnas_sdk.spaces import get_space

    net = cell_net(10)
    cells = reference_genotypes()
    graphs = operator_graphs(get_space("nasbench201"), cells, form="help")
    value = torch.from_numpy(np.ascontiguousarray(graphs.nodes))
    adjacency = torch.from_numpy(np.array(graphs.adjacency))
    for layer in net.encoder.layers:
        value = torch.relu(adjacency @ (value @ layer.weight.T) + layer.bias)
    expected = torch.relu(net.encoder.readout(value[:, -1]))
    torch.testing.assert_close(net.encoder(one_hot(cells)), expected)


def test_another_space_brings_its_own_encoder():
    net = LatencyNet(FlatEncoder(160), 10)
    assert net(torch.rand(7, 160), torch.rand(3, 10)).shape == (3, 7)


def test_round_trip_through_files(devices, model, tmp_path):
    cells, columns = devices
    path = tmp_path / "meta.safetensors"
    model.save(path, data={"source": "synthetic"})
    loaded = MetaPredictor.load(path)
    y = columns["device0"][:10]
    np.testing.assert_array_equal(
        loaded.adapt(cells[:10], y).predict(cells).mean,
        model.adapt(cells[:10], y).predict(cells).mean,
    )


def test_nothing_measured_is_refused(model):
    with pytest.raises(ModelError, match="measure"):
        model.adapt(np.empty((0, 6), dtype=int), np.empty(0))


def test_raw_targets_do_not_carry_the_scale_over(devices, known):
    """Why the target is scaled: a device ten times slower than all known ones."""
    cells, columns = devices
    slow = 10 * columns["device0"]
    plan = MetaPlan(target="raw", epochs=2, batch_size=128)
    raw = MetaPredictor.fit(cells, known, plan=plan).adapt(cells[:10], slow[:10]).predict(cells)
    assert np.median(np.abs(raw.mean / slow - 1)) > 0.5


@pytest.mark.slow
def test_help_tunes_its_weights_and_predicts(devices, known):
    cells, columns = devices
    truth = columns["device0"]
    plan = HelpPlan(epochs=3, n_query=64, n_tasks=2, n_draws=2)
    model = HelpPredictor.fit(cells, known, plan=plan)
    adapted = model.adapt(cells[:10], truth[:10])
    base = dict(model.net.base.named_parameters())
    assert not torch.equal(adapted.draws[0]["head.hidden.weight"], base["head.hidden.weight"])
    assert spearman(truth, adapted.predict(cells).mean) > 0.5
    again = model.adapt(cells[:10], truth[:10]).predict(cells).mean
    np.testing.assert_array_equal(again, adapted.predict(cells).mean)
    learned = torch.cat([step.detach().flatten() for step in model.net.steps.values()])
    assert (learned - plan.step_size).abs().mean() > plan.step_size  # they leave their start


def test_the_published_scale_leaves_the_outer_tenths_out():
    values = np.random.default_rng(0).permutation(np.arange(900.0))
    kept = trimmed(values)
    np.testing.assert_array_equal(values[kept], np.arange(90.0, 810.0))  # 720, as published
    for n in (10, 11, 12, 15):
        assert len(trimmed(np.arange(float(n)))) >= 10  # no outliers to spare
    least, spread = scale_of(torch.tensor([3.0, 1.0, 5.0]))
    assert (float(least), float(spread)) == (1.0, 4.0)
    assert float(scale_of(torch.ones(3))[1]) > 0


def test_published_help_is_tuned_beside_the_references(devices, known):
    cells, truth = devices[0][:300], devices[1]["device0"][:300]
    references = reference_genotypes()
    plan = HelpPlan(strict=False, epochs=1, n_query=64, n_tasks=2, n_draws=1)
    model = PaperHelp.fit(cells, {name: y[:300] for name, y in known.items()}, plan=plan)
    beside = np.array([tuple(c) not in set(map(tuple, references.tolist())) for c in cells])
    pool = np.flatnonzero(beside)[:100]
    adapted = model.adapt(cells[pool], truth[pool])
    inner = np.sort(truth[pool])[10:90]
    assert adapted.least == pytest.approx(inner[0], rel=1e-6)
    assert adapted.spread == pytest.approx(inner[-1] - inner[0], rel=1e-5)
    told = np.concatenate([references, cells[pool[:9]]])
    with pytest.raises(ModelError, match="9 measured architectures beside the references"):
        model.adapt(told, np.ones(len(told)))
    assert PaperHelp.default_plan == HelpPlan(strict=False)
    assert HelpPredictor.default_plan.strict


def test_published_help_needs_known_devices_with_enough_values(devices, known):
    sparse = {name: np.where(np.arange(len(y)) < 25, y, np.nan) for name, y in known.items()}
    plan = HelpPlan(strict=False, epochs=1, n_query=64, n_tasks=2)
    with pytest.raises(ModelError, match=r"a known device has . values on a pool"):
        PaperHelp.fit(devices[0], sparse, plan=plan)


def test_published_help_learns_from_devices_measured_on_different_rows(devices, known):
    """No architecture was measured on both: there are no mixtures, and the devices remain."""
    cells, even = devices[0][:300], np.arange(300) % 2 == 0
    first, second = (y[:300] for y in list(known.values())[:2])
    halves = {"first": np.where(even, first, np.nan), "second": np.where(even, np.nan, second)}
    plan = HelpPlan(strict=False, epochs=1, n_query=64, n_tasks=4, n_draws=1)
    references = reference_genotypes()
    data = KnownDevices.collect(cells, halves, references)
    with seeded(0):
        episode = Episode(HelpNet(len(references), plan.step_size), data, references, plan, seed=0)
        tasks = episode._published(episode.query[:64])
    assert len(tasks.vectors) == len(tasks.support) == 2  # n_tasks asks for two mixtures more
    assert torch.isfinite(tasks.targets).any(dim=1).all()
    model = PaperHelp.fit(cells, halves, plan=plan)
    truth = devices[1]["device0"][:300]
    assert np.isfinite(model.adapt(cells[:40], truth[:40]).predict(cells).mean).all()


def test_published_help_refuses_a_sparse_device_before_it_trains(devices, known):
    """Also one that the first episodes need not meet."""
    columns = {name: y[:300] for name, y in known.items()}
    last = list(columns)[-1]
    columns[last] = np.where(np.arange(300) < 12, columns[last], np.nan)
    cells, references = devices[0][:300], reference_genotypes()
    data, plan = KnownDevices.collect(cells, columns, references), HelpPlan(strict=False)
    with pytest.raises(ModelError, match=r"a known device has . values on a pool"):
        Episode(HelpNet(len(references), plan.step_size), data, references, plan, seed=0)
