"""HW-PR-NAS: one network per search space whose output orders architectures by Pareto rank.

Encoders (shared, pre-trained without labels) feed one head 72 -> 64 -> 32 -> 1 per platform. A
batch's Pareto ranks are computed from the true objectives of its members, and a listwise loss
teaches the order. A new platform gets a copy of the best fitting head and five epochs.

Differs from the paper: see `losses`; the encoders learn from the first epoch at the heads' rate
(`RankPlan.frozen_share` and `encoder_rate`), because frozen first they ordered training devices
worse; the head to copy is the one whose scores agree best with the
new platform's ranks, which needs no labels of the old platforms to be kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hwnas_sdk import pareto
from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.predictors.card import Card, load_card, load_model, save_model
from hwnas_sdk.predictors.graphs import checked_genotypes
from hwnas_sdk.predictors.metrics import kendall
from hwnas_sdk.predictors.neural.encoders import (
    ArchitectureEncoder,
    EncoderSizes,
    Inputs,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.fit import FitPlan, FitResult, fit
from hwnas_sdk.predictors.neural.losses import LOSSES, batch_ranks
from hwnas_sdk.predictors.neural.pretrain import held_out_families, pretrain
from hwnas_sdk.predictors.population import live_rows
from hwnas_sdk.spaces import get_space
from hwnas_sdk.spaces.base import SearchSpace

Floats = NDArray[np.float64]

KIND: Final = "rank_network"
SCHEMA: Final = 1
_CHUNK: Final = 4096
_MIN_LABELS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """How a rank network is trained.

    Attributes:
        loss: a name of `losses.LOSSES`.
        epochs: at most.
        batch_size: architectures whose ranks are compared; None: 18 for two objectives (the
            paper's), 32 for more, because three objectives put most of a small batch on one front.
        learning_rate: of the head.
        patience: epochs without a better order of the held-out families before it stops.
        held_out: share of function families the early stop judges on.
        frozen_share: share of `epochs` during which the encoders stand still.
        encoder_rate: learning rate of the encoders relative to that of the head.
    """

    loss: str = "listwise"
    epochs: int = 200
    batch_size: int | None = None
    learning_rate: float = 1e-3
    patience: int = 30
    held_out: float = 0.2
    frozen_share: float = 0.0
    encoder_rate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        if self.loss not in LOSSES:
            raise ModelError(f"unknown rank loss {self.loss!r}", hint=f"one of {', '.join(LOSSES)}")


@dataclass(frozen=True)
class _Labelled:
    """Architectures of one platform. Shapes: genes (n, d), objectives (n, m), families (n,)."""

    genes: NDArray[np.int64]
    objectives: Floats


class RankNetwork:
    """Encoders of a space and one head per platform; see `RankModel` for the interface."""

    def __init__(
        self,
        space: SearchSpace,
        encoders: dict[str, ArchitectureEncoder],
        heads: dict[str, nn.Module],
    ) -> None:
        """Wrap trained modules; use `train` to make one.

        Platforms trained together share one encoder object; one added later uses that of the
        platform it was copied from.
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
            checkpoint: file to continue from.
            on_event: told after each epoch.

        Raises: ModelError with fewer than 20 usable labels or for shapes that differ.
        """
        chosen = plan or RankPlan()
        if not costs:
            raise ModelError("a rank network needs at least one platform")
        known = encoder if encoder is not None else pretrain(space, seed=seed).encoder
        shared = copy.deepcopy(known)
        labelled = {
            name: labelled_rows(space, genotypes, error_pct, values, name)
            for name, values in costs.items()
        }
        heads = {name: new_head(shared.sizes, seed) for name in labelled}
        network = cls(space, dict.fromkeys(labelled, shared), heads)
        network._train(labelled, chosen, seed, checkpoint, on_event)
        return network

    def _train(
        self,
        labelled: Mapping[str, _Labelled],
        plan: RankPlan,
        seed: int,
        checkpoint: Path | None,
        on_event: EventSink,
    ) -> None:
        """All platforms together: a step takes one batch of each."""
        tasks, judges = [], []
        shared = next(iter(self.encoders.values()))
        for name, rows in labelled.items():
            rng = child_rng(seed, "held out", name)
            families = [self.space.family(self.space.architecture(g)) for g in rows.genes]
            out = held_out_families(families, plan.held_out, rng)
            inputs = encoder_inputs(self.space, rows.genes)
            loss = rank_loss(plan.loss, torch.from_numpy(rows.objectives[~out]))
            tasks.append(Task(self.heads[name], inputs[torch.from_numpy(~out)], loss))
            held, truth = inputs[torch.from_numpy(out)], pareto.ranks(rows.objectives[out])
            judges.append(_order_judge(shared, self.heads[name], held, truth))
        n_objectives = next(iter(labelled.values())).objectives.shape[1]
        batch = plan.batch_size or (18 if n_objectives == 2 else 32)
        result = train_heads(
            shared,
            tasks,
            lambda: float(np.mean([judge() for judge in judges])),
            FitPlan(
                epochs=plan.epochs,
                batch_size=batch,
                learning_rate=plan.learning_rate,
                patience=plan.patience,
                seed=seed,
            ),
            frozen_share=plan.frozen_share,
            encoder_rate=plan.encoder_rate,
            checkpoint=checkpoint,
            on_event=on_event,
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
        """The same network with one more head, trained for five epochs on frozen encoders.

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
        encoder, head = self.encoders[best], copy.deepcopy(self.heads[best])
        inputs = encoder_inputs(self.space, rows.genes)
        loss = rank_loss(chosen.loss, torch.from_numpy(rows.objectives))
        batch = chosen.batch_size or (18 if rows.objectives.shape[1] == 2 else 32)
        fit_plan = FitPlan(
            epochs=epochs, batch_size=batch, learning_rate=chosen.learning_rate, seed=seed,
            schedule="constant",
        )  # fmt: skip
        result = train_heads(encoder, [Task(head, inputs, loss)], None, fit_plan, frozen_share=1.0)
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


# --- pieces -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One head, the inputs of its training set, and the loss of (scores, rows)."""

    head: nn.Module
    inputs: Inputs
    loss: Callable[[Tensor, Tensor], Tensor]


def new_head(sizes: EncoderSizes, seed: int) -> nn.Module:
    """Three fully connected layers z -> 64 -> 32 -> 1."""
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(sizes.z, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )


def rank_loss(name: str, objectives: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss of scores against the Pareto ranks of the rows within their batch."""
    loss = LOSSES[name]
    return lambda scores, rows: loss(scores, batch_ranks(objectives[rows]))


def train_heads(
    encoder: ArchitectureEncoder,
    tasks: list[Task],
    judge: Callable[[], float] | None,
    plan: FitPlan,
    *,
    frozen_share: float = 0.0,
    encoder_rate: float = 1.0,
    checkpoint: Path | None = None,
    on_event: EventSink = ignore,
) -> FitResult:
    """Train heads on an encoder that is frozen for the first `frozen_share` of the epochs."""
    model = nn.ModuleDict({"encoder": encoder, "heads": nn.ModuleList(t.head for t in tasks)})
    thaw_at = round(frozen_share * plan.epochs)
    encoder.eval()
    with torch.no_grad():
        codes = [encoder(task.inputs).z for task in tasks]
    frozen = True

    def before_epoch(epoch: int) -> None:
        nonlocal frozen
        frozen = epoch < thaw_at
        encoder.requires_grad_(not frozen)

    def loss(rows: Tensor) -> Tensor:
        losses = []
        for task, code in zip(tasks, codes, strict=True):
            mine = rows[rows < len(code)]  # platforms may have fewer labels than others
            if len(mine) > 1:
                z = code[mine] if frozen else encoder(task.inputs[mine]).z
                losses.append(task.loss(task.head(z)[:, 0], mine))
        return torch.stack(losses).sum()

    heads = [p for task in tasks for p in task.head.parameters()]
    groups: list[dict[str, Any]] = [{"params": heads}]
    if frozen_share < 1.0:
        rate = encoder_rate * plan.learning_rate
        groups.append({"params": list(encoder.parameters()), "lr": rate})
    result = fit(
        model,
        loss,
        max(len(code) for code in codes),
        plan,
        judge=judge,
        groups=groups,
        before_epoch=before_epoch,
        checkpoint=checkpoint,
        on_event=on_event,
        task="train rank",
    )
    encoder.requires_grad_(requires_grad=True)
    return result


def predict(
    encoder: ArchitectureEncoder, head: nn.Module, space: SearchSpace, genes: NDArray[np.int64]
) -> Floats:
    """Outputs of a head, (n, d) -> (n,)."""
    encoder.eval()
    device = next(head.parameters()).device
    parts = [np.zeros(0)]
    with torch.no_grad():
        for start in range(0, len(genes), _CHUNK):
            inputs = encoder_inputs(space, genes[start : start + _CHUNK]).to(device)
            parts.append(head(encoder(inputs).z)[:, 0].double().cpu().numpy())
    return np.concatenate(parts)


def labelled_rows(
    space: SearchSpace,
    genotypes: NDArray[np.integer],
    error_pct: ArrayLike,
    costs: ArrayLike,
    name: str,
) -> _Labelled:
    """Live architectures with every objective, the error first.

    Raises: ModelError for shapes that differ or fewer than 20 rows.
    """
    genes = checked_genotypes(space, genotypes)
    error, columns = np.asarray(error_pct, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if error.shape != (len(genes),) or columns.ndim != 2 or len(columns) != len(genes):
        raise ModelError(
            f"{name}: {error.shape} errors and {columns.shape} costs for {len(genes)} architectures"
        )
    objectives = np.column_stack([error, columns])
    kept = np.isfinite(objectives).all(axis=1) & live_rows(space, genes)
    if kept.sum() < _MIN_LABELS:
        raise ModelError(
            f"{name}: a rank network needs {_MIN_LABELS} live architectures with every label, "
            f"got {kept.sum()}",
            hint="measure more architectures",
        )
    return _Labelled(genes[kept], objectives[kept])


def _order_judge(
    encoder: ArchitectureEncoder, head: nn.Module, inputs: Inputs, ranks: NDArray[np.int64]
) -> Callable[[], float]:
    def judge() -> float:
        return kendall(ranks, -head(encoder(inputs).z)[:, 0].double().numpy()) or 0.0

    return judge


def as_arrays(module: nn.Module, prefix: str) -> dict[str, NDArray[Any]]:
    """Weights and buffers by name."""
    return {f"{prefix}{k}": v.detach().cpu().numpy() for k, v in module.state_dict().items()}


def from_arrays(module: nn.Module, tensors: Mapping[str, NDArray[Any]], prefix: str) -> None:
    """Inverse of `as_arrays`. Raises: RuntimeError when weights are missing or do not fit."""
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in own.items()})
