"""What every search space must be able to do.

Usage::

    class TestMySpace(SpaceConformance):
        @pytest.fixture
        def space(self) -> SearchSpace:
            return MySpace()
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.types import Architecture
from hwnas_sdk.predictors.encode import ENCODINGS, Encoded, encode
from hwnas_sdk.predictors.graphs import OperatorGraphs
from hwnas_sdk.spaces.base import SearchSpace


class SpaceConformance:
    """Inherit and override the fixture `space`."""

    n_samples = 30

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Space under test."""
        raise NotImplementedError("override the fixture `space`")

    def test_strings_round_trip(self, space: SearchSpace) -> None:
        """Decoding an encoded architecture gives it back."""
        for arch in space.sample(self.n_samples, seed=1, live_only=False):
            assert space.decode(space.encode(arch)) == arch

    def test_numbers_round_trip(self, space: SearchSpace) -> None:
        """Every number is one genotype, and every genotype one number; or there are too many."""
        if space.size > np.iinfo(np.int64).max:
            with pytest.raises(SpaceError, match=space.name):
                space.grid()
            return
        rng = np.random.default_rng(2)
        numbers = rng.integers(space.size, size=self.n_samples)
        genotypes = space.grid(numbers)
        assert (space.numbers(genotypes) == numbers).all()
        for genotype in genotypes:
            space.architecture(genotype)
        ends = space.grid(np.array([0, space.size - 1]))
        assert ends.tolist() == [[0] * space.n_decisions, [c - 1 for c in space.choices]]

    @pytest.mark.parametrize("kind", ENCODINGS)
    def test_every_encoding_describes_it(self, space: SearchSpace, kind: str) -> None:
        """One row of finite numbers per architecture, alike each time; others are refused."""
        genotypes = space.uniform(self.n_samples, np.random.default_rng(4))
        first, again = (_matrix(encode(space, genotypes, kind)) for _ in range(2))
        assert len(first) == len(genotypes)
        assert np.isfinite(first).all()
        assert (first == again).all()
        if ENCODINGS[kind].injective:
            codes = {row.tobytes() for row in first}
            assert len(codes) == len(np.unique(genotypes, axis=0))
        for wrong in (genotypes[:, 1:], genotypes + max(space.choices)):
            with pytest.raises(SpaceError, match=space.name):
                encode(space, wrong, kind)

    def test_samples_are_distinct_members_and_seeded(self, space: SearchSpace) -> None:
        """Sampling gives different, valid, live architectures, the same for the same seed."""
        methods: tuple[Literal["uniform", "lhs"], ...] = ("uniform", "lhs")
        for method in methods:
            first = space.sample(self.n_samples, seed=7, method=method)
            again = space.sample(self.n_samples, seed=7, method=method)
            assert first == again
            assert len(set(first)) == self.n_samples
            for arch in first:
                space.validate(arch)
                assert not space.is_dead(arch)

    def test_mutation_changes_and_crossover_mixes(self, space: SearchSpace) -> None:
        """A mutant differs and is a member; a child takes each gene from a parent."""
        rng = np.random.default_rng(3)
        parents = space.sample(2, seed=5)
        for _ in range(self.n_samples):
            mutant = space.mutate(parents[0], rng=rng)
            space.validate(mutant)
            assert mutant != parents[0]
            child = space.cross(parents[0], parents[1], rng=rng)
            assert all(
                gene in pair
                for gene, *pair in zip(
                    child.genotype, parents[0].genotype, parents[1].genotype, strict=True
                )
            )

    def test_graphs_are_whole(self, space: SearchSpace) -> None:
        """Every sample has a graph with positive cost, and folding never adds parameters."""
        for arch in space.sample(5, seed=11):
            graph = space.layers(arch)
            folded = space.layers(arch, folded=True)
            assert graph.macs > 0
            assert graph.n_params >= folded.n_params > 0
            assert graph.id == space.layers(arch).id
            assert set(folded.parameter_shapes) <= set(graph.parameter_shapes)

    def test_families_are_stable(self, space: SearchSpace) -> None:
        """The family key is hashable and the same each time."""
        for arch in space.sample(5, seed=13):
            assert hash(space.family(arch)) == hash(space.family(arch))

    def test_strangers_are_refused(self, space: SearchSpace) -> None:
        """Foreign architectures, wrong lengths, genes and strings raise SpaceError."""
        good = space.sample(1, seed=2)[0]
        strangers = [
            Architecture("another", good.genotype),
            Architecture(space.name, good.genotype[:-1]),
            Architecture(space.name, (*good.genotype[:-1], space.choices[-1])),
        ]
        for stranger in strangers:
            with pytest.raises(SpaceError):
                space.layers(stranger)
        for text in ("", "nonsense", space.encode(good)[:-3]):
            with pytest.raises(SpaceError) as caught:
                space.decode(text)
            assert "\n" not in str(caught.value)


def _matrix(encoded: Encoded) -> NDArray[Any]:
    """An encoding as (n, F)."""
    if isinstance(encoded, OperatorGraphs):
        parts = (encoded.nodes, encoded.adjacency)
        return np.concatenate([part.reshape(len(encoded), -1) for part in parts], axis=1)
    return encoded
