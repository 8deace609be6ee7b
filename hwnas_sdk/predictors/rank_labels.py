"""Labels of one objective, and what they say of other architectures.

Errors and costs of boards are Gaussian processes. Costs that are exactly a sum over an
architecture's decisions (a simulator, a look-up table) are that sum, without uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.predictors._additive import EXACT_REL, exact_law
from hwnas_sdk.predictors.accuracy import to_target
from hwnas_sdk.predictors.card import Tensors
from hwnas_sdk.predictors.gaussian_process import BlockProcess
from hwnas_sdk.predictors.graphs import one_hot
from hwnas_sdk.predictors.inputs import cost_blocks, error_blocks, executed_genotypes
from hwnas_sdk.predictors.population import Population
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

Floats = NDArray[np.float64]

MIN_LABELS: Final = 10
_LEAST_SHARE: Final = 1e-3  # of the smallest label; no sum of costs is taken to be less


@dataclass(frozen=True)
class Labels:
    """Values of one objective: transformed targets of the architectures that have one.

    Attributes:
        genotypes: (n, d).
        target: -1 / error or log cost, (n,).
        theta: hyper-parameters of the process.
    """

    genotypes: Genotypes
    target: Floats
    theta: Floats

    @classmethod
    def of_error(cls, space: SearchSpace, genotypes: Genotypes, error_pct: Floats) -> Labels:
        """Learn from errors in percent, (n,). Raises: ModelError with fewer than 10."""
        _enough(len(genotypes), "error")
        return cls._of_error(space, genotypes, to_target(error_pct))

    @classmethod
    def _of_error(cls, space: SearchSpace, genotypes: Genotypes, target: Floats) -> Labels:
        return cls(
            genotypes, target, BlockProcess.fit(error_blocks(space, genotypes), target).theta
        )

    @classmethod
    def of_cost(cls, space: SearchSpace, genotypes: Genotypes, cost: Floats, of: str) -> Labels:
        """Learn from positive costs, (n,). Raises: ModelError naming `of` with fewer than 10."""
        _enough(len(genotypes), of)
        target = np.log(cost)
        process = BlockProcess.fit(cost_blocks(space, genotypes), target)
        return cls(genotypes, target, process.theta)

    def law(self, space: SearchSpace) -> Floats | None:
        """Cost of each choice when these costs are exactly a sum of such, (sum of choices,)."""
        executed = executed_genotypes(space, self.genotypes)
        return exact_law(
            one_hot(space, self.genotypes),
            np.exp(self.target),
            n_decisions=space.n_decisions,
            executed=None if executed is None else one_hot(space, executed),
        )

    def with_errors(self, space: SearchSpace, genotypes: Genotypes, error_pct: Floats) -> Labels:
        """These error labels and those of architectures that have none here."""
        known = {tuple(g) for g in self.genotypes.tolist()}
        new = np.array([tuple(g) not in known for g in genotypes.tolist()], dtype=np.bool_)
        if not new.any():
            return self
        target = np.concatenate([self.target, to_target(error_pct[new])])
        return self._of_error(space, np.concatenate([self.genotypes, genotypes[new]]), target)

    def errors_of(self, among: Population) -> tuple[Floats, Floats]:
        """Mean and sd of the transformed error, two (N,)."""
        return self._process(error_blocks(among.space, self.genotypes)).predict(among.error_blocks)

    def costs_of(self, among: Population) -> tuple[Floats, Floats]:
        """Mean and sd of the log cost, two (N,); an exact sum ties what it says is equal."""
        law = self.law(among.space)
        if law is None:
            return self.process_of(among)
        values = np.exp(self.target)
        unit = EXACT_REL * float(np.median(values))
        total = np.round(one_hot(among.space, among.genotypes) @ law / unit) * unit
        return np.log(np.maximum(total, _LEAST_SHARE * values.min())), np.zeros(len(among))

    def process_of(self, among: Population) -> tuple[Floats, Floats]:
        """As `costs_of`, always by the Gaussian process."""
        process = self._process(cost_blocks(among.space, self.genotypes))
        return process.predict(among.cost_blocks)

    def cost_residuals(self, space: SearchSpace) -> dict[tuple[int, ...], float]:
        """Leave-one-out error of each label in its own sd."""
        process = self._process(cost_blocks(space, self.genotypes))
        keys = (tuple(g) for g in self.genotypes.tolist())
        return dict(zip(keys, process.leave_one_out().tolist(), strict=True))

    def _process(self, blocks: tuple[Floats, ...]) -> BlockProcess:
        return BlockProcess.condition(blocks, self.target, self.theta)

    def tensors(self, prefix: str) -> Tensors:
        """Named arrays for a file."""
        return {
            f"{prefix}.genotypes": self.genotypes,
            f"{prefix}.target": self.target,
            f"{prefix}.theta": self.theta,
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors, prefix: str) -> Labels:
        """Inverse of `tensors`. Raises: KeyError for one that is missing."""
        return cls(*(tensors[f"{prefix}.{part}"] for part in ("genotypes", "target", "theta")))


def _enough(n_labels: int, of: str) -> None:
    if n_labels < MIN_LABELS:
        raise ModelError(
            f"{of}: a rank predictor needs {MIN_LABELS} labelled live architectures, "
            f"got {n_labels}",
            hint="measure more architectures",
        )
