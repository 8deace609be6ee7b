"""What HELP is trained on: devices, each tuned on a few networks and judged on others.

Strict, the few are the references, and their extrema scale the target. As published, they are ten
random ones of a pool. What lies in the outer tenths of the pool's true values is left out, there
and among those judged; the extrema of what remains are the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.neural.help_net import STRENGTH, HelpNet
from hwnas_sdk.predictors.neural.known_devices import KnownDevices, vector_of
from hwnas_sdk.predictors.neural.latency_net import one_hot

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOW, RANGE = 0.05, 0.9  # what a target is scaled by fills this part of [0, 1]
N_SUPPORT: Final = 10  # networks beside the references that the published form is tuned on
_POOL: Final = 900
_TRIMMED: Final = 0.1  # share at either end


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpPlan:
    """How to train; sizes of the paper unless it says otherwise.

    Attributes:
        strict: what `help` says: the references are everything that is measured. Otherwise as
            published: tuned on ten more networks and scaled by the trimmed extrema of all others.
        epochs: passes over the known architectures; the paper has 2,000 episodes.
        n_tasks: devices of an episode; half of them are mixed (the paper: 8 known ones).
        n_query: architectures of an episode.
        n_steps: tuning steps.
        step_size: of every weight before training.
        step_rate: learning rate of the step sizes.
        kl_weight: of the hypernetwork's distribution against N(0, 1).
        n_draws: of the modulation, averaged when predicting.
        threshold: of the smooth L1 loss, where it turns from squares to absolute values.
    """

    strict: bool = True
    epochs: int = 16
    n_tasks: int = 4
    n_query: int = 200
    n_steps: int = 2
    learning_rate: float = 1e-3
    step_size: float = 1e-3
    step_rate: float = 1e-2
    kl_weight: float = 0.1
    n_draws: int = 10
    threshold: float = 0.05


def scale_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least value, and the range above it; the range is never nothing. Shapes: (p,) -> two ()."""
    _, least, spread = vector_of(values[None])
    return least[0, 0], spread[0, 0]


def trimmed(values: Floats) -> Ints:
    """Rows of a pool without the outer tenths, in the order of their values, (p,) -> (q,).

    At least `N_SUPPORT` are left of as many, because a handful has no outliers to spare.
    """
    n = min(int(_TRIMMED * len(values)), max(0, (len(values) - N_SUPPORT) // 2))
    order: Ints = np.argsort(values, kind="stable")
    return order[n : len(order) - n]


@dataclass(frozen=True)
class _Tasks:
    """Some devices, ready to be learned from; NaN in `targets` = leave out.

    Shapes: vectors (d, k), targets (d, b), support (d, s, 6, 5), support_targets (d, s).
    """

    vectors: Tensor
    targets: Tensor
    support: Tensor
    support_targets: Tensor


class Episode:
    """Loss of some architectures on some devices, known and mixed."""

    def __init__(
        self, net: HelpNet, data: KnownDevices, references: Ints, plan: HelpPlan, seed: int
    ) -> None:
        self.net, self.data, self.plan = net, data, plan
        place = data.columns.device
        self.hot = one_hot(data.genotypes).to(place)
        self.reference_hot = one_hot(references).to(place)
        order = torch.arange(len(data.genotypes))
        n_pool = 0
        if not plan.strict:
            order = torch.from_numpy(child_rng(seed, "help pool").permutation(len(order)))
            n_pool = min(_POOL, len(order) // 2)
        self.pool, self.query = order[:n_pool].to(place), order[n_pool:].to(place)
        if not plan.strict:
            for values in data.columns[:, self.pool]:
                _check_enough(values)

    def loss(self, numbers: Tensor) -> Tensor:
        """Mean loss on some of `query`, (b,) numbers, over devices after each was tuned."""
        rows = self.query[numbers]
        tasks = self._strict(rows) if self.plan.strict else self._published(rows)
        total = tasks.targets.new_zeros(())
        for vector, target, support, support_target in zip(
            tasks.vectors, tasks.targets, tasks.support, tasks.support_targets, strict=True
        ):
            mean, sd = self.net.modulation(vector)
            weights = self.net.modulated(mean + sd * torch.randn_like(sd))
            tuned = self.net.tuned(weights, support, vector, support_target, self.plan.n_steps)
            there = torch.isfinite(target)
            if bool(there.any()):
                answer = self.net.call(tuned, self.hot[rows], vector)[there]
                total = total + functional.smooth_l1_loss(
                    answer, target[there], beta=self.plan.threshold
                )
            apart = 0.5 * (mean**2 + sd**2 - 1.0 - 2.0 * torch.log(sd)).mean()
            total = total + self.plan.kl_weight * STRENGTH * apart
        return total / len(tasks.vectors)

    def _devices(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Known and mixed devices on `rows` (b,) and on the references: (d, b), (d, k)."""
        n_real = max(1, self.plan.n_tasks // 2)
        real = torch.randperm(len(self.data), device=rows.device)[:n_real]
        more, more_told = self.data.mixed(rows, self.plan.n_tasks - n_real)
        return (
            torch.cat([self.data.columns[real][:, rows], more]),
            torch.cat([self.data.references[real], more_told]),
        )

    def _strict(self, rows: Tensor) -> _Tasks:
        columns, told = self._devices(rows)
        vectors, least, spread = vector_of(told)
        return _Tasks(
            vectors,
            LOW + RANGE * (columns - least) / spread,
            self.reference_hot.expand(len(vectors), -1, -1, -1),
            LOW + RANGE * vectors,
        )

    def _published(self, rows: Tensor) -> _Tasks:
        columns, told = self._devices(torch.cat([rows, self.pool]))
        vectors, parts = [], []
        for vector, values in zip(vector_of(told)[0], columns, strict=True):
            judged, pool = values[: len(rows)], values[len(rows) :]
            kept = _kept(pool)
            # A mixture has values only where all devices do, which may be nowhere.
            if len(kept) >= N_SUPPORT:
                vectors.append(vector)
                parts.append(self._published_task(judged, pool, kept))
        return _Tasks(
            torch.stack(vectors), *(torch.stack(part) for part in zip(*parts, strict=True))
        )

    def _published_task(
        self, judged: Tensor, pool: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, support and its targets of one device; values (b,) and (p,), `_kept` (q,)."""
        least, spread = scale_of(pool[kept])
        chosen = kept[torch.randperm(len(kept), device=kept.device)[:N_SUPPORT]]
        within = (judged >= least) & (judged <= least + spread)
        targets = torch.where(within, LOW + RANGE * (judged - least) / spread, torch.nan)
        support_targets = LOW + RANGE * (pool[chosen] - least) / spread
        return targets, self.hot[self.pool[chosen]], support_targets


def _kept(pool: Tensor) -> Tensor:
    """Numbers of the measured values of a pool without the outer tenths, (p,) -> (q,)."""
    measured = torch.nonzero(torch.isfinite(pool))[:, 0]
    inner = trimmed(pool[measured].double().cpu().numpy())
    return measured[torch.from_numpy(inner).to(measured.device)]


def _check_enough(pool: Tensor) -> None:
    """Refuse a known device that can never be learned from, (p,)."""
    n = len(_kept(pool))
    if n < N_SUPPORT:
        raise ModelError(
            f"a known device has {n} values on a pool of {len(pool)} architectures, "
            f"HELP as published needs {N_SUPPORT}",
            hint="leave it out, or use help",
        )
