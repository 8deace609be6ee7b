"""From rows to a labelled data set with a manifest.

A data set is a query, rebuilt and never edited: the manifest says what was asked, what was left out
and how labels were combined, and names the rows by their SHA-256. Invalid records and numbers taken
under emulation never come out, and numbers that mean different things are never mixed.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.spaces.base import SearchSpace
from hwnas_sdk.store import queries
from hwnas_sdk.store.sqlite import MeasurementStore

METRICS: Final = (
    "latency_ms",
    "latency_p90_ms",
    "first_ms",
    "load_ms",
    "energy_mj",
    "energy_net_mj",
    "peak_memory_mib",
)
FILE_SPACE: Final = "file"
MANIFEST_SCHEMA: Final = 1

# Numbers that differ in one of these are not the same quantity.
_QUANTITY: Final = ("space", "origin", "runtime", "threads", "batch", "folded")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledDataset:
    """Architectures of one space with one label each, in ascending order of genotype.

    Attributes:
        arch_ids: n identities.
        genotypes: (n, n_decisions).
        values: (n,) labels, in the unit the metric's name ends in; finite.
        ci95: half-width of the 95 % confidence interval of each label, None where not known.
        manifest: JSON object: filters, quantity, combination, counts, ``rows_sha256``, split.
    """

    arch_ids: tuple[str, ...]
    genotypes: NDArray[np.int64]
    values: NDArray[np.float64]
    ci95: tuple[float | None, ...]
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.arch_ids)

    @property
    def manifest_sha256(self) -> str:
        """Identity of the data set: what was asked and every row that came out."""
        return content_id(dict(self.manifest))


def build_dataset(
    store: MeasurementStore,
    *,
    device_id: str,
    metric: str = "latency_ms",
    origin: str | None = None,
    settings_id: str | None = None,
    space: str | None = None,
    folded: bool | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    run_id: str | None = None,
) -> LabelledDataset:
    """Labels of one device.

    Several valid measurements of one architecture become their median; its interval is then the
    widest of theirs, and at least half their spread.

    Args:
        store: where the measurements are.
        device_id: whose.
        metric: one of `METRICS`.
        origin: filter; None takes all, here and below.
        settings_id: filter.
        space: filter; users' own files come out only for "file".
        folded: filter; unknown, hence not selectable, where no file was deployed.
        runtime: filter.
        threads: filter.
        batch: filter.
        run_id: filter.

    Raises: DataError unknown_metric, unknown_device; emulated_device; ambiguous_dataset when what
        is left mixes spaces, origins, runtimes, threads, batches, or folded and unfolded
        networks; empty_dataset.
    """
    if metric not in METRICS:
        raise DataError(
            f"unknown metric {metric!r}", code="unknown_metric", hint=f"one of {', '.join(METRICS)}"
        )
    device = store.device(device_id)
    if device.machine == "emulated":
        raise DataError(
            f"{device.name} is emulated; its times never enter a data set",
            code="emulated_device",
            hint="measure on the real board",
        )
    equal = {"space": space, "folded": None if folded is None else int(folded)}
    equal |= {"runtime": runtime, "threads": threads, "batch": batch}
    with store.reading() as connection:
        rows, dropped = _usable(
            queries.joined_rows(
                connection,
                device_id=device_id,
                origin=origin,
                settings_id=settings_id,
                run_id=run_id,
            ),
            metric,
            {name: value for name, value in equal.items() if value is not None},
        )
    if not rows:
        raise DataError(
            f"no usable {metric} of {device.name} in the store"
            f" ({_list(dropped) or 'nothing was measured with these filters'})",
            code="empty_dataset",
            hint="measure first, or loosen the filters",
        )
    quantity = _quantity(rows, device.name)
    arch_ids, genotypes, values, ci95, canonical = _combine(rows, metric)
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "device": {"id": device.id, "name": device.name, "machine": device.machine},
        "metric": metric,
        "filters": {"origin": origin, "settings_id": settings_id, "run_id": run_id, **equal},
        "quantity": quantity,
        "settings": sorted({row["settings"] for row in rows}),
        "combine": "median",
        "normalisation": None,
        "counts": {
            "architectures": len(arch_ids),
            "measurements": len(rows),
            "combined": sum(n > 1 for n in Counter(row["arch_id"] for row in rows).values()),
            "left_out": dict(sorted(dropped.items())),
        },
        "rows_sha256": content_id(canonical),
        "split": None,
    }
    return LabelledDataset(arch_ids, genotypes, values, ci95, manifest)


def split_by_family(
    dataset: LabelledDataset,
    space: SearchSpace,
    test_fraction: float,
    rng: np.random.Generator,
) -> tuple[LabelledDataset, LabelledDataset]:
    """Split into (train, test) so that no two sides hold networks that compute the same function.

    Whole families go to the test side, in random order, as long as that brings its share closer to
    `test_fraction`; each side gets at least one.

    Raises: DataError bad_split when the fraction is not inside (0, 1) or there is one family only.
    """
    if not 0 < test_fraction < 1:
        raise DataError(
            f"test_fraction must lie inside (0, 1), got {test_fraction}", code="bad_split"
        )
    members: dict[Hashable, list[int]] = {}
    for i, genotype in enumerate(dataset.genotypes):
        members.setdefault(space.family(space.architecture(genotype)), []).append(i)
    if len(members) < 2:
        raise DataError(
            f"all {len(dataset)} networks compute the same function and cannot be split",
            code="bad_split",
            hint="measure more networks",
        )
    families = list(members.values())
    wanted = test_fraction * len(dataset)
    test: list[int] = []
    n_test_families = 0
    for i in rng.permutation(len(families)):
        family = families[i]
        if n_test_families == len(families) - 1:
            break
        if not test or abs(len(test) + len(family) - wanted) < abs(len(test) - wanted):
            test += family
            n_test_families += 1
    train = sorted(set(range(len(dataset))) - set(test))
    split = {"by": "function family", "test_fraction": test_fraction, "families": len(families)}
    return (
        _subset(dataset, train, {**split, "side": "train"}),
        _subset(dataset, sorted(test), {**split, "side": "test"}),
    )


def _usable(
    candidates: Iterable[sqlite3.Row], metric: str, equal: Mapping[str, Any]
) -> tuple[list[sqlite3.Row], Counter[str]]:
    """Rows that may be labels, and why the others may not."""
    rows: list[sqlite3.Row] = []
    dropped: Counter[str] = Counter()
    for row in candidates:
        if row["space"] == FILE_SPACE and equal.get("space") != FILE_SPACE:
            dropped["user_file"] += 1
        elif any(row[name] != value for name, value in equal.items()):
            dropped["filtered"] += 1
        elif row["machine"] == "emulated" or "emulated" in json.loads(row["flags"]):
            dropped["emulated"] += 1
        elif row["status"] != "valid":
            dropped["invalid"] += 1
        elif row[metric] is None:
            dropped["without_value"] += 1
        else:
            rows.append(row)
    return rows, dropped


def _quantity(rows: Sequence[sqlite3.Row], device: str) -> dict[str, Any]:
    """What all rows have in common; refuses a mixture."""
    common: dict[str, Any] = {}
    for name in _QUANTITY:
        found = sorted({row[name] for row in rows}, key=repr)
        if len(found) > 1:
            shown = ", ".join(str(value) for value in found)
            raise DataError(
                f"measurements of {device} differ in {name} ({shown}) and are not one data set",
                code="ambiguous_dataset",
                hint=f"choose one value of {name}",
            )
        common[name] = found[0]
    folded = common["folded"]
    return {**common, "folded": None if folded is None else bool(folded)}


def _combine(
    rows: Sequence[sqlite3.Row], metric: str
) -> tuple[
    tuple[str, ...],
    NDArray[np.int64],
    NDArray[np.float64],
    tuple[float | None, ...],
    list[Any],
]:
    """One label an architecture, and the canonical rows the manifest's hash is of."""
    groups: dict[tuple[tuple[int, ...], str], list[sqlite3.Row]] = {}
    for row in rows:
        key = (tuple(json.loads(row["genotype"])), row["arch_id"])
        groups.setdefault(key, []).append(row)
    keys = sorted(groups)
    values, ci95, canonical = [], [], []
    for genotype, arch_id in keys:
        group = sorted(
            groups[genotype, arch_id], key=lambda r: (r["run_id"], r["item"], r["attempt"])
        )
        label = statistics.median(row[metric] for row in group)
        interval = _interval(group) if metric == "latency_ms" else None
        values.append(label)
        ci95.append(interval)
        sources = [[row["run_id"], row["item"], row["attempt"], row[metric]] for row in group]
        canonical.append([arch_id, list(genotype), label, interval, sources])
    return (
        tuple(arch_id for _, arch_id in keys),
        np.array([genotype for genotype, _ in keys], dtype=np.int64).reshape(len(keys), -1),
        np.array(values, dtype=np.float64),
        tuple(ci95),
        canonical,
    )


def _interval(group: Sequence[sqlite3.Row]) -> float | None:
    """Half-width for the median of repeated labels: never narrower than they disagree."""
    widths: list[float] = [row["ci95_ms"] for row in group if row["ci95_ms"] is not None]
    if len(widths) < len(group):
        return None
    labels: list[float] = [row["latency_ms"] for row in group]
    return max((max(labels) - min(labels)) / 2, *widths)


def _subset(
    dataset: LabelledDataset, indices: Sequence[int], split: Mapping[str, Any]
) -> LabelledDataset:
    arch_ids = tuple(dataset.arch_ids[i] for i in indices)
    manifest = {**dataset.manifest, "split": {**split, "arch_ids_sha256": content_id(arch_ids)}}
    manifest["counts"] = {**manifest["counts"], "architectures": len(arch_ids)}
    return LabelledDataset(
        arch_ids,
        dataset.genotypes[list(indices)],
        dataset.values[list(indices)],
        tuple(dataset.ci95[i] for i in indices),
        manifest,
    )


def _list(dropped: Counter[str]) -> str:
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in sorted(dropped.items()))
