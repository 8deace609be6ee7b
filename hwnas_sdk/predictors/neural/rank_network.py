"""HW-PR-NAS: one network per search space whose output orders architectures by Pareto rank.

Encoders (shared, pre-trained without labels) feed one head 72 -> 64 -> 32 -> 1 per platform. A
batch's Pareto ranks are computed from the true objectives of its members, and a listwise loss
teaches the order. A new platform gets a copy of the best fitting head and encoders, five epochs
of training.

Differs from the paper: see `losses`; the encoders learn from the first epoch at the heads' rate
(`RankPlan.frozen_share` and `encoder_rate`), because frozen first they ordered training devices
worse; the head to copy is the one whose scores agree best with the new platform's ranks, which
needs no labels of the old platforms to be kept; and the encoders of a new platform learn too: with
frozen ones, and much more so at a constant learning rate, training devices were ordered worse.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.ids import content_id, sha256_bytes
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors.card import Card, load_card, load_model, save_model
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.neural.encoders import (
    ArchitectureEncoder,
    Inputs,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.fit import FitPlan, FitResult
from hwnas_sdk.predictors.neural.pretrain import held_out_families, pretrain
from hwnas_sdk.predictors.neural.rank_training import (
    Labelled,
    RankPlan,
    Task,
    as_arrays,
    from_arrays,
    labelled_rows,
    new_head,
    predict,
    rank_loss,
    train_heads,
)
from hwnas_sdk.predictors.population import live_rows
from hwnas_sdk.predictors.rank import encoders_checkpoint
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]

KIND: Final = "rank_network"
SCHEMA: Final = 1


class RankNetwork:
    """Encoders of a space and one head per platform; see `RankModel` for the interface."""

    def __init__(
        self,
        space: SearchSpace,
        encoders: dict[str, ArchitectureEncoder],
        heads: dict[str, nn.Module],
    ) -> None:
        """Wrap trained modules; use `train` to make one.

        Platforms trained together share one encoder object; one added later has its own.
        """
        self.space = space
        self.encoders = encoders
        self.heads = heads
        self.results: dict[str, FitResult] = {}

    # --- learning -------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        space: SearchSpace,
        genotypes: NDArray[np.integer],
        error_pct: ArrayLike,
        costs: Mapping[str, ArrayLike],
        *,
        encoder: ArchitectureEncoder | None = None,
        plan: RankPlan | None = None,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_event: EventSink = ignore,
        torch_device: str = "cpu",
    ) -> RankNetwork:
        """Train on labelled architectures; dead ones and those without every label are left out.

        Args:
            space: the search space.
            genotypes: (n, d).
            error_pct: (n,) in percent, NaN = not known.
            costs: platform -> (n,) or (n, k) costs, NaN = not measured.
            encoder: pre-trained encoders, which are copied; None trains some (about a minute).
            plan: how to train.
            seed: of initial weights, order and dropout.
            checkpoint: file to continue from; one of other labels, encoders or settings is refused.
                Encoders that were not given keep theirs beside it, see `encoders_checkpoint`.
            on_event: told after each epoch.
            torch_device: where the heads and their encoders train, see `fit`; the network is on the
                CPU afterwards. Encoders that were not given are pre-trained on the CPU.

        Raises: ConfigError for a place torch cannot work on; ModelError with fewer than 20 usable
            labels or for shapes that differ.
        """
        chosen = plan or RankPlan()
        chosen_torch_device(torch_device)  # a wrong name is said before a minute of pre-training
        if not costs:
            raise ModelError("a rank network needs at least one platform")
        if encoder is None:
            beside = None if checkpoint is None else encoders_checkpoint(checkpoint)
            encoder = pretrain(space, seed=seed, checkpoint=beside, on_event=on_event).encoder
        shared = copy.deepcopy(encoder)
        labelled = {
            name: labelled_rows(space, genotypes, error_pct, values, name)
            for name, values in costs.items()
        }
        heads = {name: new_head(shared.sizes, seed) for name in labelled}
        network = cls(space, dict.fromkeys(labelled, shared), heads)
        network._train(labelled, chosen, seed, checkpoint, on_event, torch_device)
        return network

    def _train(
        self,
        labelled: Mapping[str, Labelled],
        plan: RankPlan,
        seed: int,
        checkpoint: Path | None,
        on_event: EventSink,
        torch_device: str,
    ) -> None:
        """All platforms together: a step takes one batch of each."""
        tasks, judges = [], []
        place = chosen_torch_device(torch_device)
        shared = next(iter(self.encoders.values()))
        for name, rows in labelled.items():
            rng = child_rng(seed, "held out", name)
            families = [self.space.family(self.space.architecture(g)) for g in rows.genes]
            out = held_out_families(families, plan.held_out, rng)
            inputs = encoder_inputs(self.space, rows.genes)
            loss = rank_loss(plan.loss, torch.from_numpy(rows.objectives[~out]))
            tasks.append(Task(self.heads[name], inputs[torch.from_numpy(~out)], loss))
            held = inputs[torch.from_numpy(out)].to(place)
            truth = pareto.ranks(rows.objectives[out])
            judges.append(_order_judge(shared, self.heads[name], held, truth))
        n_objectives = next(iter(labelled.values())).objectives.shape[1]
        result = train_heads(
            shared,
            tasks,
            lambda: float(np.mean([judge() for judge in judges])),
            FitPlan(
                epochs=plan.epochs,
                batch_size=plan.batch_of(n_objectives),
                learning_rate=plan.learning_rate,
                patience=plan.patience,
                seed=seed,
            ),
            frozen_share=plan.frozen_share,
            encoder_rate=plan.encoder_rate,
            checkpoint=checkpoint,
            identity={"plan": asdict(plan), "learns from": _hash_of(labelled, shared)},
            on_event=on_event,
            torch_device=torch_device,
        )
        self.results = dict.fromkeys(labelled, result)

    def add_platform(
        self,
        name: str,
        genotypes: NDArray[np.integer],
        costs: ArrayLike,
        *,
        error_pct: ArrayLike | None = None,
        epochs: int = 5,
        plan: RankPlan | None = None,
        seed: int = 0,
    ) -> RankNetwork:
        """The same network with one more head and encoders of its own, trained for five epochs.

        Both start as those of the platform whose scores fit best; the old platforms keep theirs.

        Shapes: genotypes (n, d), costs (n,) or (n, k), error_pct (n,).
        Raises: ModelError without errors, which this network does not keep, and as in `train`.
        """
        if error_pct is None:
            raise ModelError(f"{name}: the network learns ranks, which need the errors as well")
        chosen = plan or RankPlan()
        rows = labelled_rows(self.space, genotypes, error_pct, costs, name)
        truth = pareto.ranks(rows.objectives)
        fits = {p: kendall(truth, -self.score(rows.genes, p)) or 0.0 for p in self.platforms}
        best = max(fits, key=lambda platform: fits[platform])
        encoder, head = copy.deepcopy(self.encoders[best]), copy.deepcopy(self.heads[best])
        inputs = encoder_inputs(self.space, rows.genes)
        loss = rank_loss(chosen.loss, torch.from_numpy(rows.objectives))
        fit_plan = FitPlan(
            epochs=epochs, batch_size=chosen.batch_of(rows.objectives.shape[1]),
            learning_rate=chosen.learning_rate, seed=seed
        )  # fmt: skip
        result = train_heads(
            encoder, [Task(head, inputs, loss)], None, fit_plan,
            frozen_share=chosen.frozen_share, encoder_rate=chosen.encoder_rate,
        )  # fmt: skip
        more = RankNetwork(self.space, {**self.encoders, name: encoder}, {**self.heads, name: head})
        more.results = {**self.results, name: result}
        return more

    # --- scoring --------------------------------------------------------------------------------

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms it can score for."""
        return tuple(self.heads)

    def score(self, genotypes: NDArray[np.integer], platform: str) -> Floats:
        """Raw scores, higher = better rank; dead architectures score below all others.

        Shapes: (n, d) -> (n,). Raises: ModelError for a platform without a head.
        """
        if platform not in self.heads:
            raise ModelError(
                f"the rank network has no head for {platform!r}",
                code="other_platform",
                hint=f"it knows {', '.join(self.heads)}; add_platform adds one",
            )
        genes = checked_genotypes(self.space, genotypes)
        scores = predict(self.encoders[platform], self.heads[platform], self.space, genes)
        dead = ~live_rows(self.space, genes)
        scores[dead] = -1e6  # networks never score anywhere near
        return scores

    # --- files ----------------------------------------------------------------------------------

    def save(self, path: Path, *, data: Mapping[str, Any], metrics: Mapping[str, Any]) -> Card:
        """Write all weights and the card."""
        different = list({id(e): e for e in self.encoders.values()}.values())
        tensors: dict[str, NDArray[Any]] = {}
        for i, encoder in enumerate(different):
            tensors |= as_arrays(encoder, f"encoders.{i}.")
        described = {}
        for i, name in enumerate(self.heads):
            tensors |= as_arrays(self.heads[name], f"heads.{i}.")
            number = next(j for j, e in enumerate(different) if e is self.encoders[name])
            described[name] = {"head": i, "encoder": number}
        card = Card(
            name=path.stem, kind=KIND, space=self.space.name, schema=SCHEMA, data=data,
            metrics=metrics, settings={"platforms": described},
        )  # fmt: skip
        return save_model(path, tensors, card)

    @classmethod
    def load(cls, path: Path) -> RankNetwork:
        """Read a network. Raises: ModelError for another kind, schema or a damaged file."""
        name = load_card(path).space
        tensors, card = load_model(path, kind=KIND, space=name, schema=SCHEMA)
        space = get_space(name)
        encoders: dict[str, ArchitectureEncoder] = {}
        heads: dict[str, nn.Module] = {}
        made: dict[int, ArchitectureEncoder] = {}
        try:
            stored = card.settings["platforms"].items()
            for platform, described in sorted(stored, key=lambda item: int(item[1]["head"])):
                i = described["encoder"]
                if i not in made:
                    with seeded(0):
                        made[i] = ArchitectureEncoder(space)
                    from_arrays(made[i], tensors, f"encoders.{i}.")
                encoders[platform] = made[i]
                heads[platform] = new_head(made[i].sizes, 0)
                from_arrays(heads[platform], tensors, f"heads.{described['head']}.")
        except (KeyError, TypeError, RuntimeError) as exc:
            raise ModelError(f"{path.name}: incomplete rank network: {exc}") from exc
        return cls(space, encoders, heads)


def _order_judge(
    encoder: ArchitectureEncoder, head: nn.Module, inputs: Inputs, ranks: NDArray[np.int64]
) -> Callable[[], float]:
    def judge() -> float:
        return kendall(ranks, -head(encoder(inputs).z)[:, 0].cpu().double().numpy()) or 0.0

    return judge


def _hash_of(labelled: Mapping[str, Labelled], encoder: ArchitectureEncoder) -> str:
    """Names what a training starts from: labels by platform, weights of the encoders."""
    weights = as_arrays(encoder, "")
    arrays = [array for rows in labelled.values() for array in (rows.genes, rows.objectives)]
    arrays += [weights[name] for name in sorted(weights)]
    return content_id([list(labelled), *(sha256_bytes(array.tobytes()) for array in arrays)])
