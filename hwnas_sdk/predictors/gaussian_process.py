"""Gaussian process over blocks of features, with a Matern-3/2 kernel and one weight per block.

k(a, b) = v (1 + r) exp(-r) + c,   r = sqrt(3 sum_i w_i d_i(a, b)^2),

where d_i is the distance in block i, scaled by its median over the labels. Weights, variance,
noise and constant maximise the marginal likelihood times weak log-normal priors.
Source: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4, 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

Floats = NDArray[np.float64]
Blocks = tuple[Floats, ...]

_MAX_FOR_TUNING: Final = 500  # labels the hyper-parameters are fitted on; the process uses all
_JITTER: Final = 1e-8
_CHUNK: Final = 2048  # predictions at once; keeps memory small with thousands of labels
_WEIGHT_PRIOR: Final = (-1.5, 1.5)  # of log w_i: mean, sd
_VARIANCE_PRIOR: Final = (0.0, 1.5)
_NOISE_PRIOR: Final = (-1.8, 0.8)  # of the log noise sd, targets having sd 1
_CONSTANT_PRIOR: Final = (0.0, 2.0)


def _squared_distances(a: Floats, b: Floats) -> Floats:
    d: Floats = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.maximum(d, 0.0)


def _kernel(theta: Floats, distances: list[Floats]) -> Floats:
    """Shapes: theta (n_blocks + 3,), distances n_blocks of (n, m) -> (n, m)."""
    n = len(distances)
    total = sum((np.exp(w) * d for w, d in zip(theta[:n], distances, strict=True)), np.zeros(()))
    r = np.sqrt(3.0 * total + 1e-12)
    values: Floats = np.exp(theta[n]) * (1.0 + r) * np.exp(-r) + np.exp(theta[n + 2])
    return values


@dataclass(frozen=True)
class BlockProcess:
    """A fitted process; targets are standardised with `shift` and `scale`."""

    blocks: Blocks
    medians: tuple[float, ...]
    theta: Floats  # log block weights, log variance, log noise sd, log constant
    factor: Floats  # lower Cholesky factor of the labels' covariance
    coefficients: Floats
    shift: float
    scale: float

    @classmethod
    def fit(cls, blocks: Blocks, target: Floats) -> BlockProcess:
        """Fit on n labels. Shapes: blocks of (n, F_i), target (n,)."""
        return cls._made(blocks, target, None)

    @classmethod
    def condition(cls, blocks: Blocks, target: Floats, theta: Floats) -> BlockProcess:
        """Condition on n labels with known hyper-parameters, those `fit` would have found."""
        return cls._made(blocks, target, np.asarray(theta, dtype=np.float64))

    @classmethod
    def _made(cls, blocks: Blocks, target: Floats, theta: Floats | None) -> BlockProcess:
        n = len(target)
        shift, scale = float(np.median(target)), float(target.std()) or 1.0
        y = (target - shift) / scale
        distances = [_squared_distances(block, block) for block in blocks]
        medians = tuple(max(float(np.median(d)), 1e-9) for d in distances)
        distances = [d / m for d, m in zip(distances, medians, strict=True)]
        if theta is None:
            few = np.linspace(0, n - 1, min(n, _MAX_FOR_TUNING)).round().astype(np.int64)
            theta = _tune([d[np.ix_(few, few)] for d in distances], y[few])
        covariance = _kernel(theta, distances)
        covariance[np.diag_indices(n)] += np.exp(2 * theta[-2]) + _JITTER
        factor = linalg.cholesky(covariance, lower=True)
        coefficients = linalg.cho_solve((factor, True), y)
        return cls(blocks, medians, theta, factor, coefficients, shift, scale)

    def leave_one_out(self) -> Floats:
        """Error of predicting each label from all others, in its own predicted sd, (n,).

        Source: Rasmussen & Williams (2006), section 5.4.2.
        """
        inverse = linalg.cho_solve((self.factor, True), np.eye(len(self.factor)))
        residuals: Floats = self.coefficients / np.sqrt(np.diag(inverse))
        return residuals

    def predict(self, blocks: Blocks) -> tuple[Floats, Floats]:
        """Mean and sd of a new label, noise included, two (m,)."""
        n = len(blocks[0])
        parts = [
            self._predict(tuple(block[start : start + _CHUNK] for block in blocks))
            for start in range(0, n, _CHUNK)
        ]
        if not parts:
            return np.zeros(0), np.zeros(0)
        means, sds = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(sds)

    def _predict(self, blocks: Blocks) -> tuple[Floats, Floats]:
        # One block in which every distance is weighted already: a single product instead of many.
        stretch = np.sqrt(np.exp(self.theta[: len(blocks)]) / np.array(self.medians))
        new, old = (
            np.concatenate([b * s for b, s in zip(side, stretch, strict=True)], axis=1)
            for side in (blocks, self.blocks)
        )
        unweighted = np.concatenate([[0.0], self.theta[len(blocks) :]])
        cross = _kernel(unweighted, [_squared_distances(new, old)])
        explained = linalg.solve_triangular(self.factor, cross.T, lower=True)
        prior = np.exp(self.theta[-3]) + np.exp(self.theta[-1]) + np.exp(2 * self.theta[-2])
        variance = np.maximum(prior - (explained**2).sum(axis=0), _JITTER)
        mean = self.shift + self.scale * (cross @ self.coefficients)
        return mean, self.scale * np.sqrt(variance)


def _tune(distances: list[Floats], y: Floats) -> Floats:
    """Hyper-parameters of greatest posterior density, (n_blocks + 3,)."""
    n_blocks = len(distances)
    priors = [_WEIGHT_PRIOR] * n_blocks + [_VARIANCE_PRIOR, _NOISE_PRIOR, _CONSTANT_PRIOR]
    center, width = np.array(priors).T

    def cost(theta: Floats) -> tuple[float, Floats]:
        value, gradient = _negative_evidence(theta, distances, y)
        off = (theta - center) / width
        return value + 0.5 * float((off**2).sum()), gradient + off / width

    start = np.array([-1.0] * n_blocks + [0.0, -1.8, 0.0])
    bounds = [(-8.0, 4.0)] * n_blocks + [(-3.0, 5.0), (-4.0, 1.0), (-4.0, 4.0)]
    found = optimize.minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    )
    best: Floats = found.x
    return best


def _negative_evidence(theta: Floats, distances: list[Floats], y: Floats) -> tuple[float, Floats]:
    """Minus the log marginal likelihood (but for a constant), and its gradient (n_blocks + 3,).

    Source: Rasmussen & Williams (2006), equations 5.8 and 5.9.
    """
    n_blocks, n = len(distances), len(y)
    kernel = _kernel(theta, distances)
    noise = np.exp(2 * theta[-2])
    covariance = kernel + (noise + _JITTER) * np.eye(n)
    try:
        factor = linalg.cholesky(covariance, lower=True)
    except linalg.LinAlgError:
        return 1e6, np.zeros(n_blocks + 3)
    inverse = linalg.cho_solve((factor, True), np.eye(n))
    coefficients = inverse @ y
    value = 0.5 * float(y @ coefficients) + float(np.log(np.diag(factor)).sum())
    slope = 0.5 * (inverse - np.outer(coefficients, coefficients))  # d value / d covariance
    constant = np.exp(theta[n_blocks + 2])
    weights = np.exp(theta[:n_blocks])
    total = sum((w * d for w, d in zip(weights, distances, strict=True)), np.zeros(()))
    # d k / d log w_i = -v exp(-r) 3/2 w_i d_i
    falling = slope * (-1.5 * np.exp(theta[n_blocks] - np.sqrt(3.0 * total + 1e-12)))
    gradient = [w * float((falling * d).sum()) for w, d in zip(weights, distances, strict=True)]
    gradient.append(float((slope * (kernel - constant)).sum()))
    gradient.append(2.0 * noise * float(np.trace(slope)))
    gradient.append(constant * float(slope.sum()))
    return value, np.array(gradient)
