"""Latency (or energy) of a new device from a few measurements: hierarchical Bayesian transfer.

Model, in units of the device's own scale s (a robust typical latency):

    y_i / s = x_i' w + m(x_i) * noise * eps_i,      m(x) = x' mu,   eps_i ~ N(0, 1)
    w ~ N(mu, a^2 mu mu' + (t alpha)^2 cov(known devices) + b^2 diag(group variances)),   or
    w ~ N(mu, a^2 mu mu' + b0^2 diag(group variances)
              + c^2 diag(1 for counts of operators, its group variance for the constant, else 0))

`mu` and the covariance come from the known devices' fitted weights: a new device is mostly a
mixture of known ones, at its own scale (a). The diagonal lets it differ in ways no known device
does; the group variances were learned by leave-one-device-out and leave-one-family-out prediction
among the 13 training devices (docs/design.md). The second line is a device like none of them that
is a sum of costs per operator, but for a little (b0). How much noise the device has, how far it
lies from the known ones (t), how much it deviates on its own (b) and what a sum may cost (c) is not
fixed but integrated over a grid, weighted by the marginal likelihood of its measurements times a
prior. The noise prior is that of the known devices whose references look alike, and wide for a
device unlike all of them.
Noise is relative: timing scatter grows with the time. Disturbed measurements, and networks from
which a converter removed dead operators, are averaged out, see `_posterior`. A device whose values
are exactly a sum of costs per operator (a simulator) is recognised and answered: see `_additive`.

The grid mixture is kept as one weight mean and covariance, which are exact for the mean and the
variance of every prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors._additive import EXACT_REL, RESOLUTION, exact_posterior
from hwnas_sdk.predictors._posterior import (
    Posterior,
    PriorParts,
    PriorSettings,
    condition,
)
from hwnas_sdk.predictors._ridge import Ridge, standardisation
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, load_model, save_model
from hwnas_sdk.predictors.encodings import FEATURE_GROUPS, FEATURE_NAMES, N_FEATURES
from hwnas_sdk.predictors.latency_model import LatencyModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KIND: Final = "latency_prior"
SCHEMA: Final = 2
SHIPPED: Final = "nb201_latency_prior"
_TENSORS: Final = ("center", "scale", "mean", "deviations", "log_noises")
_MAD: Final = 0.6745  # median absolute deviation of a standard normal variable
_UNLIKE: Final = 0.3  # weight of a device like none, where a known one at distance 0 has 1
_SCALE_QUANTILES: Final = (0.5, 0.25, 0.75)
_CLEARLY_BETTER: Final = 3.0  # log of the evidence ratio that makes another scale than the middle
# No public column has a live network below .23 times the fastest of ten; this is well under it.
_LEAST_SHARE: Final = 0.1
_FLOOR: Final = 0.05  # m(x) is held above this share of the scale


@dataclass(frozen=True)
class LatencyPrior:
    """What the known devices teach about any device.

    Shapes: center, scale, mean (F,); deviations (n_devices, F), already weighted so that
    deviations' deviations is their covariance; log_noises (n_devices,), of the known devices.
    """

    center: Floats
    scale: Floats
    mean: Floats
    deviations: Floats
    log_noises: Floats
    log_scale_mean: float
    log_scale_sd: float
    devices: tuple[str, ...]
    settings: PriorSettings

    # --- learning from known devices ------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        features: Floats,
        latencies: Mapping[str, Floats],
        *,
        settings: PriorSettings | None = None,
    ) -> LatencyPrior:
        """Fit the prior on known devices.

        Args:
            features: `structural_features` of n cells; dead cells are ignored.
            latencies: device -> (n,) latencies, NaN = not measured. Any one unit per device.
            settings: hyper-parameters; None = the shipped choice.

        Raises: ModelError without a device, or for a device with fewer than 2 usable rows.
        """
        chosen = settings or PriorSettings()
        x_all = _checked(features)
        live = x_all[:, FEATURE_GROUPS["live_counts"]].sum(axis=1) > 0
        if not latencies:
            raise ModelError("a latency prior needs at least one known device")
        if not live.any():
            raise ModelError("a latency prior needs at least one live cell")
        center, scale = standardisation(x_all[live])
        x = (x_all - center) * scale
        weights, scales = [], []
        solvers: dict[bytes, Ridge] = {}  # devices mostly share their measured rows
        used: list[tuple[Bools, Floats]] = []
        for device, values in latencies.items():
            y = np.asarray(values, dtype=np.float64)
            if y.shape != (len(x),):
                raise ModelError(f"{device}: {y.shape} latencies for {len(x)} cells")
            rows = live & np.isfinite(y) & (y > 0)
            if rows.sum() < 2:
                raise ModelError(f"{device}: fewer than 2 measured live cells")
            typical = float(np.median(y[rows]))
            key = rows.tobytes()
            if key not in solvers:
                solvers[key] = Ridge(x[rows], chosen.ridge)
            weights.append(solvers[key].fit(y[rows] / typical))
            used.append((rows, y[rows] / typical))
            scales.append(np.log(typical))
        matrix = np.stack(weights)
        mean = matrix.mean(axis=0)
        noises = [
            _robust_noise((y - x[rows] @ w) / np.maximum(x[rows] @ mean, _FLOOR))
            for (rows, y), w in zip(used, matrix, strict=True)
        ]
        return cls(
            center=center,
            scale=scale,
            mean=mean,
            deviations=(matrix - mean) / np.sqrt(len(matrix)),
            log_noises=np.log(np.maximum(noises, min(chosen.noise_grid))),
            log_scale_mean=float(np.mean(scales)),
            log_scale_sd=max(float(np.std(scales)), 1.0),
            devices=tuple(latencies),
            settings=chosen,
        )

    # --- a new device ---------------------------------------------------------------------------

    def adapt(
        self, features: Floats, latency_ms: Floats, rel_sd: Floats | None = None
    ) -> LatencyModel:
        """Condition on measurements of a new device.

        Args:
            features: of the k measured cells, (k, F); k = 0 gives the prior itself, whose ranking
                is usable and whose milliseconds are not.
            latency_ms: (k,), all positive.
            rel_sd: known relative standard error of each measurement, (k,), or None.

        Raises: ModelError for values that are not positive and finite, or shapes that differ.
        """
        x = self.standardise(features)
        y = np.asarray(latency_ms, dtype=np.float64)
        if y.shape != (len(x),) or not (np.isfinite(y).all() and (y > 0).all()):
            raise ModelError(
                "latency model: every measurement must be a positive number",
                hint="leave out what was not measured",
            )
        if not len(x):
            return self._unconditioned()
        if rel_sd is None:
            known = np.zeros(len(y))
        else:
            known = np.asarray(rel_sd, dtype=np.float64)
            if known.shape != y.shape or not np.isfinite(known).all() or (known < 0).any():
                raise ModelError("latency model: rel_sd must hold one number >= 0 per measurement")
        # Where some cells are much dearer than on any known device, the middle of the ratios may
        # lie on either side: the evidence decides between scales (it has one factor s per row).
        ratios = np.log(y / self.typical(x))
        scales = np.exp(np.quantile(ratios, _SCALE_QUANTILES))  # the middle one first
        posterior, scale = None, float(scales[0])
        if known.max() <= EXACT_REL:  # values that may be off by more cannot show an exact sum
            unscaled = np.asarray(features, dtype=np.float64)
            posterior = exact_posterior(
                unscaled, y, scale=scale, mean=self.mean, center=self.center, stretch=self.scale
            )
        resolution = 0.0 if posterior is None else RESOLUTION
        if posterior is None:
            foldable = np.asarray(features)[:, FEATURE_NAMES.index("dead_edges")] > 0
            answers = [self._at_scale(x, y, known, foldable, float(s)) for s in scales]
            evidence = np.array([answer.log_evidence for answer in answers])
            evidence -= len(y) * np.log(scales)
            evidence[0] += _CLEARLY_BETTER
            best = int(np.argmax(evidence))
            posterior, scale = answers[best], float(scales[best])
        return LatencyModel(
            self,
            self.mean + posterior.shift,
            posterior.covariance,
            posterior.noise_variance,
            scale,
            len(y),
            posterior.outlier_probability,
            resolution,
            _LEAST_SHARE * float(y.min()) / scale,
        )

    def _at_scale(
        self, x: Floats, y: Floats, rel_sd: Floats, foldable: Bools, scale: float
    ) -> Posterior:
        """Posterior with `scale` as the unit. Shapes: x (k, F), the others (k,)."""
        typical = self.typical(x)
        log_noise = self.noise_prior(x, y / scale / typical)
        # Exact at the prior's median noise, an approximation at the other grid points.
        factor = np.sqrt(1.0 + (rel_sd / np.exp(log_noise[0])) ** 2)
        spread = typical * factor
        rows = x / spread[:, None]  # whitened: every row has the same noise
        return condition(
            self.covariance_parts,
            rows,
            y / scale / spread - rows @ self.mean,
            settings=self.settings,
            log_noise=log_noise,
            log_factor=np.log(factor),
            foldable=foldable,
        )

    def noise_prior(self, standardised: Floats, relative: Floats) -> tuple[float, float]:
        """Mean and sd of the log noise expected of a device.

        Args:
            standardised: features of the measured cells, (k, F).
            relative: their latencies over scale and typical latency, (k,).

        Devices alike in their references are alike in their noise: each known device counts by
        how near it is, and beside them one that is like none of them.
        """
        settings = self.settings
        every = self.mean + np.sqrt(len(self.deviations)) * self.deviations  # (n_devices, F)
        shares = standardised @ every.T / self.typical(standardised)[:, None]
        shares /= np.exp(np.median(np.log(np.maximum(shares, _FLOOR)), axis=0))
        distance = np.median(np.abs(shares - relative[:, None]), axis=0) / _MAD
        near = np.exp(-0.5 * (distance / settings.kin_distance) ** 2)
        overall = float(self.log_noises.mean())
        weight = np.append(near, _UNLIKE) / (near.sum() + _UNLIKE)
        center = np.append(self.log_noises, overall)
        sd = np.append(np.full(len(near), settings.kin_log_sd), settings.noise_log_sd)
        mean = float(weight @ center)
        return mean, float(np.sqrt(weight @ (sd**2 + (center - mean) ** 2)))

    def _unconditioned(self) -> LatencyModel:
        # The mean stands for a device of unknown scale: its variance is mostly that of the scale.
        unscaled = (1.0 + self.log_scale_sd**2) * np.outer(self.mean, self.mean)
        covariance = unscaled + self.covariance_parts.known + self.covariance_parts.own
        noise = float(np.exp(2 * self.log_noises.mean()))
        scale = float(np.exp(self.log_scale_mean))
        return LatencyModel(self, self.mean, covariance, noise, scale, 0, np.empty(0))

    # --- pieces ---------------------------------------------------------------------------------

    def standardise(self, features: Floats) -> Floats:
        """Centred and scaled features, (n, F) -> (n, F)."""
        x: Floats = (_checked(features) - self.center) * self.scale
        return x

    def typical(self, standardised: Floats) -> Floats:
        """m(x): latency of the average known device as a share of its scale, (n,), positive."""
        values: Floats = np.maximum(standardised @ self.mean, _FLOOR)
        return values

    @property
    def n_features(self) -> int:
        """F, the number of columns of the features it takes."""
        return len(self.mean)

    def own_variance(self) -> Floats:
        """Variance of a device's own deviation per weight at b = 1, (F,)."""
        variance = np.zeros(len(self.mean))
        for group, sd in self.settings.group_sd.items():
            variance[FEATURE_GROUPS[group]] = sd**2
        variance[self.scale == 0.0] = 0.0
        return variance

    @cached_property
    def covariance_parts(self) -> PriorParts:
        """Prior covariance of the weights, taken apart by what scales it, (F, F) each."""
        known = self.settings.transfer_sd * self.deviations
        scale = self.settings.scale_sd * self.mean
        return PriorParts(
            np.outer(scale, scale),
            known.T @ known,
            np.diag(self.own_variance()),
            np.diag(self._sums_variance()),
        )

    def _sums_variance(self) -> Floats:
        """Variance per weight, (F,), of a device that is a sum of costs per operator, at c = 1."""
        variance = np.zeros(len(self.mean))
        variance[FEATURE_GROUPS["constant"]] = self.settings.group_sd["constant"] ** 2
        for group in ("raw_counts", "live_counts"):
            variance[FEATURE_GROUPS[group]] = 1.0
        variance[self.scale == 0.0] = 0.0
        return variance

    def covariance_root(self) -> Floats:
        """A matrix R, (F, r), with R R' the prior covariance at t = b = 1, c = 0."""
        variance = self.own_variance()
        diagonal = np.diag(np.sqrt(variance))[:, variance > 0]
        scale = self.settings.scale_sd * self.mean[:, None]
        known = self.settings.transfer_sd * self.deviations.T
        return np.concatenate([scale, known, diagonal], axis=1)

    # --- files ----------------------------------------------------------------------------------

    def save(
        self, path: Path, *, data: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
    ) -> Card:
        """Write weights (.safetensors) and card (.json); returns the card."""
        card = Card(
            name=path.stem,
            kind=KIND,
            space="nasbench201",
            schema=SCHEMA,
            data=data,
            metrics=metrics or {},
            settings={
                **asdict(self.settings),
                "log_scale": [self.log_scale_mean, self.log_scale_sd],
                "devices": list(self.devices),
                "features": len(FEATURE_NAMES),
            },
        )
        tensors = {
            "center": self.center,
            "scale": self.scale,
            "mean": self.mean,
            "deviations": self.deviations,
            "log_noises": self.log_noises,
        }
        return save_model(path, tensors, card)

    @classmethod
    def load(cls, path: Path) -> LatencyPrior:
        """Read a prior. Raises: ModelError for another kind, space, schema or a damaged file."""
        tensors, card = load_model(path, kind=KIND, space="nasbench201", schema=SCHEMA)
        values = dict(card.settings)
        try:
            log_scale = values.pop("log_scale")
            devices, n_features = tuple(values.pop("devices")), values.pop("features")
            arguments: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            arguments.setdefault("sums_grid", ())  # it was made before there was one
            settings = PriorSettings(**arguments)
            prior = cls(
                **{k: tensors[k] for k in _TENSORS},
                log_scale_mean=log_scale[0],
                log_scale_sd=log_scale[1],
                devices=devices,
                settings=settings,
            )
        except (KeyError, TypeError, IndexError) as exc:
            raise ModelError(f"{path.name}: incomplete latency prior: {exc}") from exc
        if n_features != N_FEATURES or prior.mean.shape != (N_FEATURES,):
            raise ModelError(f"{path.name} was made for other features", code="other_schema")
        return prior

    @classmethod
    def shipped(cls) -> LatencyPrior:
        """The packaged prior, fitted on the 13 public training devices."""
        return cls.load(WEIGHTS_FOLDER / f"{SHIPPED}.safetensors")


def _robust_noise(residuals: Floats) -> float:
    """Standard deviation of most residuals, whatever a few disturbed ones are."""
    return float(np.quantile(np.abs(residuals), 0.8)) / 1.2816


def _checked(features: Floats) -> Floats:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != N_FEATURES:
        raise ModelError(f"expected features of shape (n, {N_FEATURES}), got {x.shape}")
    return x
