"""Published tables as the rank bench and `train rank` use them, and what a model may see."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.extras import needs_torch
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.tables import BenchTables
from hwnas_sdk.workflows.rank_protocol import (
    FEWEST_JUDGED,
    FEWEST_LABELS,
    Bools,
    Floats,
    Ints,
    RankBenchPlan,
    RankJudge,
)

DATASET: Final = "cifar10"
_DRAWS: Final = "bench rank"  # names the random numbers, so it may not change


@dataclass(frozen=True)
class Labels:
    """All a model may know of one device."""

    genotypes: Ints
    error_pct: Floats
    costs: Floats  # (n, k)


class RankBench:
    """Tables and what does not depend on the seed."""

    def __init__(
        self, tables: BenchTables, plan: RankBenchPlan, *, on_event: EventSink = ignore
    ) -> None:
        self.tables, self.plan, self.on_event = tables, plan, on_event
        self.space: SearchSpace = get_space("nasbench201")
        error = tables.error_pct(DATASET)
        self.objectives: dict[str, Floats] = {}
        self.rows: dict[str, Ints] = {}
        for device in plan.devices:
            costs = [tables.device(device, metric=metric) for metric in plan.metrics]
            values = np.column_stack([error, *costs])
            # A cost of nothing is a network the runtime folded away, not a fast one.
            usable = tables.live & np.isfinite(values).all(axis=1) & (values[:, 1:] > 0).all(axis=1)
            self.rows[device] = np.flatnonzero(usable)
            self.objectives[device] = values
        _check_rows(self)
        self.judges = {d: self.judge(d) for d in plan.devices}
        self.row_of = {tuple(g): row for row, g in enumerate(tables.genotypes.tolist())}
        self.trained: dict[tuple[str, int], tuple[Any, float]] = {}
        self._encoder: list[Any] = []  # shared by all variants, and made when first asked for

    def varied(self, plan: RankBenchPlan) -> RankBench:
        """The same tables, truth and encoders under another plan for the same objectives.

        Raises: DataError when the plan needs more rows than there are.
        """
        other = copy.copy(self)
        other.plan, other.trained = plan, {}
        _check_rows(other)
        return other

    def judge(self, device: str, among: Bools | None = None) -> RankJudge:
        """The truth of a device's rows, or of those of them that `among` marks."""
        rows = self.rows[device] if among is None else self.rows[device][among]
        return RankJudge.of(self.objectives[device][rows])

    def training_rows(self, device: str, seed: int) -> Ints:
        """A Latin hypercube draw over the decisions; what was not measured is drawn again."""
        usable = set(self.rows[device].tolist())
        rng = child_rng(seed, _DRAWS, "train")  # the same architectures on every device
        chosen: dict[int, None] = {}
        while len(chosen) < self.plan.train:
            for genotype in self.space.latin_hypercube(self.plan.train, rng).tolist():
                row = self.row_of.get(tuple(genotype), -1)
                if row in usable and len(chosen) < self.plan.train:
                    chosen[row] = None
        return np.array(list(chosen), dtype=np.int64)

    def labels(self, device: str, rows: Ints) -> Labels:
        """The labels a model gets; nothing else of a column leaves this object unjudged."""
        values = self.objectives[device][rows]
        return Labels(self.tables.genotypes[rows], values[:, 0], values[:, 1:])

    @property
    def encoder(self) -> Any:
        """Encoders of the network, trained on architectures alone; shared by all repetitions."""
        return self.pretrained()

    def pretrained(self, checkpoint: Path | None = None) -> Any:
        """As `encoder`; a checkpoint makes a killed pre-training continue."""
        if not self._encoder:
            trained = torch_half("pretrain").pretrain(
                self.space, seed=0, checkpoint=checkpoint, on_event=self.on_event
            )
            self._encoder.append(trained.encoder)
        return self._encoder[0]


def same_family(bench: RankBench, device: str, train: Ints) -> Bools:
    """Which judged rows compute the same function as a training row."""
    families = bench.tables.families
    same: Bools = np.isin(families[bench.rows[device]], families[train])
    return same


def _check_rows(bench: RankBench) -> None:
    """Refuse a plan that leaves next to nothing to judge on."""
    n = bench.plan.train
    for device in bench.plan.devices:
        have = len(bench.rows[device])
        if have < n + FEWEST_JUDGED:
            most = have - FEWEST_JUDGED
            raise DataError(
                f"{device}: {have} measured live cells, {n + FEWEST_JUDGED} are needed: {n} to "
                f"learn from and {FEWEST_JUDGED} more to judge on",
                code="too_few_rows",
                hint=f"at most {most} to learn from"
                if most >= FEWEST_LABELS
                else "name tables with more cells",
            )


def torch_half(module: str = "rank_network") -> Any:
    """A module of `predictors.neural`.

    Raises: MissingExtraError without torch.
    """
    with needs_torch("the rank network"):
        return import_module(f"hwnas_sdk.predictors.neural.{module}")
