"""Protocol of `hwnas bench latency`: what a model may see of a device, and what it is judged on.

A model sees the columns of the known devices and the values of the sampled networks of the unseen
one. It is judged on the networks that were not sampled. With more than `MANY_SAMPLES` samples it
is judged on those alone that compute another function than every sample: by then most networks
have a double among the samples. Up to there what is left is all but those few, and the agreement
on other functions is told beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.active import N_START, next_network
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.references import PAPER_INDICES, d_optimal_references
from hwnas_sdk.predictors.registry import TRANSFER_MODELS, model_names
from hwnas_sdk.store.aliases import aliases_of, refuse_aliases
from hwnas_sdk.store.tables import BenchTables
from hwnas_sdk.workflows.search_protocol import HELP_TRAIN_DEVICES, HELP_UNSEEN_DEVICES

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

REFERENCES: Final = ("ours", "paper", "random", "active")
METRICS: Final = ("latency", "energy")
# The public energies, one per device. That of fpga is 7 W times its latency and proves nothing.
ENERGY_DEVICES: Final = ("cifar10_edgegpu", "cifar10_eyeriss")
MANY_SAMPLES: Final = 100
LEAST_JUDGED: Final = 20
TASK: Final = "bench latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBenchPlan:
    """What is compared, and what a model may use; see `plan_latency_bench` for the defaults.

    Attributes:
        train_devices: known devices.
        devices: unseen devices.
        metric: of the unseen devices, "latency" or "energy".
        train_metric: of the known devices.
        samples: how many values of an unseen device the model sees.
        model: one of `predictors.registry.model_names()`.
        references: which networks are sampled, one of `REFERENCES`.
        leave_one_out: all devices but the judged one are known.
        seed: of random references, and of models that draw.
    """

    train_devices: tuple[str, ...]
    devices: tuple[str, ...]
    metric: str
    train_metric: str
    samples: int
    model: str
    references: str
    leave_one_out: bool
    seed: int

    def __post_init__(self) -> None:
        """Refuse plans that cannot be carried out or would leak."""
        for what, value, known in (
            ("model", self.model, model_names()),
            ("reference set", self.references, REFERENCES),
            ("metric", self.metric, METRICS),
            ("metric of the training devices", self.train_metric, METRICS),
        ):
            if value not in known:
                raise ConfigError(f"unknown {what} {value!r}", hint=f"one of {', '.join(known)}")
        if not self.devices:
            raise ConfigError("no device to predict", hint="--devices X,Y")
        if self.samples < 1:
            raise ConfigError(
                f"cannot learn a device from {self.samples} samples", hint="--samples 10"
            )
        if self.references == "paper" and self.samples > len(PAPER_INDICES):
            raise ConfigError(
                f"the paper's reference set has {len(PAPER_INDICES)} networks, not {self.samples}",
                hint="use --references ours for more samples",
            )
        leaked = sorted(set(self.train_devices) & set(self.devices))
        if leaked and not self.leave_one_out:
            raise ConfigError(
                f"{', '.join(leaked)}: a training device cannot also be an unseen one",
                hint="--leave-one-out leaves each device out of its own prediction",
            )
        if not self.train_devices and not (self.leave_one_out and len(self.devices) > 1):
            raise ConfigError("no training device", hint="--train-devices A,B, or --leave-one-out")

    @property
    def judged(self) -> str:
        """What is judged: the "rest" of a column, or of it the "new families" alone."""
        return "new families" if self.samples > MANY_SAMPLES else "rest"

    @property
    def needs_prior(self) -> bool:
        """Whether the samples are chosen by what is known of the known devices."""
        return self.references in ("ours", "active")


def plan_latency_bench(
    *,
    train_devices: Sequence[str] | None,
    devices: Sequence[str] | None,
    metric: str,
    train_metric: str | None,
    samples: int,
    model: str,
    references: str,
    leave_one_out: bool,
    seed: int,
) -> LatencyBenchPlan:
    """A plan with its defaults: HELP's split, and for energy the devices that have a public one.

    The known devices of HELP have latencies only. Without others energy is learned as searches
    learn it: latencies are the prior of energies.
    """
    if train_metric is None:
        train_metric = "latency" if train_devices is None else metric
    if train_devices is None:
        train_devices = HELP_TRAIN_DEVICES if train_metric == "latency" else ()
    if devices is None:
        devices = HELP_UNSEEN_DEVICES if metric == "latency" else ENERGY_DEVICES
    return LatencyBenchPlan(
        train_devices=tuple(dict.fromkeys(train_devices)),
        devices=tuple(dict.fromkeys(devices)),
        metric=metric,
        train_metric=train_metric,
        samples=samples,
        model=model,
        references=references,
        leave_one_out=leave_one_out,
        seed=seed,
    )


@dataclass(frozen=True)
class Case:
    """One unseen device, before a model is fitted. Rows are those of the tables.

    Attributes:
        device: its name.
        known: devices a model may learn from.
        aliases: left out of them, because they are this one under another name.
        prior: of the known devices; None where the samples were chosen without.
        rows: of the samples, (k,).
        judged: what the model is judged on, (n,).
        new_families: those of them that compute another function than every sample, (n,).
    """

    device: str
    known: tuple[str, ...]
    aliases: tuple[str, ...]
    prior: LatencyPrior | None
    rows: Indices
    judged: Bools
    new_families: Bools


class LatencyProtocol:
    """Tables under a plan; hands out what a model may see."""

    def __init__(self, tables: BenchTables, plan: LatencyBenchPlan) -> None:
        """Check the devices.

        Raises: ConfigError for a device without the metric, and for a training device that is an
            unseen one under another name; DataError for missing tables.
        """
        self.tables, self.plan = tables, plan
        self.columns = {name: tables.device(name, metric=plan.metric) for name in plan.devices}
        self.known_columns = _known_columns(tables, plan)
        self.features = structural_features(tables.genotypes)
        self._priors: dict[tuple[str, ...], LatencyPrior] = {}
        if not plan.leave_one_out:
            for columns in self._own_columns().values():
                refuse_aliases(self.known_columns, columns)

    def _own_columns(self) -> dict[str, Mapping[str, Floats]]:
        """Per metric what the unseen devices have: the judged one, and the one learned from."""
        learned = self.tables.metric(self.plan.train_metric)
        return {
            self.plan.metric: self.columns,
            self.plan.train_metric: {d: learned[d] for d in self.plan.devices if d in learned},
        }

    def case(self, device: str) -> Case:
        """Choose the samples of one device.

        Raises: DataError with too few measured networks to sample or to judge; ConfigError when no
            training device is left, or the model needs other samples.
        """
        known: tuple[str, ...] = tuple(self.known_columns)
        aliases: tuple[str, ...] = ()
        if self.plan.leave_one_out:
            others = {d: c for d, c in self.known_columns.items() if d != device}
            own = [columns[device] for columns in self._own_columns().values() if device in columns]
            same = {name for column in own for name in aliases_of(column, others)}
            aliases = tuple(name for name in others if name in same)
            known = tuple(name for name in others if name not in same)
        if not known:
            raise ConfigError(
                f"no training device is left for {device}", hint="--train-devices A,B"
            )
        column = self.columns[device]
        measured = self.tables.live & np.isfinite(column)
        eligible = measured & (column > 0)
        if eligible.sum() < self.plan.samples + LEAST_JUDGED:
            raise DataError(
                f"{device}: {int(eligible.sum())} measured live cells, {self.plan.samples} samples "
                f"and {LEAST_JUDGED} others to judge by are needed",
                code="too_few_rows",
            )
        prior = self._prior(known) if self.plan.needs_prior else None
        rows = self._samples(device, prior, eligible)
        self._check_model(device, rows)
        rest = measured.copy()
        rest[rows] = False
        families = self.tables.families
        new_families = rest & ~np.isin(families, families[rows])
        judged = rest if self.plan.judged == "rest" else new_families
        if judged.sum() < LEAST_JUDGED:
            raise DataError(
                f"{device}: {int(judged.sum())} measured live cells compute another function than "
                f"the {len(rows)} samples, {LEAST_JUDGED} are needed to judge by",
                code="too_few_rows",
                hint="fewer --samples",
            )
        return Case(device, known, aliases, prior, rows, judged, new_families)

    def _check_model(self, device: str, rows: Indices) -> None:
        needed = TRANSFER_MODELS[self.plan.model].n_beside_references
        beside = int((~np.isin(self.tables.index[rows], PAPER_INDICES)).sum())
        if beside < needed:
            raise ConfigError(
                f"{device}: {self.plan.model} needs {needed} networks beside the paper's "
                f"references, not {beside}",
                hint="--references random --samples 20",
            )

    def live_columns(self, known: Sequence[str]) -> dict[str, Floats]:
        """Values of known devices on the live rows, device -> (n_live,)."""
        return {name: self.known_columns[name][self.tables.live] for name in known}

    def _prior(self, known: tuple[str, ...]) -> LatencyPrior:
        if known not in self._priors:
            features = self.features[self.tables.live]
            self._priors[known] = LatencyPrior.fit(features, self.live_columns(known))
        return self._priors[known]

    def _samples(self, device: str, prior: LatencyPrior | None, eligible: Bools) -> Indices:
        """Rows to sample on `device`, some of the eligible ones."""
        plan = self.plan
        if plan.references == "paper":
            row_of = {int(index): row for row, index in enumerate(self.tables.index)}
            rows = [row_of[i] for i in PAPER_INDICES if i in row_of and eligible[row_of[i]]]
            if not rows:
                raise DataError(
                    f"{device}: none of the paper's references was measured",
                    code="too_few_rows",
                    hint="use --references ours",
                )
            return np.array(rows[: plan.samples], dtype=np.int64)
        if prior is None:
            rng = child_rng(plan.seed, TASK, device)
            return rng.choice(np.flatnonzero(eligible), plan.samples, replace=False)
        if plan.references == "active":
            return self._active(prior, self.columns[device], eligible)
        return d_optimal_references(prior, self.features, plan.samples, eligible=eligible)

    def _active(self, prior: LatencyPrior, column: Floats, eligible: Bools) -> Indices:
        """One row after the other, each chosen by the values of those before it."""
        x, samples = self.features, self.plan.samples
        chosen = d_optimal_references(prior, x, min(N_START, samples), eligible=eligible).tolist()
        while len(chosen) < samples:
            posterior = prior.adapt(x[chosen], column[chosen])
            left = eligible.copy()
            left[chosen] = False
            chosen.append(next_network(posterior, x, eligible=left, seed=self.plan.seed))
        return np.array(chosen, dtype=np.int64)


def _known_columns(tables: BenchTables, plan: LatencyBenchPlan) -> dict[str, Floats]:
    """Columns of all devices that may become known ones; left out devices among them."""
    names = list(plan.train_devices)
    if plan.leave_one_out:
        names += [name for name in plan.devices if name not in names]
    columns = tables.metric(plan.train_metric)
    missing = [name for name in names if name not in columns]
    if missing and plan.train_metric == "energy" and missing[0] in tables.latency_ms:
        raise ConfigError(
            f"device {missing[0]!r} has no energy in the tables",
            hint="--train-metric latency learns from latencies, as searches do; energies there are "
            f"of {', '.join(sorted(columns))}",
        )
    return {name: tables.device(name, metric=plan.train_metric) for name in names}
