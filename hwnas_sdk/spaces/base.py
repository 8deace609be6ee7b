"""The seam every search space fills in. No torch here.

A genotype is a tuple of choices, one small integer per decision. Whole populations travel as
integer matrices of shape (n, n_decisions), so that scoring a space is a few numpy calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.core.types import Architecture

Genotypes = NDArray[np.int64]  # (n, n_decisions)

_LARGEST_GRID: Final = 10_000_000  # architectures; beyond it a matrix of all takes gigabytes
_LARGEST_NUMBERED: Final = 2**63 - 1


def whole_numbers(space_name: str, given: ArrayLike, what: str = "genotypes") -> NDArray[np.int64]:
    """`given` as int64 of whatever shape. Raises: SpaceError for anything but whole numbers."""
    try:
        numbers = np.asarray(given)
    except ValueError as exc:  # rows of different lengths
        raise SpaceError(f"{space_name}: {what} are an array of whole numbers") from exc
    if numbers.size and numbers.dtype.kind not in "iu":
        raise SpaceError(
            f"{space_name}: {what} are whole numbers, got {numbers.dtype}",
            hint="round them first",
        )
    return numbers.astype(np.int64)


class SearchSpace(ABC):
    """A finite set of networks described by `n_decisions` categorical choices.

    A new space sets `name` and `choices`, and defines `encode`, `decode`, `layers` and `family`;
    see docs/howto-search-space.md. `hwnas_sdk.testing.space.SpaceConformance` checks it.
    """

    name: str
    choices: tuple[int, ...]  # number of choices of each decision
    datasets: tuple[str, ...]  # first one is the default

    @property
    def n_decisions(self) -> int:
        """Length of a genotype."""
        return len(self.choices)

    @property
    def size(self) -> int:
        """Number of genotypes."""
        product = 1
        for n in self.choices:
            product *= n
        return product

    # --- numbers --------------------------------------------------------------------------------

    def grid(self, numbers: NDArray[np.integer] | None = None) -> Genotypes:
        """Genotypes by number, (n,) -> (n, n_decisions); None: all of a small space, in order.

        Decisions are the digits of a number, the first one the most significant.
        Raises: SpaceError for a space with too many architectures, a number it does not have, or
            what is not a whole number.
        """
        self._check_size(_LARGEST_GRID if numbers is None else _LARGEST_NUMBERED)
        if numbers is None:
            chosen = np.arange(self.size)
        else:
            chosen = whole_numbers(self.name, numbers, "numbers of architectures")
        if chosen.ndim != 1:
            raise SpaceError(f"expected {self.name} numbers of shape (n,), got {chosen.shape}")
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < self.size):
            raise SpaceError(
                f"{self.name} numbers its architectures 0..{self.size - 1}, got "
                f"{chosen.min()}..{chosen.max()}"
            )
        digits = np.unravel_index(chosen, self.choices)
        return np.stack(digits, axis=1).astype(np.int64)

    def numbers(self, genotypes: Genotypes) -> NDArray[np.int64]:
        """Inverse of `grid`, (n, n_decisions) -> (n,).

        Raises: SpaceError for a space with too many architectures, and as `checked`.
        """
        self._check_size(_LARGEST_NUMBERED)
        rows = tuple(self.checked(genotypes).T)
        return np.asarray(np.ravel_multi_index(rows, self.choices), dtype=np.int64)

    def _check_size(self, most: int) -> None:
        if self.size > most:
            raise SpaceError(
                f"{self.name} has {self.size} architectures, too many to number or list",
                code="large_space",
                hint="draw some with sample() or uniform()",
            )

    # --- text ---------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, architecture: Architecture) -> str:
        """Official string of an architecture."""

    @abstractmethod
    def decode(self, text: str) -> Architecture:
        """Architecture of an official string.

        Raises: SpaceError that shows the offending part.
        """

    # --- meaning ------------------------------------------------------------------------------

    @abstractmethod
    def layers(
        self, architecture: Architecture, *, dataset: str | None = None, folded: bool = False
    ) -> LayerGraph:
        """Layer graph of an architecture.

        Args:
            architecture: a member of this space.
            dataset: sets input shape and classes; None is the first of `datasets`.
            folded: the canonical live graph instead of every operator.

        Raises: SpaceError; `dead_cell` when a folded graph would not see its input.
        """

    @abstractmethod
    def family(self, architecture: Architecture) -> Hashable:
        """Key that is equal for two architectures exactly when they compute the same function."""

    def is_dead(self, architecture: Architecture) -> bool:
        """Whether the output does not depend on the input; such a network is never deployed."""
        self.validate(architecture)
        return False

    # --- membership ---------------------------------------------------------------------------

    def architecture(self, genotype: Sequence[int] | NDArray[np.int64]) -> Architecture:
        """Wrap and validate a genotype."""
        arch = Architecture(self.name, tuple(int(gene) for gene in genotype))
        self.validate(arch)
        return arch

    def validate(self, architecture: Architecture) -> None:
        """Raise SpaceError unless `architecture` is a member."""
        if architecture.space != self.name:
            raise SpaceError(f"{architecture.id} is not an architecture of space {self.name!r}")
        genotype = architecture.genotype
        if len(genotype) != self.n_decisions:
            raise SpaceError(
                f"{self.name}: a genotype has {self.n_decisions} decisions, got {len(genotype)}"
            )
        for i, (gene, n) in enumerate(zip(genotype, self.choices, strict=True)):
            if not 0 <= gene < n:
                raise SpaceError(f"{self.name}: decision {i} must be in 0..{n - 1}, got {gene}")

    def checked(self, genotypes: ArrayLike) -> Genotypes:
        """Genotypes as (n, n_decisions) int64.

        Raises: SpaceError for anything that is not a matrix of members.
        """
        genes = whole_numbers(self.name, genotypes)
        if genes.ndim != 2 or genes.shape[1] != self.n_decisions:
            raise SpaceError(
                f"expected {self.name} genotypes of shape (n, {self.n_decisions}), "
                f"got {genes.shape}"
            )
        wrong = (genes < 0) | (genes >= np.asarray(self.choices))
        if wrong.any():
            row, decision = (int(i) for i in np.argwhere(wrong)[0])
            raise SpaceError(
                f"{self.name}: decision {decision} must be in 0..{self.choices[decision] - 1}, "
                f"got {genes[row, decision]}"
            )
        return genes

    def family_numbers(self, genotypes: Genotypes) -> NDArray[np.int64]:
        """Function family of each row, numbered as they appear, (n, n_decisions) -> (n,)."""
        numbers: dict[Hashable, int] = {}
        families = (self.family(self.architecture(row)) for row in genotypes)
        return np.array([numbers.setdefault(f, len(numbers)) for f in families], dtype=np.int64)

    # --- sampling and variation -----------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        rng: np.random.Generator | None = None,
        seed: int | None = None,
        method: Literal["uniform", "lhs"] = "uniform",
        live_only: bool = True,
    ) -> list[Architecture]:
        """Draw `n` different architectures.

        Args:
            n: how many; at most `size`.
            rng: source of randomness; or
            seed: an integer to make one from. Exactly one of the two is given.
            method: "uniform", or "lhs" = Latin hypercube over the decisions (each choice of each
                decision appears equally often, up to rounding and refilled duplicates).
            live_only: leave out dead architectures.

        Raises: SpaceError when the space has fewer than `n`.
        """
        if (rng is None) == (seed is None):
            raise ValueError("give either rng or seed")
        if rng is None:
            assert seed is not None
            rng = child_rng(seed, self.name, "sample")
        if n > self.size:
            raise SpaceError(f"{self.name} has {self.size} architectures, {n} were asked for")
        chosen: dict[tuple[int, ...], Architecture] = {}
        stalled = 0
        while len(chosen) < n:
            missing = n - len(chosen)
            before = len(chosen)
            draw = self.latin_hypercube if method == "lhs" else self.uniform
            for genotype in draw(missing, rng):
                arch = self.architecture(genotype)
                if not (live_only and self.is_dead(arch)):
                    chosen.setdefault(arch.genotype, arch)
            stalled = stalled + 1 if len(chosen) == before else 0
            if stalled > 10_000:
                raise SpaceError(f"{self.name} has fewer than {n} different live architectures")
        return list(chosen.values())

    def uniform(self, n: int, rng: np.random.Generator) -> Genotypes:
        """Independent uniform genotypes, shape (n, n_decisions), duplicates possible."""
        return np.stack([rng.integers(0, c, size=n) for c in self.choices], axis=1)

    def latin_hypercube(self, n: int, rng: np.random.Generator) -> Genotypes:
        """Latin hypercube draw, shape (n, n_decisions).

        Each decision's [0, 1) is cut in n strata with one draw each, in independent random order,
        and u becomes floor(u * choices). Source: HW-PR-NAS, section on training the surrogate.
        """
        columns = []
        for c in self.choices:
            u = (rng.permutation(n) + rng.random(n)) / n
            columns.append(np.minimum((u * c).astype(np.int64), c - 1))
        return np.stack(columns, axis=1)

    def mutate(
        self,
        architecture: Architecture,
        *,
        rng: np.random.Generator,
        probability: float | None = None,
    ) -> Architecture:
        """Change each decision with `probability` (None: 1 / n_decisions), at least one."""
        p = 1.0 / self.n_decisions if probability is None else probability
        flips = rng.random(self.n_decisions) < p
        if not flips.any():
            flips[rng.integers(self.n_decisions)] = True
        genes = list(architecture.genotype)
        for i in np.flatnonzero(flips):
            step = int(rng.integers(1, self.choices[i])) if self.choices[i] > 1 else 0
            genes[i] = (genes[i] + step) % self.choices[i]
        return self.architecture(genes)

    def cross(
        self, first: Architecture, second: Architecture, *, rng: np.random.Generator
    ) -> Architecture:
        """Uniform crossover: each decision from one parent or the other."""
        take = rng.random(self.n_decisions) < 0.5
        genes = np.where(take, first.genotype, second.genotype)
        return self.architecture(genes)
