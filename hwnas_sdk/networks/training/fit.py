"""Training a network on images: seeded, checkpointed after each epoch, resumable.

A run that is killed and repeated ends in the same weights as one that was not: everything random
in an epoch follows from (seed, epoch), and a checkpoint is a whole epoch.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.build import GraphModule, build_module
from hwnas_sdk.networks.resumable import (
    chosen_torch_device,
    load_checkpoint,
    save_checkpoint,
    seeded,
)
from hwnas_sdk.networks.training.augment import cutout, random_crop, random_flip
from hwnas_sdk.networks.training.images import Images, ImageSplits
from hwnas_sdk.networks.training.tasks import ImageTask

_MAX_SEED: Final = 2**63 - 1
_EVALUATION_BATCH: Final = 512
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """How to train; the defaults are NAS-Bench-201's recipe.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: of the first step; it falls to 0 along a cosine.
        momentum, weight_decay: of SGD with Nesterov's momentum.
        label_smoothing: share of the target spread over all classes.
        padding: pixels a random crop may shift by.
        flip: whether images are mirrored at random.
        cutout: side of the square that is blanked; 0: none.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    padding: int = 4
    flip: bool = True
    cutout: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out."""
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}")


def default_plan(task: ImageTask, **changes: Any) -> TrainPlan:
    """Plan of a task, with `changes`; a change to None is none."""
    plan = {
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "learning_rate": task.learning_rate,
        "padding": task.padding,
        "flip": task.flip,
    }
    return TrainPlan(**{**plan, **{k: v for k, v in changes.items() if v is not None}})


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did.

    Attributes:
        losses: mean training loss of each epoch.
        valid_accuracy_pct: after each epoch.
        duration_s: wall time of this call; a resumed run counts only its own part.
    """

    losses: tuple[float, ...]
    valid_accuracy_pct: tuple[float, ...]
    duration_s: float


@dataclass
class _Progress:
    """What a checkpoint keeps beside the states of network and optimiser."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)


def new_module(graph: LayerGraph, *, seed: int) -> GraphModule:
    """Build `graph` with initial weights that follow from `seed`.

    Raises: ExportError naming the layer that cannot be built.
    """
    with seeded(int(child_rng(seed, "train", "init").integers(_MAX_SEED))):
        return build_module(graph)


def train(
    module: nn.Module,
    images: ImageSplits,
    plan: TrainPlan,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
    on_event: EventSink = ignore,
) -> TrainResult:
    """Train `module` in place, on the device its parameters are on; it ends in eval mode.

    Args:
        module: (n, C, H, W) images to (n, classes) logits.
        images: learned from and, after each epoch, looked at.
        plan: how.
        checkpoint: file to continue from and to write to after each epoch.
        identity: what must agree, beside the plan, for a checkpoint to be this training's.
        on_event: told after each epoch.

    Raises: ModelError when the loss is not finite, or the checkpoint is damaged or of another plan.
    """
    started = time.monotonic()
    run = _Run(module, images, plan, checkpoint, f"{identity}/{images.fingerprint()}")
    run.resume()
    progress = run.progress
    while len(progress.losses) < plan.epochs:
        run.one_epoch()
        progress.accuracies.append(accuracy_pct(module, images, images.valid))
        run.save()
        message = f"loss {progress.losses[-1]:.3f}, valid {progress.accuracies[-1]:.1f} %"
        on_event(Event(f"train on {images.task.name}", len(progress.losses), plan.epochs, message))
    module.eval()
    return TrainResult(
        tuple(progress.losses), tuple(progress.accuracies), time.monotonic() - started
    )


def accuracy_pct(
    module: nn.Module, images: ImageSplits, part: Images, *, batch_size: int = _EVALUATION_BATCH
) -> float:
    """Share of `part` that `module`, put in eval mode, classifies right, in percent."""
    module.eval()
    right = sum(
        int((predicted == batch.labels).sum())
        for predicted, batch in (
            (predictions(module, images, batch), batch) for batch in part.batches(batch_size)
        )
    )
    return 100.0 * right / len(part)


def predictions(module: nn.Module, images: ImageSplits, batch: Images) -> np.ndarray[Any, Any]:
    """Class that `module` gives to each image of `batch`, (n,) int64."""
    with torch.inference_mode():
        logits = module(as_tensor(images.normalise(batch.pixels), module))
    return logits.argmax(1).cpu().numpy()  # type: ignore[no-any-return]


def moved(module: _Module, torch_device: str) -> _Module:
    """`module` where torch shall work. Raises: ConfigError for an unknown place."""
    return module.to(chosen_torch_device(torch_device))


def as_tensor(array: np.ndarray[Any, Any], module: nn.Module) -> Tensor:
    """`array` where the parameters of `module` are."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(next(module.parameters()).device)


def augmented(
    images: ImageSplits, batch: Images, plan: TrainPlan, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """What a network is shown of a training batch: cropped, mirrored, normalised, cut out."""
    pixels = random_crop(batch.pixels, plan.padding, rng)
    if plan.flip:
        pixels = random_flip(pixels, rng)
    return cutout(images.normalise(pixels), plan.cutout, rng)


class _Run:
    """Network, optimiser and progress of one training."""

    def __init__(
        self,
        module: nn.Module,
        images: ImageSplits,
        plan: TrainPlan,
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        self.module, self.images, self.plan = module, images, plan
        self.checkpoint = checkpoint
        self.identity = {"plan": asdict(plan), "of": identity}
        self.optimizer = torch.optim.SGD(
            module.parameters(),
            lr=plan.learning_rate,
            momentum=plan.momentum,
            nesterov=plan.momentum > 0,
            weight_decay=plan.weight_decay,
        )
        self.progress = _Progress()

    def one_epoch(self) -> None:
        """Train on every image once."""
        plan, epoch = self.plan, len(self.progress.losses)
        rng = child_rng(plan.seed, "train", epoch)
        data = self.images.train.take(rng.permutation(len(self.images.train)))
        n_steps = math.ceil(len(data) / plan.batch_size)
        self.module.train()
        total = 0.0
        with seeded(int(rng.integers(_MAX_SEED)), self.module):
            for step, batch in enumerate(data.batches(plan.batch_size)):
                done = (epoch + step / n_steps) / plan.epochs
                rate = plan.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                total += self._step(batch, rng) * len(batch)
        self.progress.losses.append(total / len(data))

    def _step(self, batch: Images, rng: np.random.Generator) -> float:
        shown = augmented(self.images, batch, self.plan, rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            self.module(as_tensor(shown, self.module)),
            as_tensor(batch.labels, self.module),
            label_smoothing=self.plan.label_smoothing,
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"epoch {len(self.progress.losses) + 1}: the loss is {value}",
                code="diverged",
                hint="lower the learning rate",
            )
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        self.optimizer.step()
        return value

    def save(self) -> None:
        """Write the checkpoint, all or nothing."""
        if self.checkpoint is None:
            return
        state = {
            "progress": asdict(self.progress),
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.checkpoint, self.identity, state)

    def resume(self) -> None:
        """Take over what an earlier process wrote, if it did the same."""
        if self.checkpoint is not None:
            load_checkpoint(self.checkpoint, self.identity, self._take, of="training")

    def _take(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(**state["progress"])
