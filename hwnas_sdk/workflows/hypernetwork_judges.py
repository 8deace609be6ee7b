"""How good a hypernetwork's proposals are, by what it was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hwnas_sdk import pareto
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.preferences import equidistant
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace
from hwnas_sdk.workflows.hypernetworks import Floats, SearchDevices

if TYPE_CHECKING:
    from hwnas_sdk.networks.supernet import Supernet
    from hwnas_sdk.networks.training.images import ImageSplits
    from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork

MOST_IMAGES: Final = 1024
"""Held-out images a supernetwork is asked about; more would take longer than an epoch."""


class _Proposals:
    """What a hypernetwork proposes for its search devices, and what the networks cost there."""

    def __init__(
        self, space: SearchSpace, devices: SearchDevices, objectives: tuple[str, ...]
    ) -> None:
        from hwnas_sdk.search.modnas.predicted import scaled_table

        self.space, self.devices, self.objectives = space, devices, objectives
        self.live = ~traits_of(space).dead(space.grid())
        # Dead networks cost 1 everywhere: they lie on the reference point and add nothing.
        self.costs = np.stack(
            [
                np.stack(
                    [scaled_table(metric, self.live, space.choices).flatten().numpy()
                     for metric in device],
                    axis=1,
                )
                for device in devices.costs
            ]
        ).astype(np.float64)  # fmt: skip  # (T, size, m - 1)
        self.reference = np.ones(len(objectives))
        self.preferences = equidistant(len(objectives))

    def of(self, net: MetaHypernetwork) -> list[Genotypes]:
        """Distinct live networks on each device, as many as preferences."""
        from hwnas_sdk.search.modnas.proposals import propose_distinct

        return [
            propose_distinct(net, vector, self.preferences, may=self._may)
            for vector in self.devices.vectors
        ]

    def volume(self, errors: Floats, device: int, rows: Genotypes) -> float:
        """Hypervolume of networks with these errors in [0, 1] on a device."""
        points = np.column_stack([errors, self.costs[device][rows]])
        return pareto.hypervolume(points, self.reference)

    def mean_costs(self, rows: list[Genotypes]) -> dict[str, float]:
        """Mean scaled cost of the devices' networks, by objective."""
        means = np.mean([self.costs[t][r].mean(axis=0) for t, r in enumerate(rows)], axis=0)
        names = [f"mean_scaled_{name}" for name in self.objectives[1:]]
        return dict(zip(names, means.tolist(), strict=True))

    def _may(self, genotype: tuple[int, ...]) -> bool:
        return bool(self.live[self.space.numbers(np.array([genotype]))[0]])


class PredictedJudge:
    """Hypervolume of the proposals by the predictors themselves, mean over the devices."""

    def __init__(
        self,
        space: SearchSpace,
        error_pct: Floats,
        devices: SearchDevices,
        objectives: tuple[str, ...],
    ) -> None:
        from hwnas_sdk.search.modnas.predicted import scaled_table

        self._proposals = shown = _Proposals(space, devices, objectives)
        scaled = scaled_table(error_pct, shown.live, space.choices).flatten().numpy()
        self._error = scaled.astype(np.float64)
        everything = np.arange(len(scaled))
        self._fronts = [
            shown.volume(self._error, t, everything) for t in range(len(devices.vectors))
        ]

    @property
    def n_proposals(self) -> int:
        """How many networks are proposed for each device."""
        return len(self._proposals.preferences)

    def __call__(self, net: MetaHypernetwork) -> dict[str, Any]:
        """Hypervolume, and what the proposals are like on average, after an epoch."""
        shown = self._proposals
        rows = [shown.space.numbers(cells) for cells in shown.of(net)]
        shares = [shown.volume(self._error[r], t, r) / self._fronts[t] for t, r in enumerate(rows)]
        return {
            "predicted_normalized_hv": float(np.mean(shares)),
            "mean_scaled_error": float(np.mean([self._error[r].mean() for r in rows])),
            **shown.mean_costs(rows),
        }


class InheritedJudge:
    """Hypervolume of the proposals with the supernetwork's weights on images held out.

    Args:
        space: of the supernetwork.
        supernet: as it is when the judge is asked.
        images: of the validation images `MOST_IMAGES` at most judge.
        devices: of the search.
        objectives: of the search.
    """

    def __init__(
        self,
        space: SearchSpace,
        supernet: Supernet,
        images: ImageSplits,
        devices: SearchDevices,
        objectives: tuple[str, ...],
    ) -> None:
        self._proposals = _Proposals(space, devices, objectives)
        self._supernet, self._images = supernet, images
        self._part = images.valid.take(slice(0, MOST_IMAGES))

    @property
    def n_images(self) -> int:
        """How many images judge: a short last batch does not."""
        from hwnas_sdk.networks.supernet_response import judging_batches

        return sum(len(batch) for batch in judging_batches(self._part))

    @property
    def n_proposals(self) -> int:
        """How many networks are proposed for each device."""
        return len(self._proposals.preferences)

    def __call__(self, net: MetaHypernetwork) -> dict[str, Any]:
        """Hypervolume, and what the proposals are like on average, after an epoch."""
        return self._figures(self._proposals.of(net))

    def random(self, seed: int) -> dict[str, Any]:
        """The same figures of as many random live networks, one draw for all devices."""
        shown = self._proposals
        grid = shown.space.grid()[shown.live]
        rng = child_rng(seed, "random proposals")
        drawn = grid[rng.choice(len(grid), size=self.n_proposals, replace=False)]
        return self._figures([drawn] * len(shown.devices.vectors))

    def _figures(self, cells: list[Genotypes]) -> dict[str, Any]:
        from hwnas_sdk.networks.supernet_response import inherited_accuracy_pct

        shown = self._proposals
        rows = [shown.space.numbers(c) for c in cells]
        distinct = np.unique(np.concatenate(rows))
        genotypes = shown.space.grid()[distinct].tolist()
        accuracy_pct = inherited_accuracy_pct(self._supernet, genotypes, self._images, self._part)
        of_device = [accuracy_pct[np.searchsorted(distinct, r)] for r in rows]
        volumes = [
            shown.volume(1.0 - pct / 100.0, t, r)
            for t, (pct, r) in enumerate(zip(of_device, rows, strict=True))
        ]
        return {
            "inherited_hv": float(np.mean(volumes)),
            "mean_inherited_accuracy_pct": float(np.mean([pct.mean() for pct in of_device])),
            "best_inherited_accuracy_pct": float(accuracy_pct.max()),
            **shown.mean_costs(rows),
        }
