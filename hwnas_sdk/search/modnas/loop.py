"""Algorithm 1 of MODNAS: train one MetaHypernetwork for all preferences and devices.

Upper level: for every device a preference, an architecture, its normalised objectives; the
gradients of all devices are joined (multiple gradient descent) and move the hypernetwork. Lower
level: the best response to the sampled architectures learns, if it can. A run that is killed and
repeated ends in the same weights: randomness follows from (seed, epoch), a checkpoint is an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import torch
from torch import Tensor

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import load_checkpoint, save_checkpoint, seeded
from hwnas_sdk.search.modnas.architect import Estimator, decide
from hwnas_sdk.search.modnas.hypernetwork import HypernetworkPlan, MetaHypernetwork
from hwnas_sdk.search.modnas.mgd import common_direction
from hwnas_sdk.search.modnas.objectives import RunningRange, Scalarisation, scalarise

UpdateScheme = Literal["mgd", "mean", "sequential", "sampled"]
SCHEMES: Final[tuple[str, ...]] = get_args(UpdateScheme)

Hardware = Callable[[Tensor, Sequence[int]], Tensor]
"""Choices (T, n, d, c) and which T devices -> hardware objectives in [0, 1], (T, n, m - 1)."""


class BestResponse(Protocol):
    """The side that answers with a task loss: a supernet on data, or a predictor."""

    def task_loss(self, choices: Tensor, *, train: bool) -> Tensor:
        """Loss of architectures, (n, d, c) with gradient -> (n,), on training or held-out data."""
        ...

    def learn(self, choices: Tensor, weights: Tensor) -> None:
        """One step of the lower level on mean(weights * loss); a predictor does nothing."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values a checkpoint needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModnasPlan:
    """How to search; defaults are the paper's where it says something (Table 2).

    Attributes:
        epochs, steps: an epoch has `steps` steps of both levels.
        scheme: how the devices' gradients are joined: "mgd", their "mean", "sequential" steps, or
            one "sampled" device per step.
        preferences: preferences per device and step, r ~ Dir(`concentration`).
        learning_rate: of the hypernetwork; the released code multiplies the paper's 3e-4 by 13.
        temperature: of the estimator; "gdas" anneals from 10 to it.
        unit_norm: devices' gradients are scaled to length 1 before "mgd".
        cosine: weight of the cosine penalty (eq. 11).
        bound: user prior on the normalised hardware objectives in [0, 1], None for none.
        running_task: scale task losses by their running range (a supernet's cross-entropy);
            False: they come in [0, 1] already.
        warm_up: epochs at the start in which only the lower level learns, from architectures drawn
            as the untrained hypernetwork says: uniformly (ours). Without, operators that have
            nothing to learn win before the others have learned.
    """

    epochs: int = 100
    steps: int = 50
    scheme: UpdateScheme = "mgd"
    preferences: int = 1
    concentration: float = 1.0
    estimator: Estimator = "reinmax"
    scalarisation: Scalarisation = "linear"
    learning_rate: float = 3.9e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    temperature: float = 1.0
    unit_norm: bool = True
    cosine: float = 0.0
    bound: float | None = None
    running_task: bool = False
    warm_up: int = 0
    evaluate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out."""
        if self.scheme not in SCHEMES:
            raise ModelError(f"unknown scheme {self.scheme!r}", hint=f"one of {', '.join(SCHEMES)}")
        for name in ("epochs", "steps", "preferences", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.warm_up < self.epochs:
            raise ModelError(
                f"a warm-up of {self.warm_up} epochs leaves none of {self.epochs} to search in"
            )
        if self.bound is not None and not 0.0 <= self.bound <= 1.0:
            raise ModelError(f"a bound is between 0 and 1, got {self.bound:g}")


@dataclass
class ModnasResult:
    """A trained hypernetwork and how it came about.

    Attributes:
        history: judgement after each judged epoch, oldest first.
        duration_s: wall time of this call; a resumed run counts only its own part.
    """

    hypernetwork: MetaHypernetwork
    history: list[dict[str, Any]] = field(default_factory=list)
    duration_s: float = 0.0


class _Search:
    def __init__(
        self,
        hypernetwork: MetaHypernetwork,
        response: BestResponse,
        hardware: Hardware,
        devices: Tensor,
        plan: ModnasPlan,
        of: Mapping[str, Any] | None,
    ) -> None:
        self.net, self.response, self.hardware = hypernetwork, response, hardware
        self.of = of
        self.devices, self.plan = devices, plan
        self.parameters = [p for p in hypernetwork.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=plan.learning_rate,
            betas=plan.betas,
            weight_decay=plan.weight_decay,
        )
        self.range = RunningRange()
        self.epoch = 0
        self.history: list[dict[str, Any]] = []

    # --- one epoch --------------------------------------------------------------------------------

    def run_epoch(self) -> None:
        plan = self.plan
        rng = child_rng(plan.seed, "modnas", self.epoch)
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self._rng = rng
        # Learning of a supernet (dropout, augmentation) draws from torch's own generator.
        with seeded(int(rng.integers(2**62))):
            for _ in range(plan.steps):
                if self.epoch >= plan.warm_up:
                    self._upper_level()
                self._lower_level()
        self.epoch += 1

    def _upper_level(self) -> None:
        if self.plan.scheme == "sequential":
            for device in self._order():
                losses = self._losses(self.devices[device][None], [device])
                self._step(torch.autograd.grad(losses.mean(), self.parameters))
            return
        if self.plan.scheme == "sampled":
            device = int(self._rng.integers(len(self.devices)))
            losses = self._losses(self.devices[device][None], [device])
            self._step(torch.autograd.grad(losses.mean(), self.parameters))
            return
        if self.plan.scheme == "mean":
            losses = self._losses(self.devices, list(range(len(self.devices))))
            self._step(torch.autograd.grad(losses.mean(), self.parameters))
            return
        direction, _ = common_direction(self._device_gradients(), unit_norm=self.plan.unit_norm)
        sizes = [p.numel() for p in self.parameters]
        self._step(
            [
                part.reshape(p.shape)
                for part, p in zip(torch.split(direction, sizes), self.parameters, strict=True)
            ]
        )

    def _device_gradients(self) -> Tensor:
        """Gradient of each device's loss with respect to all parameters, (T, p)."""
        numbers = list(range(len(self.devices)))
        if self.net.plan.form == "mlp":
            losses = self._losses(self.devices, numbers).mean(dim=1)
            return torch.stack(
                [_flat(torch.autograd.grad(x, self.parameters, retain_graph=True)) for x in losses]
            )
        # A device's loss depends on its own mixed table only: one backward pass for all, then the
        # short way from each table to the parameters.
        mixed = [self.net.mix(self.devices[t][None]) for t in numbers]
        leaves = [
            torch.cat([tables[i] for tables in mixed]).detach().requires_grad_()
            for i in range(len(mixed[0]))
        ]
        losses = self._losses(self.devices, numbers, mixed=leaves).mean(dim=1).sum()
        slopes = torch.autograd.grad(losses, leaves)
        return torch.stack(
            [
                _flat(
                    torch.autograd.grad(
                        tables, self.parameters, [slope[t][None] for slope in slopes]
                    )
                )
                for t, tables in enumerate(mixed)
            ]
        )

    def _order(self) -> list[int]:
        order: list[int] = self._rng.permutation(len(self.devices)).tolist()
        return order

    def _step(self, gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.detach()
        self.optimizer.step()

    def _losses(
        self, devices: Tensor, numbers: Sequence[int], *, mixed: list[Tensor] | None = None
    ) -> Tensor:
        """Scalarised losses of fresh preferences, (T, preferences)."""
        plan, n_devices = self.plan, len(devices)
        choices, preferences = self._draw(devices, mixed)
        flat = choices.reshape(-1, *choices.shape[2:])
        task = self.response.task_loss(flat, train=False)
        if plan.running_task:
            task = self.range.scale(task)
        costs = self.hardware(choices, numbers)
        losses = torch.cat([task.reshape(n_devices, -1, 1), costs], dim=2)
        bounds = None if plan.bound is None else torch.tensor(plan.bound)
        value = scalarise(
            losses.flatten(0, 1),
            preferences.flatten(0, 1),
            scalarisation=plan.scalarisation,
            cosine=plan.cosine,
            bounds=bounds,
        )
        return value.reshape(n_devices, -1)

    def _draw(self, devices: Tensor, mixed: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Architectures (T, n, d, c) for preferences (T, n, m)."""
        plan, m = self.plan, self.net.plan.n_objectives
        gamma = self._rng.gamma(plan.concentration, size=(len(devices), plan.preferences, m))
        preferences = torch.from_numpy(gamma / gamma.sum(axis=2, keepdims=True)).float()
        if mixed is None:
            logits = self.net(preferences, devices)
        else:
            logits = self.net.look_up(mixed, preferences)
        temperature = plan.temperature
        if plan.estimator == "gdas":
            done = self.epoch / max(plan.epochs - 1, 1)
            temperature = 10.0 + done * (plan.temperature - 10.0)
        choices = decide(
            logits.flatten(0, 1), plan.estimator, temperature=temperature, generator=self.generator
        )
        return choices.reshape(logits.shape), preferences

    def _lower_level(self) -> None:
        with torch.no_grad():
            choices, _ = self._draw(self.devices)
        flat = choices.flatten(0, 1)
        self.response.learn(flat, torch.ones(len(flat)))

    # --- checkpoints ------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        state = {
            "epoch": self.epoch,
            "history": self.history,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "range": self.range.state(),
            "response": self.response.state_dict(),
        }
        save_checkpoint(path, self._identity(), state)

    def resume(self, path: Path) -> None:
        load_checkpoint(path, self._identity(), self._take, of="search")

    def _identity(self) -> dict[str, Any]:
        own = {
            "plan": _comparable(self.plan),
            "sizes": _comparable(self.net.plan),
            "devices": self.devices.tolist(),
        }
        return own if self.of is None else {**own, "of": dict(self.of)}

    def _take(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.range.restore(state["range"])
        self.response.load_state_dict(state["response"])
        self.epoch, self.history = state["epoch"], state["history"]


def search_all(
    sizes: HypernetworkPlan,
    response: BestResponse,
    hardware: Hardware,
    devices: Tensor,
    plan: ModnasPlan,
    *,
    of: Mapping[str, Any] | None = None,
    judge: Callable[[MetaHypernetwork], dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 20.0,
    on_event: EventSink = ignore,
) -> ModnasResult:
    """Train a MetaHypernetwork on all `devices` at once.

    Args:
        sizes: of the hypernetwork.
        response: task loss; in [0, 1] unless ``plan.running_task``.
        hardware: hardware objectives of all devices, normalised to [0, 1] per device.
        devices: device vectors, (T, k).
        plan: how to search.
        of: plain values that must agree, beside plan, sizes and devices, for a checkpoint to be
            this search's: what `response` is made of.
        judge: called every ``plan.evaluate_every`` epochs and after the last; its dictionary of
            plain numbers goes into the history.
        checkpoint: file to continue from and to write to; a finished run returns at once.
        checkpoint_every_s: least time between two checkpoints.
        on_event: told after each epoch.

    Raises: ModelError when a loss is not finite, or for a checkpoint of another search.
    """
    if devices.dim() != 2 or devices.shape[1] != sizes.n_features or len(devices) == 0:
        raise ModelError(
            f"device vectors have shape {tuple(devices.shape)}, expected (T, {sizes.n_features})"
        )
    started = saved = time.monotonic()
    rng = child_rng(plan.seed, "modnas", "initial")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    net = MetaHypernetwork(sizes, generator=generator)
    run = _Search(net, response, hardware, devices.float(), plan, of)
    if checkpoint is not None:
        run.resume(checkpoint)
    while run.epoch < plan.epochs:
        run.run_epoch()
        last = run.epoch == plan.epochs
        if not all(bool(torch.isfinite(p).all()) for p in run.parameters):
            raise ModelError(
                f"epoch {run.epoch}: the hypernetwork is not finite",
                code="diverged",
                hint="lower the learning rate",
            )
        message = ""
        if judge is not None and (last or run.epoch % plan.evaluate_every == 0):
            net.eval()
            with torch.no_grad():
                figures = judge(net)
            run.history.append({"epoch": run.epoch, **figures})
            message = ", ".join(f"{k} {v:.4f}" for k, v in figures.items() if isinstance(v, float))
            net.train()
        now = time.monotonic()
        if checkpoint is not None and (last or now - saved >= checkpoint_every_s):
            run.save(checkpoint)
            saved = now
        on_event(Event("search modnas", run.epoch, plan.epochs, message))
    net.eval()
    return ModnasResult(net, run.history, time.monotonic() - started)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _comparable(plan: Any) -> dict[str, Any]:
    """A plan as a checkpoint keeps it: tuples are lists there."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(plan).items()}
