"""The training loop: repeatable, resumable after a kill, early stop, honest errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors.neural import fit as loop
from hwnas_sdk.predictors.neural.fit import FitPlan, fit


class KilledError(Exception):
    pass


def problem():
    """A regression with dropout, so that every source of randomness takes part."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(65, 4)), dtype=torch.float32)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0])
    with seeded(1):
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
        )
    losses = []

    def loss(rows):
        losses.append(len(rows))
        return ((model(x[rows])[:, 0] - y[rows]) ** 2).mean()

    def judge():
        return -float(((model(x)[:, 0] - y) ** 2).detach().mean())

    return model, loss, judge, losses


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


PLAN = FitPlan(epochs=12, batch_size=16, learning_rate=1e-2, checkpoint_every_s=0.0)


def test_it_learns_and_repeats_exactly():
    runs = []
    for _ in range(2):
        model, loss, judge, _ = problem()
        before = judge()
        result = fit(model, loss, 65, PLAN, judge=judge)
        assert judge() == pytest.approx(result.best_score)
        assert result.best_score > before / 3
        assert result.epochs == len(result.losses) == 12
        assert not model.training
        runs.append(weights(model))
    assert torch.equal(*runs)


def test_a_batch_of_one_is_left_out():
    model, loss, _, sizes = problem()
    fit(model, loss, 65, FitPlan(epochs=1, batch_size=16))
    assert sizes == [16, 16, 16, 16]


@pytest.mark.parametrize("killed_in", [1, 5, 11])
def test_killed_and_repeated_is_the_same_as_never_killed(tmp_path, killed_in):
    model, loss, judge, _ = problem()
    whole = fit(model, loss, 65, PLAN, judge=judge)
    wanted = weights(model)

    checkpoint = tmp_path / "run.pt"
    model, loss, judge, _ = problem()

    def die(event):
        if event.done == killed_in:
            raise KilledError

    with pytest.raises(KilledError):
        fit(model, loss, 65, PLAN, judge=judge, checkpoint=checkpoint, on_event=die)
    model, loss, judge, _ = problem()
    resumed = fit(model, loss, 65, PLAN, judge=judge, checkpoint=checkpoint)
    assert torch.equal(weights(model), wanted)
    assert resumed.losses == whole.losses
    assert resumed.scores == whole.scores
    # A finished run is not trained again.
    model, loss, judge, sizes = problem()
    again = fit(model, loss, 65, PLAN, judge=judge, checkpoint=checkpoint)
    assert not sizes
    assert torch.equal(weights(model), wanted)
    assert again.best_epoch == whole.best_epoch


def test_early_stop_keeps_the_best_weights():
    model, loss, _, _ = problem()
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    kept = []

    def judge():
        kept.append(weights(model))
        return next(scores)

    result = fit(model, loss, 65, FitPlan(epochs=50, batch_size=16, patience=3), judge=judge)
    assert (result.epochs, result.best_epoch, result.best_score) == (5, 2, 0.5)
    assert torch.equal(weights(model), kept[1])


def test_checkpoints_of_other_plans_and_damaged_ones_are_refused(tmp_path):
    checkpoint = tmp_path / "run.pt"
    model, loss, _, _ = problem()
    fit(model, loss, 65, FitPlan(epochs=1, batch_size=16), checkpoint=checkpoint)
    with pytest.raises(ModelError, match="another training plan"):
        fit(model, loss, 65, FitPlan(epochs=2, batch_size=16), checkpoint=checkpoint)
    with pytest.raises(ModelError, match="another training plan"):
        fit(
            model, loss, 65, FitPlan(epochs=1, batch_size=16), checkpoint=checkpoint,
            identity={"labels": "others"},
        )  # fmt: skip
    checkpoint.write_bytes(b"half a file")
    with pytest.raises(ModelError, match="delete it"):
        fit(model, loss, 65, FitPlan(epochs=1, batch_size=16), checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_run():
    model, _, _, _ = problem()
    with pytest.raises(ModelError, match="learning rate"):
        fit(
            model, lambda rows: model(torch.zeros(len(rows), 4)).sum() * torch.nan, 65,
            FitPlan(epochs=1, batch_size=16),
        )  # fmt: skip
    with pytest.raises(ModelError, match="empty"):
        fit(model, lambda rows: rows.sum(), 0, FitPlan(epochs=1, batch_size=16))


def test_global_state_is_left_alone():
    torch.manual_seed(7)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    model, loss, _, _ = problem()
    fit(model, loss, 65, PLAN)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_parameter_groups_have_their_own_rate():
    model, loss, _, _ = problem()
    first, last = model[0], model[3]
    start = first.weight.detach().clone()
    groups = [{"params": first.parameters(), "lr": 0.0}, {"params": last.parameters()}]
    plan = FitPlan(epochs=2, batch_size=16, weight_decay=0.0)
    fit(model, loss, 65, plan, groups=groups)
    assert torch.equal(first.weight, start)


def test_good_enough_stops():
    model, loss, _, _ = problem()
    scores = iter([0.1, 0.5, 0.9])
    plan = FitPlan(epochs=50, batch_size=16, stop_at=0.5)
    assert fit(model, loss, 65, plan, judge=lambda: next(scores)).epochs == 2


def test_batches_of_one_are_trained_on_when_asked_for():
    """A single row is left out as the rest of an epoch, not as the size of a batch."""
    model, loss, _, seen = problem()
    before = weights(model)
    fit(model, loss, 65, FitPlan(epochs=1, batch_size=1))
    assert seen == [1] * 65
    assert not torch.equal(weights(model), before)
    model, loss, _, seen = problem()
    fit(model, loss, 65, FitPlan(epochs=1, batch_size=16))
    assert seen == [16] * 4


def test_the_model_trains_where_it_is_told_and_comes_back(monkeypatch):
    """Without an accelerator: what is moved where, also when the training ends in an error."""
    places = []

    class Traveller(torch.nn.Linear):
        def to(self, place):
            places.append(str(place))
            return self

    def loss(rows):
        places.append(f"rows on {rows.device}")
        raise KilledError

    monkeypatch.setattr(loop, "chosen_torch_device", torch.device)
    with pytest.raises(KilledError):
        fit(Traveller(4, 1), loss, 65, PLAN, torch_device="meta")
    assert places == ["meta", "rows on meta", "cpu"]


def test_places_of_torch():
    assert chosen_torch_device("cpu") == torch.device("cpu")
    assert chosen_torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("abacus", "cuda:99", "meta"):
        with pytest.raises(ConfigError, match=f"cannot work on '{name}'"):
            chosen_torch_device(name)
    model, loss, judge, _ = problem()
    with pytest.raises(ConfigError, match="abacus"):
        fit(model, loss, 65, PLAN, judge=judge, torch_device="abacus")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_an_accelerator_learns_and_ends_on_the_cpu(tmp_path):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(65, 4)), dtype=torch.float32, device="cuda")
    y = x.sum(dim=1)
    with seeded(1):
        model = torch.nn.Linear(4, 1)

    def error(rows):
        return ((model(x[rows])[:, 0] - y[rows]) ** 2).mean()

    def judge():
        return -float(error(torch.arange(65, device="cuda")).detach())

    options = {"judge": judge, "checkpoint": tmp_path / "run.pt", "torch_device": "auto"}
    result = fit(model, error, 65, PLAN, **options)
    assert result.best_score > result.scores[1]
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    trained = weights(model).clone()
    assert fit(model, error, 65, PLAN, **options).epochs == PLAN.epochs  # finished: nothing more
    assert torch.equal(weights(model), trained)
