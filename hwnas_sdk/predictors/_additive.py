"""Devices whose time is exactly a sum of costs per operator: analytical models and simulators.

Published FPGA and Eyeriss columns are such sums to the last stored digit. A prior made of measured
boards never believes so sharp a thing, so the hypothesis is tested on its own: a real board, whose
timing scatters by far more than `EXACT_REL`, cannot pass for one by chance. A coarse clock could
(whole milliseconds of fast networks are few numbers, or one), so its readings prove nothing; nor do
networks without dead operators, which cost nothing on some runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hwnas_sdk.predictors._posterior import Posterior
from hwnas_sdk.predictors.encodings import FEATURE_GROUPS
from hwnas_sdk.predictors.metrics import reading_step

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Fit = Callable[[Floats], Floats]

EXACT_REL: Final = 1e-5
"""Largest relative error with which every measurement must be explained."""
RESOLUTION: Final = EXACT_REL / 2
"""Share of the scale that is rounded off predictions, so that equal networks tie."""
_SPARE_ROWS: Final = 5  # different networks beyond the costs; with fewer, anything may fit
_FEW_VALUES: Final = 2  # so many different ones show no sum
_CHARGED: Final = 100 * EXACT_REL  # share of a value that dead operators must cost to be seen


def additive_design(features: Floats, *, group: str = "raw_counts") -> Floats:
    """A constant and how often each operator occurs, `structural_features` (n, F) -> (n, 5)."""
    return np.column_stack([np.ones(len(features)), features[:, FEATURE_GROUPS[group]]])


def exact_costs(features: Floats, values: Floats) -> Floats | None:
    """Constant and cost >= 0 per operator that explain every value, or None.

    Costs that are not needed are zero, so networks that differ only in free operators tie as they
    do on the device.

    Args:
        features: `structural_features` of k architectures, (k, F).
        values: of a device, (k,), positive.

    Returns (5,), in the order of `additive_design` and the unit of the values; None when they are
    not such a sum, or too few or too much alike to tell.
    """
    design = additive_design(features)
    return _exact(
        design,
        values,
        _fewest_costs,
        networks=features[:, FEATURE_GROUPS["raw_edges"]],
        n_free=design.shape[1],
        executed=additive_design(features, group="live_counts"),
    )


def exact_posterior(
    features: Floats,
    values: Floats,
    *,
    scale: float,
    mean: Floats,
    center: Floats,
    stretch: Floats,
) -> Posterior | None:
    """Weights of a device that is exactly additive, or None for one that is not.

    Args:
        features: `structural_features` of k architectures, (k, F).
        values: of a device, (k,), positive, as it reported them: divided by the scale they would
            not show the steps of its clock.
        scale: unit of the weights.
        mean: of the prior's weights, (F,).
        center: what is taken off features before weights apply, (F,).
        stretch: what the rest is multiplied by, (F,).
    """
    costs = exact_costs(features, values)
    counts = FEATURE_GROUPS["raw_counts"]
    if costs is None or not (stretch[counts] > 0).all():
        return None
    costs, values = costs / scale, values / scale
    move = np.zeros((len(mean), len(costs)))  # takes costs of raw counts to weights
    constant = FEATURE_GROUPS["constant"].start
    move[constant, 0] = 1.0
    move[constant, 1:] = center[counts]
    move[counts, 1:] = np.diag(1.0 / stretch[counts])
    rows = additive_design(features)
    left = values - rows @ costs
    # What is rounded off is a uniform error.
    noise = max(RESOLUTION**2 / 12, float(left @ left) / (len(values) - len(costs)))
    covariance = noise * move @ np.linalg.inv(rows.T @ rows) @ move.T
    return Posterior(move @ costs - mean, covariance, noise, np.zeros(len(values)), np.inf)


def exact_law(
    one_hot: Floats, values: Floats, *, n_decisions: int, executed: Floats | None = None
) -> Floats | None:
    """A cost per choice of every decision (of either sign) that explains every value, or None.

    Args:
        one_hot: `graphs.one_hot` of n architectures, (n, sum of choices).
        values: of a device, (n,), positive.
        n_decisions: d; the choices of one decision add up to 1, so d - 1 costs are free.
        executed: the same without dead operators; None in a space that has none.

    Returns (sum of choices,) in the unit of the values; None when they are not such a sum, or when
    too few or too similar architectures were measured to tell.
    """
    n_free = one_hot.shape[1] - n_decisions + 1
    return _exact(
        one_hot, values, _least_squares, networks=one_hot, n_free=n_free, executed=executed
    )


def _exact(
    design: Floats,
    values: Floats,
    fit: Fit,
    *,
    networks: Floats,
    n_free: int,
    executed: Floats | None,
) -> Floats | None:
    """Costs with design @ costs = values, if the values show that the device is such a sum.

    Shapes: design and executed (k, p), values (k,), networks (k, F) in any code. `n_free` of the p
    costs are free. `executed` is the design without dead operators: only if some of those cost time
    is a runtime known to remove none.
    """
    telling = (
        len(np.unique(networks, axis=0)) >= n_free + _SPARE_ROWS
        and len(np.unique(values)) > _FEW_VALUES
        and reading_step(values) is None
        and int(np.linalg.matrix_rank(design)) == n_free
    )
    if not telling:
        return None
    relative = design / values[:, None]
    costs = fit(relative)
    if not _explained(relative, costs):
        return None
    if executed is not None and not ((design - executed) @ costs > _CHARGED * values).any():
        return None
    return costs


def _explained(relative: Floats, costs: Floats) -> bool:
    return bool(np.abs(relative @ costs - 1.0).max() <= EXACT_REL)


def _least_squares(relative: Floats) -> Floats:
    return np.linalg.lstsq(relative, np.ones(len(relative)), rcond=None)[0].astype(np.float64)


def _fewest_costs(relative: Floats) -> Floats:
    """Non-negative costs, the smallest ones left out as long as all is explained without them."""
    kept = np.arange(relative.shape[1])
    costs = _non_negative(relative, kept)
    for number in np.argsort(costs):
        fewer = kept[kept != number]
        simpler = _non_negative(relative, fewer)
        if not _explained(relative, simpler):
            break
        kept, costs = fewer, simpler
    return costs


def _non_negative(relative: Floats, kept: Ints) -> Floats:
    costs = np.zeros(relative.shape[1])
    if len(kept):  # the solver does not survive a matrix without columns
        costs[kept], _ = optimize.nnls(relative[:, kept], np.ones(len(relative)))
    return costs
