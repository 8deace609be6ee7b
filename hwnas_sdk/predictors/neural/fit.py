"""One training loop: seeded, checkpointed, resumable, with early stop.

A run that is killed and repeated ends in the same weights as one that was not: everything random
in an epoch follows from (seed, epoch), and a checkpoint is a whole epoch. An accelerator
draws other random numbers from the same seed (dropout, samples) and takes sums in another order:
the weights are not those of a CPU, and two runs may differ a little.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import (
    chosen_torch_device,
    load_checkpoint,
    save_checkpoint,
    seeded,
)

Loss = Callable[[Tensor], Tensor]  # rows of the training set, (b,) int64 -> scalar
Judge = Callable[[], float]  # how good the model is now; higher is better

_MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """How to train.

    Attributes:
        epochs: at most this many passes over the training set.
        batch_size: rows per step; the last batch of an epoch takes what is left, and is left out
            when that is a single row (a list of one orders nothing).
        learning_rate: of the first epoch.
        weight_decay: AdamW's, decoupled.
        schedule: "cosine" falls to zero over `epochs`, "constant" does not.
        patience: stop after this many judgements without a better one; None: never.
        stop_at: stop at a judgement this good; None: never.
        judge_every: epochs between two judgements.
        clip_norm: largest gradient norm; None: not limited.
        checkpoint_every_s: seconds between two checkpoints; the last epoch always has one.
        threads: torch threads; None leaves them as they are. Networks of this size gain nothing
            from several, and sums over other thread counts differ in the last bit.
        seed: of the order of rows and of dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    patience: int | None = None
    stop_at: float | None = None
    judge_every: int = 1
    clip_norm: float | None = None
    checkpoint_every_s: float = 30.0
    threads: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out."""
        for name in ("epochs", "batch_size", "judge_every"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training run did.

    Attributes:
        epochs: epochs trained.
        best_epoch: epoch (from 1) whose weights the model has now.
        best_score: its judgement; None without a judge.
        losses: mean loss of each epoch.
        scores: judgements, by epoch.
        duration_s: wall time of this call; a resumed run counts only its own part.
    """

    epochs: int
    best_epoch: int
    best_score: float | None
    losses: tuple[float, ...]
    scores: Mapping[int, float]
    duration_s: float


