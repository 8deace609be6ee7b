"""One search: beliefs in, a front of candidates out. Nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.clock import SYSTEM_CLOCK
from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.core.types import OBJECTIVES, Candidate, ParetoFront
from hwnas_sdk.predictors.encodings import executed_cells
from hwnas_sdk.search.base import Searcher, relative_excess
from hwnas_sdk.search.exhaustive import LARGEST_SPACE, ExhaustiveSearcher
from hwnas_sdk.search.run import search
from hwnas_sdk.search.select import choose_candidates
from hwnas_sdk.search.traits import traits_of
from hwnas_sdk.spaces import Genotypes, SearchSpace, get_space
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.hypernetworks import PROPOSALS_PER_CANDIDATE
from hwnas_sdk.workflows.priors import load_prior, prior_plan
from hwnas_sdk.workflows.rank_guide import Scores, rank_scores_of, ranker_scores
from hwnas_sdk.workflows.searchers import SEARCHERS, Predict, Task

METHODS = ("auto", "modnas", *SEARCHERS)
_CHUNK = 2_000
"""Architectures an exhaustive search scores at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a search was asked for.

    Attributes:
        method: auto, modnas or one of `SEARCHERS`; "auto" predicts the whole space where it is
            small and evolves with NSGA-II where it is not, or where memory counts.
        objectives: two or three of error, latency, energy, memory, the first two always.
        hypernetwork: weights of method modnas, None for the shipped ones.
        ranker: a file of `hwnas train rank` that method rank is guided by, None for the expected
            rank under what is believed of the device.
        prior: a file of `hwnas train latency` that beliefs start from, None for the shipped one.
        candidates: how many networks to propose.
        population, generations: every method scores as many networks as their product.
        max_latency_ms, max_memory_mib: limits on predicted values, None for none.
    """

    space: str = "nasbench201"
    method: str = "auto"
    hypernetwork: Path | None = None
    ranker: Path | None = None
    prior: Path | None = None
    objectives: tuple[str, ...] = ("error", "latency")
    candidates: int = 24
    population: int = 100
    generations: int = 50
    max_latency_ms: float | None = None
    max_memory_mib: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be searched.

        Raises: ConfigError.
        """
        if self.method not in METHODS:
            raise ConfigError(
                f"unknown search method {self.method!r}", hint=f"one of {', '.join(METHODS)}"
            )
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or len(set(self.objectives)) != len(self.objectives):
            raise ConfigError(
                f"objectives {','.join(self.objectives)!r} are not different known ones",
                hint=f"two or three of {', '.join(OBJECTIVES)}",
            )
        if not {"error", "latency"} <= set(self.objectives):
            raise ConfigError(
                "a search needs error and latency among its objectives",
                hint="add a third one if you like: --objectives error,latency,energy",
            )
        shipped = self.method == "modnas" and self.hypernetwork is None
        if shipped and set(self.objectives) != {"error", "latency"}:
            raise ConfigError(
                "the shipped hypernetwork answers error and latency only",
                hint="train one with 'hwnas train hypernetwork --objectives', name it with "
                "--hypernetwork; or --method auto",
            )
        if self.hypernetwork is not None and self.method != "modnas":
            raise ConfigError("a hypernetwork is of no use here", hint="add --method modnas")
        if self.ranker is not None and self.method != "rank":
            raise ConfigError("a ranker is of no use here", hint="add --method rank")
        if self.candidates < 1 or self.population < 2 or self.generations < 1:
            raise ConfigError("candidates, population and generations must be positive")

    @property
    def n_evaluations(self) -> int:
        """Networks scored at most."""
        generations, n = self.budget(self.get_space())
        return generations * n

    def resolved(self, space: SearchSpace) -> str:
        """What the method is in this space."""
        if self.method != "auto":
            return self.method
        # Memory is predicted from the layers of each network: it takes a millisecond.
        by_memory = self.max_memory_mib is not None or "memory" in self.objectives
        return "nsga2" if by_memory or space.size > LARGEST_SPACE else "exhaustive"

    def budget(self, space: SearchSpace) -> tuple[int, int]:
        """Generations, and architectures of each."""
        if self.method == "modnas":
            return 1, PROPOSALS_PER_CANDIDATE * self.candidates
        if self.resolved(space) == "exhaustive":
            return math.ceil(space.size / _CHUNK), _CHUNK
        return self.generations, self.population

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object. Raises: ModelError for a prior that cannot be read."""
        named = {"hypernetwork": self.hypernetwork, "ranker": self.ranker, "prior": self.prior}
        files = {name: None if path is None else str(path) for name, path in named.items()}
        known = prior_plan(None if self.prior is None else load_prior(self.prior))
        return {**asdict(self), "objectives": list(self.objectives), **files, **known}

    def get_space(self) -> SearchSpace:
        """The space to search."""
        return get_space(self.space)

    def make_searcher(self, space: SearchSpace, *, seed: int, predict: Predict) -> Searcher:
        """Fresh searcher of the chosen method."""
        method = self.resolved(space)
        if method == "exhaustive":
            return ExhaustiveSearcher(space, seed=seed, n_objectives=len(self.objectives))
        task = Task(
            space=space,
            objectives=self.objectives,
            population=self.population,
            seed=seed,
            predict=predict,
        )
        return SEARCHERS[method](task)


def search_front(
    space: SearchSpace,
    beliefs: Beliefs,
    *,
    plan: SearchPlan,
    device_id: str,
    stream: int = 0,
    measured: Sequence[Label] = (),
    on_event: EventSink = ignore,
) -> ParetoFront:
    """Search `space` with predicted objectives and choose the candidates worth measuring.

    No two candidates compute the same function, none is dead, none computes the function of one
    that is `measured`; and only what promises to improve on those counts. `stream` varies the
    randomness between the rounds of a loop.
    Raises: ConfigError when nothing satisfies the limits.
    """
    started_s = SYSTEM_CLOCK.monotonic_s()
    seed = int(child_rng(plan.seed, "search", stream).integers(2**31))
    limits = [("latency", plan.max_latency_ms), ("memory", plan.max_memory_mib)]
    limited = [(name, bound) for name, bound in limits if bound is not None]

    def violation(genotypes: Genotypes) -> NDArray[np.float64]:
        values = beliefs.predict(genotypes, [name for name, _ in limited])[0]
        return relative_excess(values, np.array([bound for _, bound in limited]))

    score_rank: Scores | None = None
    if plan.method == "rank":
        score_rank = _rank_scores(space, beliefs, plan, seed, violation if limited else None)

    def score(genotypes: Genotypes) -> NDArray[np.float64]:
        if score_rank is None:
            return beliefs.predict(genotypes, plan.objectives)[0]
        # The others only say how alike two networks are.
        cheap = [name for name in plan.objectives if name != "error"]
        return np.column_stack([-score_rank(genotypes), beliefs.predict(genotypes, cheap)[0]])

    if plan.method == "modnas":
        searcher = _hypernetwork_searcher(space, beliefs, plan, seed)
    else:
        searcher = plan.make_searcher(
            space, seed=seed, predict=lambda g, names: beliefs.predict(g, names)[0]
        )
    generations, n_per_generation = plan.budget(space)
    result = search(
        space,
        score,
        searcher,
        generations,
        n_per_generation=n_per_generation,
        violation=violation if limited else None,
        on_event=on_event,
    )
    seen = result.evaluated
    means, sds = beliefs.predict(seen.genotypes, plan.objectives)
    traits = traits_of(space)
    taken = {traits.family(label.architecture.genotype) for label in measured}
    rows = [tuple(int(g) for g in row) for row in seen.genotypes.tolist()]

    def family(row: int) -> Hashable:
        return traits.family(rows[row])

    feasible = seen.violation <= 0.0
    if taken:
        feasible &= np.array([traits.family(row) not in taken for row in rows])
    chosen = choose_candidates(
        means,
        sds,
        plan.candidates,
        kin=executed_cells(seen.genotypes),
        known=_attained(beliefs, plan, measured),
        feasible=feasible,
        group=family,
        seed=seed,
    )
    if not len(chosen):
        raise _nothing_found(limited=not (seen.violation <= 0.0).any())
    cells = seen.genotypes[chosen]
    if beliefs.folded:
        # The same function without its dead edges: what is deployed, and easier to read.
        cells = executed_cells(cells)
    candidates = _candidates(space, beliefs, plan, cells)
    return ParetoFront(
        device_id=device_id,
        space=space.name,
        folded=beliefs.folded,
        objectives=plan.objectives,
        candidates=candidates,
        method=plan.resolved(space),
        seed=plan.seed,
        n_evaluations=result.n_evaluations,
        duration_s=SYSTEM_CLOCK.monotonic_s() - started_s,
        provenance=beliefs.provenance(),
    )


def _hypernetwork_searcher(
    space: SearchSpace, beliefs: Beliefs, plan: SearchPlan, seed: int
) -> Searcher:
    """Asks the hypernetwork for this device, told by what is believed of the references.

    Raises: ConfigError when it was trained for other objectives.
    """
    from hwnas_sdk.workflows.search_devices import told_by
    from hwnas_sdk.workflows.search_guides import hypernetwork_for

    trained = hypernetwork_for(plan)  # which says so without torch
    from hwnas_sdk.search.modnas.searcher import HypernetworkSearcher

    vector = told_by(space, beliefs.latency, trained.references, trained.objectives)
    return HypernetworkSearcher(space, net=trained.net, device=vector, seed=seed)


def _rank_scores(
    space: SearchSpace, beliefs: Beliefs, plan: SearchPlan, seed: int, violation: Scores | None
) -> Scores:
    if plan.ranker is not None:
        return ranker_scores(plan.ranker, space, plan.objectives)
    return rank_scores_of(space, beliefs, plan.objectives, seed=seed, violation=violation)


def _nothing_found(*, limited: bool) -> DataError:
    if limited:
        message = "no network satisfies the limits"
        hint = "raise --max-latency-ms or --max-memory-mib"
    else:
        message = "every network worth measuring that this search found is measured already"
        hint = "raise the limits or --candidates, or search with another --seed"
    return DataError(message, code="nothing_found", hint=hint)


def _attained(
    beliefs: Beliefs, plan: SearchPlan, measured: Sequence[Label]
) -> NDArray[np.float64] | None:
    """Objectives of what was measured (errors and what has no measurement predicted), (j, m)."""
    if not measured:
        return None
    genotypes = np.array([label.architecture.genotype for label in measured], dtype=np.int64)
    values = beliefs.predict(genotypes, plan.objectives)[0]
    values[:, plan.objectives.index("latency")] = [label.latency_ms for label in measured]
    if "energy" in plan.objectives:
        column = plan.objectives.index("energy")
        for row, label in enumerate(measured):
            if label.energy_mj is not None:
                values[row, column] = label.energy_mj
    return values


def _candidates(
    space: SearchSpace, beliefs: Beliefs, plan: SearchPlan, genotypes: Genotypes
) -> tuple[Candidate, ...]:
    """Candidates with everything that can be predicted of them, fastest first."""
    names = list(plan.objectives)
    if beliefs.memory is not None and "memory" not in names:
        names.append("memory")
    if beliefs.energy is not None and "energy" not in names:
        names.append("energy")
    means, sds = beliefs.predict(genotypes, names)
    keys = [OBJECTIVES[name].key for name in names]
    candidates = []
    for i in np.argsort(means[:, names.index("latency")], kind="stable"):
        arch = space.architecture(genotypes[i])
        candidates.append(
            Candidate(
                architecture=arch,
                arch=space.encode(arch),
                values=dict(zip(keys, means[i].tolist(), strict=True)),
                sd=dict(zip(keys, sds[i].tolist(), strict=True)),
                origin=dict.fromkeys(keys, "predicted"),
            )
        )
    return tuple(candidates)
