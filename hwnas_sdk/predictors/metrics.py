"""How good a prediction is: rank correlation with its ties, percentage errors, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Z_90 = 1.6448536269514722  # half-width of a 90 % normal interval in standard deviations
_COARSE = 0.01  # share of the median from which on a step of readings matters
_WHOLE = 1e-6
_LEAST_STEP = 1e-30  # keeps steps of denormal numbers from never ending
_FLOAT32 = 2e-7  # relative error of values that were stored in 32 bits


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    a, b = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"expected two vectors of one length, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("correlations and errors need finite values; drop what is not measured")
    return a, b


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float | None:
    """Spearman's rho (mid-ranks for ties); None when either side is constant or n < 2.

    Shapes: (n,), (n,).
    """
    a, b = _pair(truth, predicted)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    ranks = np.stack([stats.rankdata(a), stats.rankdata(b)])
    return float(np.corrcoef(ranks)[0, 1])


def kendall(truth: ArrayLike, predicted: ArrayLike) -> float | None:
    """Kendall's tau-b; None when either side is constant or n < 2. Shapes: (n,), (n,)."""
    a, b = _pair(truth, predicted)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.kendalltau(a, b).statistic)


def tied_pairs(values: ArrayLike) -> int:
    """Number of pairs with equal values. Shape: (n,)."""
    _, counts = np.unique(np.asarray(values), return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def kendall_ceiling(truth: ArrayLike) -> float | None:
    """Largest tau-b that a prediction without ties can reach against this truth.

    With n0 pairs, n1 of them tied in the truth, tau-b = (C - D) / sqrt((n0 - n1) (n0 - 0)), and at
    best C = n0 - n1, D = 0: the ceiling is sqrt((n0 - n1) / n0). It is a bound that follows from
    quantisation alone; measurement noise lowers what can be reached further.
    """
    n = np.asarray(truth).size
    n_pairs = n * (n - 1) // 2
    if n_pairs == 0:
        return None
    return float(np.sqrt((n_pairs - tied_pairs(truth)) / n_pairs))


def reading_step(values: ArrayLike) -> float | None:
    """Power of ten that all values are multiples of, such as whole milliseconds.

    None for a step below 1 % of the median: so fine a one hides no difference that matters.
    Shape: (n,).
    """
    given = np.abs(np.asarray(values, dtype=np.float64))
    given = given[given > 0]
    if not given.size:
        return None
    exponent = int(np.floor(np.log10(given.min())))
    while (step := 10.0**exponent) >= max(_COARSE * float(np.median(given)), _LEAST_STEP):
        counts = given / step
        off = np.abs(counts - np.round(counts))
        if (off <= _WHOLE + _FLOAT32 * counts).all():
            return step
        exponent -= 1
    return None


def kendall_rounded(truth: ArrayLike, predicted: ArrayLike) -> float | None:
    """tau-b of a prediction rounded to the `reading_step` of the truth; None without a step.

    A device that reports whole milliseconds ties what differs by less. A prediction that ties
    there too is rewarded by tau-b, and one that does not is punished; rounding makes both alike.
    Shapes: (n,), (n,).
    """
    step = reading_step(truth)
    if step is None:
        return None
    return kendall(truth, np.round(np.asarray(predicted, dtype=np.float64) / step))


def absolute_percentage_errors(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.float64]:
    """100 |p - t| / |t| where t is not 0. Shape: (number of non-zero truths,). Unit: percent."""
    a, b = _pair(truth, predicted)
    kept = a != 0
    errors: NDArray[np.float64] = 100.0 * np.abs(b[kept] - a[kept]) / np.abs(a[kept])
    return errors


def coverage(truth: ArrayLike, predicted: ArrayLike, sd: ArrayLike, *, z: float = Z_90) -> float:
    """Share of truths inside predicted +- z sd (default: the central 90 % interval)."""
    a, b = _pair(truth, predicted)
    return float(np.mean(np.abs(a - b) <= z * np.asarray(sd, dtype=np.float64)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Prediction against truth on one device; None where a figure is undefined."""

    spearman: float | None
    kendall: float | None
    kendall_ceiling: float | None
    mape_pct: float | None
    median_ape_pct: float | None
    coverage90: float | None
    n: int
    n_tied_pairs: int


def agreement(truth: ArrayLike, predicted: ArrayLike, sd: ArrayLike | None = None) -> Agreement:
    """All figures at once. Shapes: (n,), (n,), (n,) or None; one unit for all three."""
    errors = absolute_percentage_errors(truth, predicted)
    return Agreement(
        spearman=spearman(truth, predicted),
        kendall=kendall(truth, predicted),
        kendall_ceiling=kendall_ceiling(truth),
        mape_pct=float(errors.mean()) if errors.size else None,
        median_ape_pct=float(np.median(errors)) if errors.size else None,
        coverage90=None if sd is None or np.size(truth) == 0 else coverage(truth, predicted, sd),
        n=int(np.size(truth)),
        n_tied_pairs=tied_pairs(truth),
    )
