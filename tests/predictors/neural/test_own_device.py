"""BRP-NAS and GATES: inputs, losses and that they learn; conformance is in test_transfer_models."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hwnas_sdk.core.errors import ModelError  # noqa: E402
from hwnas_sdk.networks.resumable import seeded  # noqa: E402
from hwnas_sdk.predictors.metrics import spearman  # noqa: E402
from hwnas_sdk.predictors.neural.binary_relation import (  # noqa: E402
    BinaryRelation,
    RelationPlan,
    collect,
)
from hwnas_sdk.predictors.neural.gates import GatesNet, hinge  # noqa: E402
from hwnas_sdk.predictors.neural.graph_network import GraphNetwork, brp_graphs  # noqa: E402
from hwnas_sdk.predictors.neural.own_device import BrpNasModel, GatesModel  # noqa: E402
from hwnas_sdk.testing.predictor import invented_cells, invented_values  # noqa: E402

SMALL = RelationPlan(epochs=6, hidden=32, learning_rate=3e-3, dropout=0.0)


def relation_accuracy(cells):
    """Percent; a faster invented device's values, squeezed into a few points."""
    values = np.log(invented_values(cells, 3))
    return 90.0 + 2.0 * (values - values.mean()) / values.std()


def test_gates_let_nothing_through_none():
    """What feeds only dead edges does not matter, what feeds live ones does."""
    with seeded(0):
        net = GatesNet().eval()
    none, conv, pool = 0, 3, 4
    # Edge order 01, 02, 12, 03, 13, 23: node 1 leads nowhere.
    dead = torch.tensor(
        [[conv, none, none, conv, none, none], [pool, none, none, conv, none, none]]
    )
    live = torch.tensor(
        [[conv, none, none, none, conv, none], [pool, none, none, none, conv, none]]
    )
    with torch.no_grad():
        torch.testing.assert_close(*net(dead).split(1))
        assert not torch.allclose(*net(live).split(1))


def test_hinge_punishes_the_wrong_order_only():
    scores = torch.tensor([0.0, 1.0, 2.0])
    assert float(hinge(scores, scores)) == 0.0
    assert float(hinge(-scores, scores)) > 0.1
    assert float(hinge(scores, torch.ones(3))) == 0.0  # tied targets order nothing
    assert float(hinge(scores[:1], scores[:1])) == 0.0


def test_the_graph_network_reads_the_global_node():
    net = GraphNetwork(n_out=1, hidden=16).eval()
    graphs = brp_graphs(invented_cells(5))
    answers = net(graphs)
    assert answers.shape == (5, 1)
    # An empty place receives and sends nothing: garbage in it must not show.
    empty = graphs.nodes.sum(dim=2) == 0
    assert empty.any()
    nodes = graphs.nodes.clone()
    nodes[empty] = 7.0
    spoiled = type(graphs)(nodes, graphs.adjacency)
    torch.testing.assert_close(net(spoiled), answers)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [(BrpNasModel, 0.8), (GatesModel, 0.9)])
def test_with_many_labels_they_learn_the_device(model, least):
    cells = invented_cells(400)
    values = invented_values(cells, 2)

    class Short(model):
        epochs = 60

    adapted = Short.fit(cells[:1], {}, seed=0).adapt(cells[:120], values[:120])
    mean = adapted.predict(cells[120:]).mean
    assert spearman(values[120:], mean) > least
    assert np.median(np.abs(mean / values[120:] - 1)) < 0.2


def test_the_relation_orders_what_it_has_not_seen():
    cells = invented_cells(140)
    accuracy = relation_accuracy(cells)
    relation = BinaryRelation.fit(cells[:40], accuracy[:40], plan=SMALL)
    assert spearman(accuracy[40:], relation.scores(cells[40:])) > 0.6


def test_the_score_is_the_antisymmetric_relation():
    cells = invented_cells(12)
    relation = BinaryRelation.fit(cells, relation_accuracy(cells), plan=SMALL)
    graphs = brp_graphs(cells)
    first, second = torch.tensor([0, 3, 5]), torch.tensor([7, 2, 11])
    with torch.no_grad():
        forth = relation._net(graphs[first], graphs[second])
        back = relation._net(graphs[second], graphs[first])
    odds = 0.5 * ((forth[:, 0] - forth[:, 1]) - (back[:, 0] - back[:, 1]))
    scores = torch.from_numpy(relation.scores(cells)).float()
    torch.testing.assert_close(scores[first] - scores[second], odds, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_collecting_asks_the_budget_and_finds_better_ones():
    cells = invented_cells(300)
    asked = []

    def query(chosen):
        asked.append(len(chosen))
        return relation_accuracy_of[[row_of[tuple(c)] for c in chosen.tolist()]]

    row_of = {tuple(c): i for i, c in enumerate(cells.tolist())}
    relation_accuracy_of = relation_accuracy(cells)
    quick = RelationPlan(epochs=4, hidden=24, learning_rate=3e-3, dropout=0.0)
    _, rows = collect(query, cells, budget=40, n_rounds=4, plan=quick)
    assert asked == [10, 10, 10, 10]
    assert len(set(rows.tolist())) == 40
    assert relation_accuracy_of[rows[10:]].mean() > relation_accuracy_of.mean() + 0.3
    with pytest.raises(ModelError, match="rounds"):
        collect(query, cells, budget=301)
    with pytest.raises(ModelError, match="two architectures"):
        BinaryRelation.fit(cells[:1], np.ones(1))


def test_a_function_is_never_on_both_sides_of_the_split():
    from hwnas_sdk.predictors.neural.own_device import _held_out
    from hwnas_sdk.spaces import get_space

    space = get_space("nasbench201")
    genes = np.array([a.genotype for a in space.sample(150, seed=3)])
    twice = np.concatenate([genes, genes[:, [1, 0, 2, 3, 5, 4]][genes[:, 2] == 0]])
    held_out = _held_out(twice, 15, 0)
    family = [space.family(space.architecture(cell)) for cell in twice]
    sides = [{f for f, held in zip(family, held_out, strict=True) if held == s} for s in (0, 1)]
    assert sides[0].isdisjoint(sides[1])
    assert 15 <= held_out.sum() < len(twice) / 2