@dataclass
class _Progress:
    """What a checkpoint keeps beside the states of model and optimiser."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    finished: bool = False
    losses: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)


class _Run:
    """Model, optimiser and progress of one training run."""

    def __init__(
        self,
        model: nn.Module,
        plan: FitPlan,
        *,
        groups: list[dict[str, Any]] | None,
        checkpoint: Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.plan, self.checkpoint = model, plan, checkpoint
        self.identity = _comparable(plan) | dict(identity)
        parameters: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            groups or parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.best: dict[str, Tensor] | None = None
        self.progress = _Progress()
        self.saved_at = time.monotonic()

    def set_rates(self) -> None:
        done = self.progress.epoch / self.plan.epochs
        factor = 0.5 * (1.0 + math.cos(math.pi * done)) if self.plan.schedule == "cosine" else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def judged(self, score: float) -> None:
        """Note a judgement and keep the weights if they are the best."""
        progress = self.progress
        if not math.isfinite(score):
            raise ModelError(f"epoch {progress.epoch}: the judgement is {score}")
        progress.scores[progress.epoch] = score
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            progress.finished = self.plan.stop_at is not None and score >= self.plan.stop_at
        elif self.plan.patience is not None:
            later = sum(epoch > progress.best_epoch for epoch in progress.scores)
            progress.finished = later >= self.plan.patience

    def save(self, *, now: bool) -> None:
        if self.checkpoint is None:
            return
        if not now and time.monotonic() - self.saved_at < self.plan.checkpoint_every_s:
            return
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }
        save_checkpoint(self.checkpoint, self.identity, state)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        if self.checkpoint is not None:
            load_checkpoint(self.checkpoint, self.identity, self._take, of="training plan")

    def _take(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(**state["progress"])
        self.best = state["best"]


def fit(
    model: nn.Module,
    loss: Loss,
    n_rows: int,
    plan: FitPlan,
    *,
    judge: Judge | None = None,
    groups: list[dict[str, Any]] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    on_event: EventSink = ignore,
    task: str = "train",
    torch_device: str = "cpu",
) -> FitResult:
    """Train `model` in place; afterwards it has the best judged weights and is in eval mode.

    Args:
        model: what is trained; `loss` and `judge` hold it themselves, and the data beside it.
        loss: scalar loss of some rows.
        n_rows: size of the training set.
        plan: how to train.
        judge: called without gradients, in eval mode; None: the last weights are kept.
        groups: parameter groups of the optimiser, each with its own ``lr`` if it wants one;
            None: all parameters that need a gradient.
        before_epoch: told the epoch (from 0) that begins, for example to unfreeze a part. It
            must depend on nothing but the epoch.
        checkpoint: file to continue from and to write to; a finished run returns at once.
        identity: plain values that must agree as well as the plan for a checkpoint to be continued,
            such as a hash of the labels.
        on_event: told after each epoch.
        task: name of the events.
        torch_device: where the model trains, as `chosen_torch_device` reads it; it is back on the
            CPU afterwards. `loss` gets its rows there, and `loss` and `judge` must hold what they
            compare on the same place: ``x.to(chosen_torch_device(torch_device))``.

    Raises: ConfigError for a place torch cannot work on; ModelError when the loss or the judgement
        is not finite, the training set is empty, or the checkpoint is damaged or of another plan.
    """
    if n_rows < 1:
        raise ModelError("nothing to learn from: the training set is empty")
    started = time.monotonic()
    with _threads(plan.threads), _moved(model, chosen_torch_device(torch_device)) as place:
        run = _Run(model, plan, groups=groups, checkpoint=checkpoint, identity=identity or {})
        run.resume()
        while not run.progress.finished and run.progress.epoch < plan.epochs:
            if before_epoch is not None:
                before_epoch(run.progress.epoch)
            _one_epoch(run, loss, n_rows, place)
            if judge is not None and run.progress.epoch % plan.judge_every == 0:
                model.eval()
                with torch.no_grad():
                    run.judged(judge())
            run.progress.finished |= run.progress.epoch == plan.epochs
            run.save(now=run.progress.finished)
            message = f"loss {run.progress.losses[-1]:.4f}"
            if run.progress.scores:
                message += f", best {run.progress.best_score:.4f}"
            on_event(Event(task, run.progress.epoch, plan.epochs, message))
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    progress = run.progress
    return FitResult(
        epochs=progress.epoch,
        best_epoch=progress.best_epoch or progress.epoch,
        best_score=progress.best_score if progress.scores else None,
        losses=tuple(progress.losses),
        scores=dict(progress.scores),
        duration_s=time.monotonic() - started,
    )


def _one_epoch(run: _Run, loss: Loss, n_rows: int, place: torch.device) -> None:
    plan, epoch = run.plan, run.progress.epoch
    rng = child_rng(plan.seed, "fit", epoch)
    order = torch.from_numpy(rng.permutation(n_rows)).to(place)
    run.set_rates()
    run.model.train()
    total, n_seen = 0.0, 0
    with seeded(int(rng.integers(_MAX_SEED)), run.model):
        for rows in torch.split(order, plan.batch_size):
            if len(rows) == 1 < min(plan.batch_size, n_rows):
                continue
            run.optimizer.zero_grad(set_to_none=True)
            value = loss(rows)
            if not bool(torch.isfinite(value)):
                raise ModelError(
                    f"epoch {epoch + 1}: the loss is {float(value.detach())}",
                    code="diverged",
                    hint="lower the learning rate, or look for labels that are not finite",
                )
            value.backward()  # type: ignore[no-untyped-call, unused-ignore]
            if plan.clip_norm is not None:
                nn.utils.clip_grad_norm_(run.model.parameters(), plan.clip_norm)
            run.optimizer.step()
            total += float(value.detach()) * len(rows)
            n_seen += len(rows)
    run.progress.losses.append(total / max(n_seen, 1))
    run.progress.epoch += 1


@contextlib.contextmanager
def _moved(model: nn.Module, place: torch.device) -> Iterator[torch.device]:
    """Have `model` on `place` inside and on the CPU afterwards, also after an error."""
    try:
        model.to(place)
        yield place
    finally:
        model.to("cpu")


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Use `n` torch threads inside; None: leave them as they are."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _comparable(plan: FitPlan) -> dict[str, Any]:
    """What must agree for a checkpoint to continue a plan."""
    values = asdict(plan)
    del values["checkpoint_every_s"], values["threads"]
    return values
