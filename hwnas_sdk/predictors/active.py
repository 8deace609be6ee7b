"""Which network to measure next, given what was measured: the active reference set.

The next one is the candidate whose measurement is expected to take most off the uncertainty about
typical networks: the summed relative variance of a fixed sample of targets falls by
cov(target, candidate)^2 / (var(candidate) + noise^2). The posterior integrates over how noisy the
device is and how far from the known ones, so the choice depends on the values seen so far. The
first `N_START` are the designed references, since without a value there is no scale to be
uncertain about.

Everything is determined by the measurements and the seed: a search that was interrupted chooses
the same networks again.

It ends on a precision: how far the latency of a typical network lies from its prediction. Scatter
that the measurements' own intervals do not explain counts in full, because with a few networks
nobody can tell a noisy device from one the model does not fit. Among the 13 training devices left
out one at a time, that agreed with the error better than the doubt about the mean alone, the same
times the size of leave-one-out or one-step-ahead residuals, and the same times 1.5.

Source: integrated variance (I-optimality; Cohn 1996).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.latency_model import LatencyModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_START: Final = 5
MIN_NETWORKS: Final = 10
"""No precision is believed before this many networks are measured."""

_N_TARGETS: Final = 512
_N_CANDIDATES: Final = 2048
_LEAST_MS: Final = 1e-12


def next_network(
    posterior: LatencyModel, features: Floats, *, eligible: Bools, seed: int = 0
) -> int:
    """Row of the network to measure next.

    Args:
        posterior: adapted to what was measured so far.
        features: of n networks, (n, F).
        eligible: which may be measured: live ones that were not yet, (n,).
        seed: of the targets and candidates that are looked at.

    Raises: ConfigError when none is eligible.
    """
    allowed = np.flatnonzero(eligible)
    if not len(allowed):
        raise ConfigError("no network is left to measure")
    targets = _relative(posterior, features[_targets(eligible, seed)])
    rng = child_rng(seed, "active candidates", posterior.n_samples)
    chosen = np.sort(rng.permutation(allowed)[:_N_CANDIDATES])
    candidates = _relative(posterior, features[chosen])
    shared = targets @ posterior.covariance @ candidates.T  # (targets, candidates)
    variance = np.einsum("nf,fg,ng->n", candidates, posterior.covariance, candidates, optimize=True)
    gain = (shared**2).sum(axis=0) / (np.maximum(variance, 0.0) + posterior.noise_variance)
    return int(chosen[int(gain.argmax())])


def uncertainty_pct(
    posterior: LatencyModel, features: Floats, *, eligible: Bools, seed: int = 0
) -> float:
    """Median relative standard deviation of typical networks' latency, in percent.

    It is that of the latency itself, with what the model does not explain of it, and without the
    error of one more measurement that its interval states. Shapes: as above.
    """
    prediction = posterior.predict(features[_targets(eligible, seed)])
    return float(100.0 * np.median(prediction.sd / np.maximum(prediction.mean, _LEAST_MS)))


def _targets(eligible: Bools, seed: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(eligible)
    if not len(rows):
        raise ConfigError("no network to be uncertain about")
    return np.sort(child_rng(seed, "active targets").permutation(rows)[:_N_TARGETS])


def _relative(posterior: LatencyModel, features: Floats) -> Floats:
    """Standardised features over the typical latency: noise is then of one size, (n, F)."""
    x = posterior.prior.standardise(features)
    relative: Floats = x / posterior.prior.typical(x)[:, None]
    return relative
