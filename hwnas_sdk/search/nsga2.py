"""NSGA-II through pymoo, over integer genotypes.

Survival (non-dominated sorting, crowding distance, feasibility first) and tournaments are pymoo's;
sampling, crossover, mutation and duplicate elimination are ours, because a genotype is a row of
categorical choices. pymoo is imported when a searcher is made, not when this module is.

Source: Deb et al. 2002.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.search.base import Evaluated, Searcher
from hwnas_sdk.search.variation import mutate, uniform_crossover
from hwnas_sdk.spaces import Genotypes, SearchSpace

_MAX_MATINGS = 8


class Nsga2Searcher(Searcher):
    """Evolves a population towards the front.

    Args:
        space: where to search.
        population: survivors of each generation.
        seed: with the tells, all that determines the asks.
        n_objectives: 1 to 3 are sensible.
    """

    name = "nsga2"

    def __init__(
        self, space: SearchSpace, *, population: int = 100, seed: int, n_objectives: int = 2
    ) -> None:
        """Set the algorithm up; nothing is asked yet."""
        super().__init__(space, seed=seed, n_objectives=n_objectives)
        if population < 2:
            raise ValueError(f"a population needs at least 2 members, got {population}")
        self.population = population
        self._rng = child_rng(seed, "search", self.name, space.name)
        self._offspring: Any = None
        self._algorithm = self._make_algorithm()

    def _ask(self, n: int) -> Genotypes:
        algorithm = self._algorithm
        if algorithm.is_initialized:
            algorithm.n_offsprings = n
        else:
            algorithm.pop_size = n  # of the first generation; survivors stay `population`
        offspring = algorithm.ask()
        born = np.empty((0, self.space.n_decisions), dtype=np.int64)
        if offspring is not None and len(offspring) > 0:
            born = np.asarray(offspring.get("X"), dtype=np.int64)
        missing = n - len(born)
        if missing > 0:
            born = self._fill_up(born, missing)
        self._offspring = _population(born)
        return born

    def _tell(self, told: Evaluated) -> None:
        algorithm, offspring = self._algorithm, self._offspring
        offspring.set("F", told.values, "G", told.violation[:, None])
        for individual in offspring:
            individual.evaluated = {"F", "G", "H"}
        algorithm.tell(infills=offspring)
        algorithm.pop_size = self.population

    def _fill_up(self, born: Genotypes, missing: int) -> Genotypes:
        """Add random newcomers where mating finds nothing new: the front's vicinity is used up."""
        extra = self._fresh_random(missing + len(born), self._rng)
        known = {tuple(row) for row in born.tolist()}
        new = [row for row in extra.tolist() if tuple(row) not in known]
        newcomers = np.array(new[:missing], dtype=np.int64).reshape(-1, self.space.n_decisions)
        return np.concatenate([born, newcomers])

    def _make_algorithm(self) -> Any:
        _quieten_pymoo()
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.crossover import Crossover
        from pymoo.core.duplicate import DuplicateElimination
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import Problem
        from pymoo.core.sampling import Sampling
        from pymoo.core.termination import NoTermination

        searcher, space = self, self.space
        choices = np.array(space.choices, dtype=np.int64)

        class StratifiedSampling(Sampling):  # type: ignore[misc]
            """Latin hypercube, refilled where it drew a dead or repeated architecture."""

            def _do(
                self, problem: Any, n_samples: int, *_: Any, random_state: Any = None, **__: Any
            ) -> Genotypes:
                del problem
                draws = space.latin_hypercube(n_samples, random_state)
                draws = draws[searcher._may_ask(draws)]
                return (
                    searcher._fill_up(draws, n_samples - len(draws))
                    if len(draws) < n_samples
                    else draws
                )

        class UniformCrossover(Crossover):  # type: ignore[misc]
            """Each decision from one parent or the other; the second child takes the rest."""

            def _do(
                self, problem: Any, parents: Any, *_: Any, random_state: Any = None, **__: Any
            ) -> Genotypes:
                del problem
                first, second = parents
                return uniform_crossover(first, second, random_state)

        class StepMutation(Mutation):  # type: ignore[misc]
            """Each decision changes with probability 1/d, at least one does."""

            def _do(
                self, problem: Any, genes: Any, *_: Any, random_state: Any = None, **__: Any
            ) -> Genotypes:
                del problem
                return mutate(genes, choices, random_state)

        class OnlyNew(DuplicateElimination):  # type: ignore[misc]
            """Drops what was asked before in this search, and dead architectures."""

            def do(self, pop: Any, *others: Any, **_: Any) -> Any:
                if len(pop) == 0:
                    return pop
                genes = np.asarray(pop.get("X"), dtype=np.int64)
                keep = searcher._may_ask(genes)
                taken = {
                    tuple(row)
                    for other in others
                    if len(other) > 0
                    for row in np.asarray(other.get("X")).tolist()
                }
                keep &= np.array([tuple(row) not in taken for row in genes.tolist()])
                return pop[keep]

        algorithm = NSGA2(
            pop_size=self.population,
            sampling=StratifiedSampling(),
            crossover=UniformCrossover(n_parents=2, n_offsprings=2, prob=0.9),
            mutation=StepMutation(prob=1.0),
            eliminate_duplicates=OnlyNew(),
        )
        # Beyond this, random newcomers are cheaper than mating for the last new children.
        algorithm.mating.n_max_iterations = _MAX_MATINGS
        problem = Problem(
            n_var=space.n_decisions, n_obj=self.n_objectives, n_ieq_constr=1, xl=0, xu=choices - 1
        )
        algorithm.setup(problem, termination=NoTermination(), seed=None, verbose=False)
        algorithm.random_state = child_rng(self.seed, "search", self.name, space.name, "pymoo")
        return algorithm


def _population(genotypes: Genotypes) -> Any:
    from pymoo.core.population import Population

    return Population.new("X", genotypes.copy())


def _quieten_pymoo() -> None:
    """Keep pymoo from printing that its compiled modules are missing."""
    from pymoo.config import Config

    Config.show_compile_hint = False
