"""What every predictor answers with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prediction(NamedTuple):
    """Mean and standard deviation of what would be measured, in the unit of the labels.

    Shapes: mean (n,), sd (n,).
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
