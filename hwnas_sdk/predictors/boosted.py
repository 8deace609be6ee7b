"""Gradient-boosted trees that carry latency to a new device: XGBoost and LightGBM.

The papers train them on many labels of the device itself. Ten labels grow no tree, so here they
are given what the other transfer models have. One row is an architecture on a device: structural
features of the architecture, and the device as the logarithms of its values on the sampled
architectures. The trees learn from the known devices, whose values on those same architectures
stand in their rows, together with the samples; then they answer for the new device. With many
samples they become the papers' baseline. No uncertainty.

Trees are grown in `adapt`, because which architectures describe a device is known only then.

Source: HW-PR-NAS, Table 3. Differs from the paper: conditioned on the device, see above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import MissingExtraError, ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors._samples import (
    checked_cells,
    checked_known,
    checked_samples,
)
from hwnas_sdk.predictors.encodings import FEATURE_GROUPS, structural_features
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Genotypes = NDArray[np.integer]
Regressor = Callable[[Floats], Floats]  # (n, F) -> (n,)

_GROUPS: Final = ("raw_counts", "live_counts", "structure", "raw_edges", "live_edges")
_N_DESCRIBING: Final = 10  # samples that describe a device; those beyond are rows only
_ROWS_PER_DEVICE: Final = 2000
_OWN_WEIGHT: Final = 1.0  # of all samples together, as a share of a known device's rows


def _inputs(cells: Ints) -> Floats:
    features = structural_features(cells)
    return np.concatenate([features[:, FEATURE_GROUPS[group]] for group in _GROUPS], axis=1)


@dataclass(frozen=True)
class AdaptedTrees:
    """Trees for one device."""

    regressor: Regressor
    device: Floats  # (k',) its description
    unit: float

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean, and NaN for the sd. Shapes: (n, 6) -> two (n,)."""
        mean = self._mean(checked_cells(genotypes))
        return Prediction(mean, np.full(len(mean), np.nan))

    def _mean(self, cells: Ints) -> Floats:
        if not len(cells):
            return np.empty(0)
        rows = np.concatenate([_inputs(cells), np.tile(self.device, (len(cells), 1))], axis=1)
        mean: Floats = self.unit * np.exp(self.regressor(rows))
        return mean


class _BoostedTrees(ABC):
    """What both libraries share; `_train` is theirs."""

    def __init__(self, cells: Ints, logs: Floats, seed: int) -> None:
        self.cells = cells
        self.logs = logs  # (d, n) log values over the device's typical one, NaN = not measured
        self.seed = seed
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
        """Keep the known devices, each in units of its own typical value.

        Raises: ModelError without a device, or for one without a positive value.
        """
        del on_event
        cells, columns = checked_known(genotypes, known)
        if not columns:
            raise ModelError("boosted trees need at least one known device")
        for device, column in columns.items():
            if not np.isfinite(column).any():
                raise ModelError(f"{device}: no architecture was measured")
        logs = np.log(np.stack(list(columns.values())))
        return cls(cells, logs - np.nanmedian(logs, axis=1, keepdims=True), seed)

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedTrees:
        """Grow trees that know the device by its first ten samples and learn from all.

        `rel_sd` is not used. Raises: ModelError for values that are not positive numbers.
        """
        del rel_sd
        cells, y = checked_samples(genotypes, values)
        logs = np.log(y)
        # Where known devices have the sampled architectures, the samples' typical value is that of
        # the device; else it is the samples' own.
        rows = [self._row_of.get(tuple(cell)) for cell in cells.tolist()]
        at = np.array(
            [np.full(len(self.logs), np.nan) if r is None else self.logs[:, r] for r in rows]
        )  # (k, d)
        usual = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0
                          for row in at])  # fmt: skip
        unit = float(np.median(logs - usual))
        described = slice(0, _N_DESCRIBING)
        device = (logs - unit)[described]
        regressor = self._train(*self._rows(at[described].T, cells, logs - unit, device), self.seed)
        trees = AdaptedTrees(regressor, device, float(np.exp(unit)))
        # Trees shrink towards the known devices; the samples say where the level lies.
        shift = np.median(logs - np.log(trees._mean(cells)))  # noqa: SLF001  # same module
        return AdaptedTrees(regressor, device, float(np.exp(unit + shift)))

    def _rows(
        self, described: Floats, cells: Ints, own: Floats, device: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Inputs (n, F), targets (n,) and weights (n,) of known devices and samples."""
        features = _inputs(self.cells)
        x, y, weights = [], [], []
        for number, column in enumerate(self.logs):
            measured = np.flatnonzero(np.isfinite(column))
            rng = child_rng(self.seed, "boosted rows", number)
            chosen = np.sort(rng.permutation(measured)[:_ROWS_PER_DEVICE])
            x.append(np.concatenate(
                [features[chosen], np.tile(described[number], (len(chosen), 1))], axis=1
            ))  # fmt: skip
            y.append(column[chosen])
            weights.append(np.ones(len(chosen)))
        x.append(np.concatenate([_inputs(cells), np.tile(device, (len(cells), 1))], axis=1))
        y.append(own)
        per_device = float(np.mean([len(w) for w in weights]))
        weights.append(np.full(len(cells), max(1.0, _OWN_WEIGHT * per_device / len(cells))))
        return np.concatenate(x), np.concatenate(y), np.concatenate(weights)

    @staticmethod
    @abstractmethod
    def _train(x: Floats, y: Floats, weights: Floats, seed: int) -> Regressor:
        """Shapes: (n, F) with NaN for unknown, (n,), (n,)."""


class XgboostModel(_BoostedTrees):
    """Device-conditioned XGBoost."""

    @staticmethod
    def _train(x: Floats, y: Floats, weights: Floats, seed: int) -> Regressor:
        try:
            import xgboost
        except ImportError as exc:
            raise MissingExtraError("xgboost", "trees", purpose="the model xgboost") from exc
        settings: dict[str, Any] = {
            "eta": 0.1, "max_depth": 6, "min_child_weight": 5.0, "subsample": 0.8,
            "colsample_bytree": 0.8, "seed": seed, "nthread": 1, "verbosity": 0,
        }  # fmt: skip
        trees = xgboost.train(settings, xgboost.DMatrix(x, y, weight=weights), num_boost_round=200)

        def regressor(rows: Floats) -> Floats:
            answers: Floats = trees.predict(xgboost.DMatrix(rows)).astype(np.float64)
            return answers

        return regressor


class LightgbmModel(_BoostedTrees):
    """Device-conditioned LightGBM."""

    @staticmethod
    def _train(x: Floats, y: Floats, weights: Floats, seed: int) -> Regressor:
        try:
            import lightgbm
        except ImportError as exc:
            raise MissingExtraError("lightgbm", "trees", purpose="the model lightgbm") from exc
        settings: dict[str, Any] = {
            "learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 5, "bagging_fraction": 0.8,
            "bagging_freq": 1, "feature_fraction": 0.8, "seed": seed, "num_threads": 1,
            "deterministic": True, "force_row_wise": True, "verbosity": -1,
        }  # fmt: skip
        trees = lightgbm.train(
            settings, lightgbm.Dataset(x, y, weight=weights), num_boost_round=200
        )

        def regressor(rows: Floats) -> Floats:
            answers: Floats = np.asarray(trees.predict(rows, num_threads=1), dtype=np.float64)
            return answers

        return regressor
