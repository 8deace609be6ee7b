"""Latency (or energy) of a new device from a few measurements: hierarchical Bayesian transfer.

Model, in units of the device's own scale s (a robust typical latency):

    y_i / s = x_i' w + m(x_i) * noise * eps_i,      m(x) = x' mu,   eps_i ~ N(0, 1)
    w ~ N(mu, a^2 mu mu' + (t alpha)^2 cov(known devices) + b^2 diag(group variances))

`mu` and the covariance come from the known devices' fitted weights: a new device is mostly a
mixture of known ones, at its own scale (a). The diagonal lets it differ in ways no known device
does; the group variances were learned by leave-one-device-out and leave-one-family-out prediction
among the 13 training devices (docs/design.md). How much noise the device has, how far it lies
from the known ones (t) and how much it deviates on its own (b) is not fixed but integrated over a
grid, weighted by the marginal likelihood of its measurements times a prior; the noise prior is
the spread of the known devices' residuals. Noise is relative: timing scatter grows with the time.

The grid mixture is kept as one weight mean and covariance, which are exact for the mean and the
variance of every prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, load_model, save_model
from hwnas_sdk.predictors.encodings import FEATURE_GROUPS, FEATURE_NAMES, N_FEATURES
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]

KIND: Final = "latency_prior"
SCHEMA: Final = 1
SHIPPED: Final = "nb201_latency_prior"
_FLOOR: Final = 0.05  # m(x) is held above this share of the scale
_NEGLIGIBLE: Final = 1e-4  # posterior probability below which a grid point is dropped
# Groups that are scaled to unit variance; the others keep their natural units (counts, 0/1).
_STANDARDISED: Final = ("structure", "raw_products", "live_products")


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """Hyper-parameters, chosen on the training devices only.

    Attributes:
        scale_sd: a, uncertainty of the device's scale beyond the robust estimate.
        transfer_sd: alpha, weight of the known devices' covariance.
        group_sd: feature group -> sd of a device's own deviation per feature, share of the scale.
        noise_grid: relative noise levels; `transfer_grid`: values of t; `own_grid`: values of b.
        noise_log_sd: least width of the log-normal noise prior.
        ridge: regularisation of a known device's weights, in rows.
    """

    scale_sd: float = 0.3
    transfer_sd: float = 0.8
    group_sd: Mapping[str, float] = field(
        default_factory=lambda: {
            "constant": 3.0,
            "raw_counts": 0.3,
            "live_counts": 0.03,
            "structure": 0.005,
            "live_products": 0.003,
            "raw_edges": 0.005,
            "live_edges": 0.005,
            "patterns": 0.003,
            "pattern_dead": 0.02,
        }
    )
    noise_grid: tuple[float, ...] = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16)
    transfer_grid: tuple[float, ...] = (0.5, 1.0, 2.0)
    own_grid: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    noise_log_sd: float = 1.5
    ridge: float = 3.0


@dataclass(frozen=True)
class LatencyModel:
    """One device's latency model; `scale_ms` turns shares into milliseconds."""

    prior: LatencyPrior
    weights: Floats  # (F,)
    covariance: Floats  # (F, F)
    noise_variance: float  # of the relative noise
    scale_ms: float
    n_samples: int

    @property
    def noise_rel(self) -> float:
        """Estimated relative noise of one measurement (root mean square over the grid)."""
        return float(np.sqrt(self.noise_variance))

    def predict(self, features: Floats) -> Prediction:
        """Mean and sd of a measured latency, noise included.

        Shapes: features (n, F) -> two (n,). Unit: that of the measurements (ms).
        """
        x = self.prior.standardise(features)
        mean = x @ self.weights
        variance = np.einsum("nf,nf->n", x @ self.covariance, x)
        typical = self.prior.typical(x)
        variance = np.maximum(variance, 0.0) + self.noise_variance * typical**2
        return Prediction(mean * self.scale_ms, np.sqrt(variance) * self.scale_ms)


