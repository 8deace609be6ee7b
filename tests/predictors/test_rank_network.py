"""HW-PR-NAS' network: encoders against references, pre-training, conformance, files."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rank_space import Chains

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.population import population_of
from hwnas_sdk.predictors.rank import encoders_checkpoint
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.testing.rank import RankConformance, toy_objectives

torch = pytest.importorskip("torch")

from hwnas_sdk.networks.resumable import seeded  # noqa: E402
from hwnas_sdk.predictors.neural import rank_network  # noqa: E402
from hwnas_sdk.predictors.neural.encoders import (  # noqa: E402
    ArchitectureEncoder,
    EncoderSizes,
    GraphEncoder,
    SequenceEncoder,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.independent import independent_predictions  # noqa: E402
from hwnas_sdk.predictors.neural.pretrain import (  # noqa: E402
    PretrainPlan,
    held_out_families,
    pretrain,
)
from hwnas_sdk.predictors.neural.rank_network import RankNetwork  # noqa: E402
from hwnas_sdk.predictors.neural.rank_training import RankPlan, new_head  # noqa: E402

SPACE = Chains()
ALL = population_of(SPACE).genotypes
FEW = RankPlan(epochs=40, learning_rate=3e-3)


class Renamed(Chains):
    """The same choices, and so encoders of the same shapes, in another space."""

    name = "renamed"


@pytest.fixture(scope="module")
def encoder():
    with seeded(0):
        return ArchitectureEncoder(SPACE)


@pytest.mark.slow
class TestNetwork(RankConformance):
    @pytest.fixture
    def space(self):
        return SPACE

    @pytest.fixture
    def make(self, encoder):
        return lambda space, genes, error, costs: RankNetwork.train(
            space, genes, error, costs, encoder=encoder, plan=FEW
        )


def labels(n=80):
    genes = ALL[np.random.default_rng(0).choice(len(ALL), n, replace=False)]
    return genes, *toy_objectives(SPACE, genes)


def test_sizes_are_the_papers():
    with seeded(0):
        encoder = ArchitectureEncoder(NasBench201())
    code = encoder(encoder_inputs(NasBench201(), np.zeros((3, 6), dtype=np.int64)))
    assert code.z.shape == (3, 72)
    assert code.states.shape == (3, 8, 64)
    head = new_head(encoder.sizes, 0)
    widths = [(m.in_features, m.out_features) for m in head if isinstance(m, torch.nn.Linear)]
    assert widths == [(72, 64), (64, 32), (32, 1)]
    assert encoder.graph.second.weight.shape == (128, 128)


def test_graph_layers_are_those_of_torch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn")
    inputs = encoder_inputs(NasBench201(), NasBench201().all_genotypes()[:50])
    from hwnas_sdk.predictors.graphs import operator_graphs

    graphs = operator_graphs(NasBench201(), NasBench201().all_genotypes()[:50], form="help")
    with seeded(0), torch.no_grad():
        ours = GraphEncoder(8, EncoderSizes())
        first = geometric.GCNConv(8, 128, add_self_loops=False)
        second = geometric.GCNConv(128, 128, add_self_loops=False)
        for layer, own in ((first, ours.first), (second, ours.second)):
            layer.lin.weight.copy_(own.weight)
            layer.bias.copy_(own.bias)
        graph, target, source = np.nonzero(graphs.adjacency)
        edges = torch.from_numpy(np.stack([9 * graph + source, 9 * graph + target]))
        hidden = torch.relu(first(torch.from_numpy(graphs.nodes).reshape(-1, 8), edges))
        hidden = torch.relu(second(hidden, edges)).reshape(50, 9, 128)
        wanted = ours.out(hidden[:, graphs.readout])
        torch.testing.assert_close(ours(inputs.nodes, inputs.mixing), wanted)


def test_padding_does_not_change_a_sequence_code():
    with seeded(0):
        encoder = SequenceEncoder(7, EncoderSizes()).eval()
    sequence = torch.tensor([[1, 3, 4, 5, 2]])
    padded = torch.cat([sequence, torch.zeros(1, 3, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(encoder(padded)[0], encoder(sequence)[0])


def test_pre_training_learns_to_emit_the_sequence(tmp_path):
    plan = PretrainPlan(epochs=2, batch_size=32)
    first = pretrain(SPACE, plan=plan, checkpoint=tmp_path / "a.pt")
    again = pretrain(SPACE, plan=plan)
    for key, value in first.encoder.state_dict().items():
        assert torch.equal(value, again.encoder.state_dict()[key])
    assert first.result.losses[1] < first.result.losses[0]
    assert 0 <= first.reconstruction <= 1
    assert first.n_held_out == 13  # a tenth of the 128 families


def test_a_pre_training_continues_only_its_own_checkpoint(tmp_path):
    plan, path = PretrainPlan(n=60, epochs=1, batch_size=32), tmp_path / "a.pt"
    pretrain(SPACE, plan=plan, checkpoint=path)
    others = (replace(plan, n=50), replace(plan, held_out=0.2), replace(plan, forcing=0.1))
    for other in others:
        with pytest.raises(ModelError, match="another training plan"):
            pretrain(SPACE, plan=other, checkpoint=path)
    with pytest.raises(ModelError, match="another training plan"):
        pretrain(SPACE, plan=plan, sizes=EncoderSizes(dropout=0.5), checkpoint=path)
    with pytest.raises(ModelError, match="another training plan"):
        pretrain(Renamed(), plan=plan, checkpoint=path)
    epochs = []
    pretrain(SPACE, plan=plan, checkpoint=path, on_event=epochs.append)
    assert not epochs  # nothing left to do


def test_a_killed_training_does_not_pre_train_again(tmp_path, monkeypatch):
    few = partial(PretrainPlan, n=60, epochs=2, batch_size=32)
    monkeypatch.setattr("hwnas_sdk.predictors.neural.pretrain.PretrainPlan", few)
    genes, error, cost = labels()
    path, tasks = tmp_path / "net.checkpoint", []

    def told(event):
        tasks.append(event.task)
        if killing and event.task != "pre-train":
            raise KeyboardInterrupt

    def trained(**options):
        costs, plan = {"board": cost}, RankPlan(epochs=2)
        return RankNetwork.train(SPACE, genes, error, costs, plan=plan, **options)

    killing = True
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=path, on_event=told)
    assert tasks.count("pre-train") == 2
    assert encoders_checkpoint(path).exists()
    killing = False
    tasks.clear()
    again = trained(checkpoint=path, on_event=told)
    assert tasks
    assert "pre-train" not in tasks
    np.testing.assert_array_equal(again.score(ALL, "board"), trained().score(ALL, "board"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_held_out_cells_are_reconstructed_exactly():
    assert pretrain(NasBench201()).reconstruction >= 0.99


def test_a_family_is_on_one_side_only():
    families = [i % 20 for i in range(100)]
    out = held_out_families(families, 0.2, np.random.default_rng(0))
    assert out.sum() == 20
    assert not {f for f, o in zip(families, out, strict=True) if o} & {
        f for f, o in zip(families, out, strict=True) if not o
    }


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["efron", "pairwise", "paper_eq8"])
def test_other_losses_train(encoder, loss):
    genes, error, cost = labels()
    plan = RankPlan(loss=loss, epochs=2)
    model = RankNetwork.train(SPACE, genes, error, {"board": cost}, encoder=encoder, plan=plan)
    assert np.isfinite(model.score(ALL, "board")).all()
    assert model.results["board"].epochs == 2


def test_three_objectives_use_larger_batches(encoder, monkeypatch):
    genes, error, cost = labels()
    plans = []
    train = rank_network.train_heads

    def listen(*arguments, **options):
        plans.append(arguments[3])
        return train(*arguments, **options)

    monkeypatch.setattr(rank_network, "train_heads", listen)
    both = np.column_stack([cost, cost[::-1]])
    for costs in (cost, both):
        RankNetwork.train(
            SPACE, genes, error, {"board": costs}, encoder=encoder, plan=RankPlan(epochs=1)
        )
    assert [plan.batch_size for plan in plans] == [18, 32]


def test_the_given_encoder_stays_as_it_is_and_frozen_means_frozen(encoder):
    genes, error, cost = labels()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    plan = RankPlan(epochs=4, frozen_share=1.0)
    model = RankNetwork.train(SPACE, genes, error, {"board": cost}, encoder=encoder, plan=plan)
    for key, value in before.items():
        assert torch.equal(encoder.state_dict()[key], value)
        assert torch.equal(model.encoders["board"].state_dict()[key], value)
    moved = RankNetwork.train(
        SPACE, genes, error, {"board": cost}, encoder=encoder, plan=RankPlan(epochs=4)
    )
    weight = "graph.first.weight"
    assert not torch.equal(moved.encoders["board"].state_dict()[weight], before[weight])


@pytest.mark.slow
def test_a_new_platform_starts_from_the_best_one_and_leaves_it_alone(encoder):
    genes, error, cost = labels()
    costs = {"same": cost, "reversed": cost.max() + 1.0 - cost}
    model = RankNetwork.train(SPACE, genes, error, costs, encoder=encoder, plan=FEW)
    before = {name: model.score(ALL, name) for name in costs}
    more = model.add_platform("new", genes, cost, error_pct=error, epochs=5)
    assert more.results["new"].epochs == 5
    for name, scores in before.items():
        np.testing.assert_array_equal(more.score(ALL, name), scores)
    weight = "graph.first.weight"
    own, copied = (more.encoders[name].state_dict()[weight] for name in ("new", "same"))
    assert 0.0 < float((own - copied).abs().max()) < 0.1
    a, b = more.heads["new"].state_dict(), model.heads["same"].state_dict()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 0.1
    still = model.add_platform(
        "new", genes, cost, error_pct=error, epochs=1, plan=RankPlan(frozen_share=1.0)
    )
    assert torch.equal(still.encoders["new"].state_dict()[weight], copied)
    with pytest.raises(ModelError, match="errors"):
        model.add_platform("new", genes, cost)


@pytest.mark.slow
def test_independent_networks(encoder):
    genes, error, cost = labels()
    predicted = independent_predictions(SPACE, genes, error, cost, ALL, encoder=encoder, plan=FEW)
    assert predicted.shape == (len(ALL), 2)
    for i, true in enumerate(toy_objectives(SPACE, ALL)):
        assert np.corrcoef(predicted[:, i], true)[0, 1] > 0.5


def test_files(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(rank_network, "get_space", lambda name: SPACE)
    genes, error, cost = labels()
    both = {"board": cost, "twin": cost}
    model = RankNetwork.train(
        SPACE, genes, error, both, encoder=encoder, plan=RankPlan(epochs=2)
    ).add_platform("other", genes, cost, error_pct=error)
    path = tmp_path / "net.safetensors"
    model.save(path, data={}, metrics={})
    loaded = RankNetwork.load(path)
    assert loaded.encoders["board"] is loaded.encoders["twin"]
    assert loaded.encoders["board"] is not loaded.encoders["other"]
    for name in model.platforms:
        np.testing.assert_array_equal(loaded.score(ALL, name), model.score(ALL, name))


def test_unknown_losses_and_too_few_labels_are_refused(encoder):
    with pytest.raises(ModelError, match="listwise"):
        RankPlan(loss="hinge")
    genes, error, cost = labels()
    with pytest.raises(ModelError, match="at least one platform"):
        RankNetwork.train(SPACE, genes, error, {}, encoder=encoder)
    with pytest.raises(ModelError, match="20"):
        RankNetwork.train(SPACE, genes[:9], error[:9], {"board": cost[:9]}, encoder=encoder)
