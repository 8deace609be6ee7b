"""Cheap latency predictors every learned one must beat.

All take the k values of the new device and, at most, the known devices' columns; none has an
uncertainty. `LinearTransfer` and `NearestDevice` answer with NaN for an architecture that the
known devices were not measured on. Source of the list: ProxylessNAS, HELP, our linear transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors._additive import additive_design
from hwnas_sdk.predictors._samples import checked_cells, checked_known, checked_samples
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, structural_features
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Genotypes = NDArray[np.integer]

# NAS-Bench-201 on CIFAR-10, per executed operator: millions of MACs and of parameters. Their rank
# is the same on the other data sets.
MACS_M: Final = {"base": 7.78305, "raw_conv3": 35.38944, "raw_conv1": 3.93216}
PARAMS_M: Final = {"base": 0.073306, "raw_conv3": 0.24304, "raw_conv1": 0.028}


@dataclass(frozen=True)
class Formula:
    """An adapted baseline: a function of genotypes, without uncertainty."""

    mean: Callable[[Ints], Floats]

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean, and NaN for the sd. Shapes: (n, 6) -> two (n,)."""
        cells = checked_cells(genotypes)
        return Prediction(self.mean(cells), np.full(len(cells), np.nan))


def counted(features: Floats, costs: Mapping[str, float]) -> Floats:
    """MACs or parameters from operator counts, (n, F) -> (n,), in millions."""
    total = np.full(len(features), costs["base"])
    for name, cost in costs.items():
        if name != "base":
            total += cost * features[:, FEATURE_NAMES.index(name)]
    return total


def straight_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Offset and slope >= 0 of least squares, (k,) and (k,); slope 1 where x does not vary."""
    spread = float(((x - x.mean()) ** 2).sum())
    covariance = float(((x - x.mean()) * (y - y.mean())).sum())
    # A slope of nothing would tie every architecture; this keeps the order of x.
    least = 1e-9 * float(np.abs(y).mean())
    slope = max(covariance / spread, least) if spread > 0 else 1.0
    return float(y.mean() - slope * x.mean()), slope


class _Unlearned:
    """A model of the samples alone."""

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
    ) -> Self:
        """Nothing is learned from known devices; they are checked."""
        del seed, on_event
        checked_known(genotypes, known)
        return cls()


class _Counts(_Unlearned):
    """Latency = offset + slope * a count of operations."""

    costs: ClassVar[Mapping[str, float]]

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> Formula:
        """Fit offset and slope. `rel_sd` is not used."""
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        offset, slope = straight_line(self._count(cells), y)
        return Formula(lambda rows: offset + slope * self._count(rows))

    def _count(self, cells: Ints) -> Floats:
        return counted(structural_features(cells), self.costs)


class FlopsModel(_Counts):
    """Multiply-accumulates."""

    costs = MACS_M


class ParamsModel(_Counts):
    """Parameters."""

    costs = PARAMS_M


class AdditiveCosts(_Unlearned):
    """Latency = constant + a cost >= 0 per operator and kind, fitted to the samples alone.

    What a layer-wise look-up table is when no layer was ever measured: its entries are estimated
    from whole networks. A table that was measured layer by layer is `predictors/layers.py`.
    """

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> Formula:
        """Non-negative least squares of the values on operator counts. `rel_sd` is not used."""
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        level = float(y.mean())
        costs, _ = optimize.nnls(additive_design(structural_features(cells)), y / level)
        return Formula(lambda rows: level * (additive_design(structural_features(rows)) @ costs))


class _KnownColumns:
    """Looks up what the known devices were measured to take."""

    def __init__(self, cells: Ints, columns: Floats) -> None:
        self._columns = columns  # (n, d)
        self._row_of = {tuple(cell): row for row, cell in enumerate(cells.tolist())}

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
    ) -> Self:
        """Keep the known devices' columns. Raises: ModelError without a device."""
        del seed, on_event
        cells, columns = checked_known(genotypes, known)
        if not columns:
            raise ModelError("no known device to carry values from")
        matrix = np.stack(list(columns.values()), axis=1)
        kept = np.isfinite(matrix).any(axis=0)
        if not kept.any():
            raise ModelError("no known device was measured on any architecture")
        return cls(cells, matrix[:, kept] / np.nanmean(matrix[:, kept], axis=0))

    def _look_up(self, cells: Ints) -> Floats:
        """Columns in units of their own mean, (n, 6) -> (n, d), NaN = not measured."""
        values = np.full((len(cells), self._columns.shape[1]), np.nan)
        for row, cell in enumerate(cells.tolist()):
            own = self._row_of.get(tuple(cell))
            if own is not None:
                values[row] = self._columns[own]
        return values

    def _complete(self, at_samples: Floats) -> NDArray[np.bool_]:
        """Devices with a value on every sample; others cannot be compared there."""
        complete = np.asarray(np.isfinite(at_samples).all(axis=0))
        if not complete.any():
            raise ModelError("no known device was measured on all sampled architectures")
        return complete


class LinearTransfer(_KnownColumns):
    """Non-negative mixture of the known devices plus an intercept, fitted on the samples."""

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> Formula:
        """Fit the mixture. `rel_sd` is not used.

        Raises: ModelError when no known device was measured on all samples.
        """
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        at = self._look_up(cells)
        used = self._complete(at)
        level = float(y.mean())
        weights, _ = optimize.nnls(np.column_stack([np.ones(len(y)), at[:, used]]), y / level)

        def mean(rows: Ints) -> Floats:
            mixed: Floats = level * (weights[0] + self._look_up(rows)[:, used] @ weights[1:])
            return mixed

        return Formula(mean)


class NearestDevice(_KnownColumns):
    """The known device that ranks the samples most alike, scaled."""

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> Formula:
        """Choose the device, fit offset and slope. `rel_sd` is not used.

        Raises: ModelError when no known device was measured on all samples.
        """
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        at = self._look_up(cells)
        used = np.flatnonzero(self._complete(at))
        scores = [spearman(y, at[:, device]) for device in used]
        best = used[int(np.argmax([-2.0 if score is None else score for score in scores]))]
        offset, slope = straight_line(at[:, best], y)
        return Formula(lambda rows: offset + slope * self._look_up(rows)[:, best])