@dataclass(frozen=True)
class LatencyPrior:
    """What the known devices teach about any device.

    Shapes: center, scale, mean (F,); deviations (n_devices, F), already weighted so that
    deviations' deviations is their covariance.
    """

    center: Floats
    scale: Floats
    mean: Floats
    deviations: Floats
    log_noise_mean: float
    log_noise_sd: float
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
        center, scale = _standardisation(x_all[live])
        x = (x_all - center) * scale
        weights, residuals, scales = [], [], []
        solvers: dict[bytes, _Ridge] = {}  # devices mostly share their measured rows
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
                solvers[key] = _Ridge(x[rows], chosen.ridge)
            w, residual = solvers[key].fit(y[rows] / typical)
            weights.append(w)
            residuals.append(residual)
            scales.append(np.log(typical))
        matrix = np.stack(weights)
        mean = matrix.mean(axis=0)
        noise = np.log(np.maximum(residuals, min(chosen.noise_grid)))
        return cls(
            center=center,
            scale=scale,
            mean=mean,
            deviations=(matrix - mean) / np.sqrt(len(matrix)),
            log_noise_mean=float(noise.mean()),
            log_noise_sd=max(float(noise.std()), chosen.noise_log_sd),
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
        typical = self.typical(x)
        scale = float(np.exp(np.median(np.log(y / typical))))
        spread = typical.copy()
        if rel_sd is not None:
            known = np.asarray(rel_sd, dtype=np.float64)
            if known.shape != y.shape or not np.isfinite(known).all() or (known < 0).any():
                raise ModelError("latency model: rel_sd must hold one number >= 0 per measurement")
            # Exact at the prior's median noise, an approximation at the other grid points.
            spread *= np.sqrt(1.0 + (known / np.exp(self.log_noise_mean)) ** 2)
        weights, covariance, noise = _condition(self, x / spread[:, None], y / scale / spread)
        return LatencyModel(self, weights, covariance, noise, scale, len(y))

    def _unconditioned(self) -> LatencyModel:
        outer = (1.0 + self.log_scale_sd**2) * np.outer(self.mean, self.mean)
        covariance = (
            outer + self.covariance() - self.settings.scale_sd**2 * np.outer(self.mean, self.mean)
        )
        noise = float(np.exp(2 * self.log_noise_mean))
        scale = float(np.exp(self.log_scale_mean))
        return LatencyModel(self, self.mean, covariance, noise, scale, 0)

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

    def covariance(self, *, transfer: float = 1.0, own: float = 1.0) -> Floats:
        """Prior covariance of the weights at one grid point, (F, F)."""
        known = transfer * self.settings.transfer_sd * self.deviations
        scale = self.settings.scale_sd * self.mean
        total: Floats = known.T @ known + np.outer(scale, scale)
        total[np.diag_indices_from(total)] += own**2 * self.own_variance()
        return total

    def covariance_root(self) -> Floats:
        """A matrix R, (F, r), with R R' = `covariance()`."""
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
                "log_noise": [self.log_noise_mean, self.log_noise_sd],
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
        }
        return save_model(path, tensors, card)

    @classmethod
    def load(cls, path: Path) -> LatencyPrior:
        """Read a prior. Raises: ModelError for another kind, space, schema or a damaged file."""
        tensors, card = load_model(path, kind=KIND, space="nasbench201", schema=SCHEMA)
        values = dict(card.settings)
        try:
            log_noise, log_scale = values.pop("log_noise"), values.pop("log_scale")
            devices, n_features = tuple(values.pop("devices")), values.pop("features")
            settings = PriorSettings(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            )
            prior = cls(
                **{k: tensors[k] for k in ("center", "scale", "mean", "deviations")},
                log_noise_mean=log_noise[0],
                log_noise_sd=log_noise[1],
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


def _checked(features: Floats) -> Floats:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != N_FEATURES:
        raise ModelError(f"expected features of shape (n, {N_FEATURES}), got {x.shape}")
    return x


def _standardisation(x: Floats) -> tuple[Floats, Floats]:
    """Centre and factor per feature; features that do not vary get factor 0, the constant 1."""
    center = x.mean(axis=0)
    sd = x.std(axis=0)
    varies = sd > 1e-9
    scale = varies.astype(np.float64)
    for group in _STANDARDISED:
        part = FEATURE_GROUPS[group]
        scale[part] = np.where(varies[part], 1.0 / np.maximum(sd[part], 1e-9), 0.0)
    constant = FEATURE_GROUPS["constant"]
    center[constant], scale[constant] = 0.0, 1.0
    return center, scale


class _Ridge:
    """Ridge regression of several targets on the same rows; the constant is free."""

    def __init__(self, x: Floats, ridge: float) -> None:
        penalty = np.full(x.shape[1], ridge)
        penalty[FEATURE_GROUPS["constant"]] = 1e-6
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += penalty
        self._x = x
        self._factor = linalg.cho_factor(gram, lower=True)

    def fit(self, y: Floats) -> tuple[Floats, float]:
        """Weights, and the standard deviation of the residual."""
        weights: Floats = linalg.cho_solve(self._factor, self._x.T @ y)
        return weights, float(np.std(y - self._x @ weights))


def _condition(prior: LatencyPrior, x: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    """Posterior of the weights, averaged over the grid, from whitened rows (noise = sigma).

    Returns weights (F,), covariance (F, F) and the mean noise variance.
    """
    settings = prior.settings
    n_samples = len(y)
    lost = 0.0  # squared length of what compression removes: pure noise
    residual = y - x @ prior.mean
    if n_samples > x.shape[1]:
        # More rows than features: an orthogonal change of rows keeps all that the weights see.
        q, x = np.linalg.qr(x)
        short = q.T @ residual
        lost = max(float(residual @ residual - short @ short), 0.0)
        residual = short
    n_lost = n_samples - len(residual)
    log_noise = np.log(settings.noise_grid)
    log_prior = -0.5 * ((log_noise - prior.log_noise_mean) / prior.log_noise_sd) ** 2
    grid: list[tuple[float, float, float, Floats, Floats, Floats]] = []
    for transfer in settings.transfer_grid:
        for own in settings.own_grid:
            cx = prior.covariance(transfer=transfer, own=own) @ x.T  # (F, k)
            values, vectors = linalg.eigh(x @ cx)
            values = np.maximum(values, 0.0)
            along = vectors.T @ residual
            for log_sd, log_p in zip(log_noise, log_prior, strict=True):
                total = values + np.exp(2 * log_sd)
                evidence = -0.5 * float((along**2 / total).sum() + np.log(total).sum())
                evidence -= n_lost * log_sd + 0.5 * lost * np.exp(-2 * log_sd)
                grid.append((evidence + log_p, transfer, own, cx @ vectors, along / total, total))
    log_p_all = np.array([point[0] for point in grid])
    probability = np.exp(log_p_all - log_p_all.max())
    probability /= probability.sum()
    noise_variances = np.tile(np.exp(2 * log_noise), len(grid) // len(log_noise))
    kept = [i for i, p in enumerate(probability) if p > _NEGLIGIBLE]
    share = probability[kept] / probability[kept].sum()
    means = np.stack([grid[i][3] @ grid[i][4] for i in kept])
    shift = share @ means
    covariance = (means - shift).T * share @ (means - shift)
    for p, i in zip(share, kept, strict=True):
        _, transfer, own, gain, _, total = grid[i]
        covariance += p * (prior.covariance(transfer=transfer, own=own) - gain / total @ gain.T)
    return prior.mean + shift, covariance, float(share @ noise_variances[kept])
