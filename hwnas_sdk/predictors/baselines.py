"""Cheap latency predictors every learned one must beat.

Each takes the k values of the new device and, at most, the known devices' columns; none states an
uncertainty. Sources: operation counts as in ProxylessNAS and HELP; linear transfer is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, structural_features
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.transfer import Floats, Genotypes

# NAS-Bench-201 on CIFAR-10, per executed operator: millions of MACs and of parameters. Their rank
# is the same on the other data sets.
MACS_M: Final = {"base": 7.78305, "raw_conv3": 35.38944, "raw_conv1": 3.93216}
PARAMS_M: Final = {"base": 0.073306, "raw_conv3": 0.24304, "raw_conv1": 0.028}


def counted(genotypes: Genotypes, costs: Mapping[str, float]) -> Floats:
    """MACs or parameters from operator counts, (n, 6) -> (n,), in millions."""
    features = structural_features(genotypes)
    total = np.full(len(features), costs["base"])
    for name, cost in costs.items():
        if name != "base":
            total += cost * features[:, FEATURE_NAMES.index(name)]
    return total


@dataclass(frozen=True)
class Line:
    """y = offset + slope * x."""

    offset: float
    slope: float

    @classmethod
    def fit(cls, x: Floats, y: Floats) -> Line:
        """Least squares with slope >= 0. Shapes: (k,), (k,)."""
        spread = float(((x - x.mean()) ** 2).sum())
        covariance = float(((x - x.mean()) * (y - y.mean())).sum())
        slope = max(covariance / spread, 1e-9) if spread > 0 else 1.0
        return cls(float(y.mean() - slope * x.mean()), slope)

    def __call__(self, x: Floats) -> Floats:
        """Values on the line, (n,) -> (n,)."""
        return self.offset + self.slope * x


def checked_values(values: Floats, n: int) -> Floats:
    """`values` as floats. Raises: ModelError unless they are n > 0 positive numbers."""
    y = np.asarray(values, dtype=np.float64)
    if y.shape != (n,) or not n or not (np.isfinite(y).all() and (y > 0).all()):
        raise ModelError(
            "a latency model needs at least one measurement, all of them positive numbers",
            hint="leave out what was not measured",
        )
    return y


def without_sd(mean: Floats) -> Prediction:
    """A prediction that states no uncertainty."""
    return Prediction(mean, np.full(len(mean), np.nan))


@dataclass(frozen=True)
class AdaptedCount:
    """A line through the counts of the measured cells."""

    line: Line
    costs: Mapping[str, float]

    def predict(self, genotypes: Genotypes) -> Prediction:
        """See `AdaptedModel.predict`."""
        return without_sd(self.line(counted(genotypes, self.costs)))


class CountModel:
    """Latency is a line over an operation count; learns nothing from other devices."""

    costs: ClassVar[Mapping[str, float]]

    @classmethod
    def fit(cls, genotypes: Genotypes, known: Mapping[str, Floats], *, seed: int = 0) -> Self:
        """See `TransferModel.fit`."""
        del genotypes, known, seed
        return cls()

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedCount:
        """See `TransferModel.adapt`."""
        del rel_sd
        y = checked_values(values, len(genotypes))
        return AdaptedCount(Line.fit(counted(genotypes, self.costs), y), self.costs)


class FlopsModel(CountModel):
    """Multiply-accumulates."""

    costs = MACS_M


class ParamsModel(CountModel):
    """Parameters."""

    costs = PARAMS_M


@dataclass(frozen=True)
class Columns:
    """Known devices' values, found by architecture.

    Shapes: values (n, n_devices), NaN = not measured.
    """

    row_of: Mapping[tuple[int, ...], int]
    values: Floats

    @classmethod
    def of(cls, genotypes: Genotypes, known: Mapping[str, Floats]) -> Columns:
        """Keep the columns. Raises: ModelError without a device or for a wrong length."""
        if not known:
            raise ModelError("a transfer model needs at least one known device")
        for device, column in known.items():
            if np.shape(column) != (len(genotypes),):
                raise ModelError(
                    f"{device}: {np.shape(column)} latencies for {len(genotypes)} cells"
                )
        rows = {tuple(genes): row for row, genes in enumerate(np.asarray(genotypes).tolist())}
        return cls(rows, np.stack([np.asarray(c, dtype=np.float64) for c in known.values()], 1))

    def at(self, genotypes: Genotypes) -> Floats:
        """Values at `genotypes`, (m, n_devices); NaN where nothing is known."""
        rows = [self.row_of.get(tuple(genes), -1) for genes in np.asarray(genotypes).tolist()]
        found = np.array(rows, dtype=np.int64)
        return np.where((found >= 0)[:, None], self.values[found], np.nan)


@dataclass(frozen=True)
class AdaptedMixture:
    """A weighted sum of known devices plus an intercept.

    Shapes: weights (n_devices,); a device of weight None is left out.
    """

    columns: Columns
    chosen: NDArray[np.intp]
    intercept: float
    weights: Floats

    def predict(self, genotypes: Genotypes) -> Prediction:
        """See `AdaptedModel.predict`; NaN where a known device was not measured."""
        at = self.columns.at(genotypes)[:, self.chosen]
        return without_sd(self.intercept + at @ self.weights)


@dataclass(frozen=True)
class ColumnModel:
    """Keeps the known devices' columns; knows nothing of architectures they lack."""

    columns: Columns

    @classmethod
    def fit(cls, genotypes: Genotypes, known: Mapping[str, Floats], *, seed: int = 0) -> Self:
        """See `TransferModel.fit`."""
        del seed
        return cls(Columns.of(genotypes, known))

    def _references(self, genotypes: Genotypes) -> tuple[Floats, NDArray[np.intp]]:
        """Known values at the references, (k, m), and which m devices have all of them."""
        at = self.columns.at(genotypes)
        complete = np.flatnonzero(np.isfinite(at).all(axis=0))
        if not complete.size:
            raise ModelError("no known device was measured on all reference networks")
        return at[:, complete], complete


class LinearTransfer(ColumnModel):
    """Non-negative mixture of the known devices plus an intercept, fitted on the references."""

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedMixture:
        """See `TransferModel.adapt`."""
        del rel_sd
        y = checked_values(values, len(genotypes))
        at, complete = self._references(genotypes)
        # Every device in units of its own mean: the solver then weighs them alike.
        means = np.nanmean(self.columns.values[:, complete], axis=0)
        level = float(y.mean())
        design = np.column_stack([np.ones(len(y)), at / means])
        weights, _ = optimize.nnls(design, y / level)
        return AdaptedMixture(
            self.columns, complete, level * float(weights[0]), level * weights[1:] / means
        )


class NearestDevice(ColumnModel):
    """The known device that ranks the references most alike, through a line."""

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedMixture:
        """See `TransferModel.adapt`."""
        del rel_sd
        y = checked_values(values, len(genotypes))
        at, complete = self._references(genotypes)
        scores = [spearman(y, column) for column in at.T]
        best = int(np.argmax([-2.0 if score is None else score for score in scores]))
        line = Line.fit(at[:, best], y)
        return AdaptedMixture(self.columns, complete[[best]], line.offset, np.array([line.slope]))
