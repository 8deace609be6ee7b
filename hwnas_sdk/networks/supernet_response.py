"""The supernetwork as the lower level of a differentiable search: it is asked and it learns.

Fulfils the best-response seam of the search structurally; nothing of the search is known here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import seeded
from hwnas_sdk.networks.supernet import Supernet, SupernetConfig, one_hot
from hwnas_sdk.networks.training.fit import TrainPlan, as_tensor, augmented, predictions
from hwnas_sdk.networks.training.images import Images, ImageSplits, make_splits

BATCH_SIZE: Final = 256
"""Images of which inherited batch norms take their statistics."""
_MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePlan:
    """How the weights of the supernetwork learn; the defaults are MODNAS' for NAS-Bench-201.

    Attributes:
        batch_size: images per step.
        learning_rate, min_learning_rate: of SGD; from one to the other along a cosine over
            `n_steps`. None as `n_steps` keeps the first.
        momentum, weight_decay, clip_norm: of SGD; the gradient's norm is cut at the last.
        padding, flip, cutout: changes to training images, see `TrainPlan`.
        seed: of weights, order and augmentation.
    """

    batch_size: int = 256
    learning_rate: float = 0.025
    min_learning_rate: float = 0.001
    n_steps: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0027
    clip_norm: float = 5.0
    padding: int = 4
    flip: bool = True
    cutout: int = 16
    seed: int = 0

    def shown(self) -> TrainPlan:
        """The part that says how training images are changed."""
        return TrainPlan(padding=self.padding, flip=self.flip, cutout=self.cutout)


class SupernetResponse:
    """Task losses of choices under shared weights, and steps of those weights.

    Training images teach the weights, validation images judge the choices; both are gone through
    in an order of their own, epoch after epoch, never restarted.

    Attributes:
        supernet: the weights; move it to another device before the first step.
        images: half of the training images each to teach and to judge, see `search_halves`.
    """

    def __init__(
        self, supernet: Supernet, images: ImageSplits, plan: ResponsePlan | None = None
    ) -> None:
        self.supernet, self.images = supernet, images
        self.plan = plan = plan or ResponsePlan()
        self._optimizer = torch.optim.SGD(
            supernet.parameters(),
            lr=plan.learning_rate,
            momentum=plan.momentum,
            weight_decay=plan.weight_decay,
        )
        self._drawn = {"train": 0, "valid": 0}
        self._n_steps = 0

    def task_loss(self, choices: Tensor, *, train: bool) -> Tensor:
        """Cross-entropy of each network on one batch, the next one; the weights get no gradient.

        Args:
            choices: one-hot, (n, 6, 5), with or without a gradient.
            train: of the training images instead of the validation ones.

        Returns: (n,) losses.
        """
        x, y = self._next("train" if train else "valid")
        with _frozen(self.supernet):
            losses = [functional.cross_entropy(self.supernet(x, choice), y) for choice in choices]
        return torch.stack(losses).to(choices.device)

    def learn(self, choices: Tensor, weights: Tensor) -> None:
        """One step of the shared weights along the mean of weights_i * loss_i.

        All losses are of the same training batch. Shapes: choices (n, 6, 5), weights (n,).
        Raises: ModelError when a loss is not finite.
        """
        x, y = self._next("train")
        self._optimizer.zero_grad(set_to_none=True)
        for choice, weight in zip(choices.detach(), weights.detach(), strict=True):
            loss = functional.cross_entropy(self.supernet(x, choice), y)
            if not bool(torch.isfinite(loss)):
                raise ModelError(
                    f"step {self._n_steps + 1}: the loss is {float(loss.detach())}",
                    code="diverged",
                    hint="lower the learning rate",
                )
            (weight * loss / len(choices)).backward()  # type: ignore[no-untyped-call, unused-ignore]
        # Operators nobody chose have no gradient, so neither decay nor momentum moves them.
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.plan.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.step()
        self._n_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on: tensors and numbers."""
        return {
            "supernet": self.supernet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "drawn": dict(self._drawn),
            "n_steps": self._n_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises: ModelError when the state is of another supernetwork.
        """
        try:
            self.supernet.load_state_dict(state["supernet"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._drawn = {name: int(state["drawn"][name]) for name in self._drawn}
            self._n_steps = int(state["n_steps"])
        except (KeyError, RuntimeError, ValueError) as exc:
            raise ModelError(
                f"not the state of this supernetwork: {str(exc).splitlines()[0]}",
                code="other_checkpoint",
                hint="delete the checkpoint to start over",
            ) from exc

    def _rate(self) -> float:
        plan = self.plan
        if plan.n_steps is None:
            return plan.learning_rate
        done = min(1.0, self._n_steps / plan.n_steps)
        span = plan.learning_rate - plan.min_learning_rate
        return plan.min_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))

    def _next(self, name: str) -> tuple[Tensor, Tensor]:
        """The next batch; training images are changed at random. (B, C, H, W) and (B,)."""
        part = self.images.train if name == "train" else self.images.valid
        per_epoch = max(1, len(part) // self.plan.batch_size)
        number = self._drawn[name]
        self._drawn[name] += 1
        epoch, step = divmod(number, per_epoch)
        order = child_rng(self.plan.seed, "supernet", name, epoch).permutation(len(part))
        batch = part.take(order[step * self.plan.batch_size :][: self.plan.batch_size])
        if name == "train":
            rng = child_rng(self.plan.seed, "supernet", "augment", number)
            shown = augmented(self.images, batch, self.plan.shown(), rng)
        else:
            shown = self.images.normalise(batch.pixels)
        return as_tensor(shown, self.supernet), as_tensor(batch.labels, self.supernet)


def new_supernet(config: SupernetConfig, *, seed: int) -> Supernet:
    """Supernetwork with initial weights that follow from `seed`."""
    with seeded(int(child_rng(seed, "supernet", "init").integers(_MAX_SEED))):
        return Supernet(config)


def search_halves(images: ImageSplits, *, seed: int = 0) -> ImageSplits:
    """Training and validation images together, cut in two halves: MODNAS' split for searching.

    The test images stay what they are.
    """
    parts = (images.train, images.valid)
    whole = Images(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    order = child_rng(seed, "supernet", "halves").permutation(len(whole))
    half = len(whole) // 2
    return make_splits(images.task, whole.take(order[:half]), whole.take(order[half:]), images.test)


def judging_batches(part: Images, batch_size: int = BATCH_SIZE) -> list[Images]:
    """What inherited accuracies are of.

    A last batch of less than half the size is left out: its statistics would be another measure.
    """
    return [b for b in part.batches(batch_size) if 2 * len(b) >= min(batch_size, len(part))]


def inherited_accuracy_pct(
    supernet: Supernet,
    genotypes: Sequence[Sequence[int]],
    images: ImageSplits,
    part: Images,
    *,
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.float64]:
    """Accuracy of networks with the supernetwork's weights, in percent, (n,).

    Every network sees the same batches, `judging_batches`; their statistics are the batch norms'.
    """
    device = next(supernet.parameters()).device
    batches = judging_batches(part, batch_size)
    n_images = sum(len(batch) for batch in batches)
    accuracies = []
    for genotype in genotypes:
        network = _Chosen(supernet, one_hot(genotype).to(device))
        right = sum(
            int((predictions(network, images, batch) == batch.labels).sum()) for batch in batches
        )
        accuracies.append(100.0 * right / n_images)
    return np.array(accuracies)


class _Chosen(nn.Module):
    """One network of the supernetwork."""

    def __init__(self, supernet: Supernet, choices: Tensor) -> None:
        super().__init__()
        self.supernet, self.choices = supernet, choices

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.supernet(x, self.choices)
        return logits


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradient for the parameters inside: a third of the work is saved."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
