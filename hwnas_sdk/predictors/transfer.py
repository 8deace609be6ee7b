"""The one interface of models that carry latency or energy from known devices to a new one.

A model is fitted once on known devices (their whole or partial columns) and then adapted to a new
device by a few of its values. Every family (Bayesian, meta-learned, graph networks, boosted trees,
counting operations) implements it, so `auto` can combine them and one bench can compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.predictors.prediction import Prediction

Floats = NDArray[np.float64]
Genotypes = NDArray[np.integer]


class AdaptedModel(Protocol):
    """A model of one device."""

    def predict(self, genotypes: Genotypes) -> Prediction:
        """Mean and sd of what would be measured, noise included.

        Shapes: genotypes (n, d) -> two (n,). Unit: that of the values adapted to. A model that
        states no uncertainty answers with an sd of NaN.
        """
        ...


class TransferModel(Protocol):
    """A model of any device, learned from known ones."""

    @classmethod
    def fit(
        cls,
        genotypes: Genotypes,
        known: Mapping[str, Floats],
        *,
        seed: int = 0,
        on_event: EventSink = ignore,
    ) -> TransferModel:
        """Learn from known devices.

        Args:
            genotypes: n architectures, (n, d).
            known: device -> (n,) values, NaN = not measured; any one unit per device.
            seed: of everything random.
            on_event: told of the steps of what takes long, here and in each `adapt`; a fast model
                tells nothing.

        Raises: ModelError for data nothing can be learned from.
        """
        ...

    def adapt(
        self, genotypes: Genotypes, values: Floats, *, rel_sd: Floats | None = None
    ) -> AdaptedModel:
        """Condition on k values of a new device.

        Shapes: genotypes (k, d), values (k,) positive, rel_sd (k,) relative standard errors or
        None. Raises: ModelError for values that are not positive and finite, or when the model
        needs more of them.
        """
        ...
