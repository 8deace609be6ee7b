"""Two runs side by side: two boards, or one board before and after an update."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import hwnas_sdk
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.types import Measurement
from hwnas_sdk.report.compare import render_comparison
from hwnas_sdk.report.data import Change, ComparisonPair, ComparisonSide
from hwnas_sdk.store.sqlite import MeasurementStore, Run
from hwnas_sdk.workflows.changes import RunFacts, changes_between
from hwnas_sdk.workflows.report import device_of_run, resolve_run


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs and what they tell about each other.

    Attributes:
        first, second: the runs; `second` is the one that is judged.
        pairs: one per network both runs measured, in the first run's order.
        changed: what differs between the runs besides the latencies.
        not_recorded: facts that would matter and that neither run knows.
        warnings: why the numbers may not mean the same.
    """

    first: RunFacts
    second: RunFacts
    pairs: tuple[ComparisonPair, ...]
    changed: tuple[Change, ...]
    not_recorded: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def worst_regression_pct(self) -> float | None:
        """Largest slow-down of the second run beyond both intervals; 0 when none is clear.

        None when no network has a valid measurement in both runs.
        """
        changes = [pair for pair in self.pairs if pair.change_pct is not None]
        if not changes:
            return None
        return max((float(p.change_pct or 0.0) for p in changes if p.is_clear), default=0.0)

    @property
    def median_change_pct(self) -> float | None:
        """Median over the networks of how much slower (+) the second run is."""
        changes = [p.change_pct for p in self.pairs if p.change_pct is not None]
        return statistics.median(changes) if changes else None


def compare(store: MeasurementStore, first: str, second: str | None = None) -> Comparison:
    """Compare two runs.

    Folded and unfolded networks are different networks. Invalid measurements count as missing.

    Args:
        store: where both are.
        first: a run (id, unique start of one, "last") or a device, which stands for its newest
            profile; alone it must be a device, whose two newest profiles are compared.
        second: the same, for what is judged.

    Raises: DataError for an unknown run or device, one without profiles ("no_profile"), profiles on
    different reference sets ("other_references"), or no network in common ("nothing_to_compare").
    """
    runs = _newest_two(store, first) if second is None else (
        _find(store, first), _find(store, second),
    )  # fmt: skip
    _check_references(*runs)
    a, b = (_facts_of(store, run) for run in runs)
    pairs = _pairs(store, a, b)
    changed, not_recorded = changes_between(a, b)
    return Comparison(a, b, pairs, tuple(changed), tuple(not_recorded), _warnings(a, b))


def write_comparison(
    comparison: Comparison, path: Path, *, limit_pct: float | None = None, command: str = ""
) -> Path:
    """Write the HTML page that shows two runs side by side; returns the absolute path."""
    page = render_comparison(
        _side(comparison.first, "A"),
        _side(comparison.second, "B"),
        comparison.pairs,
        changed=comparison.changed,
        not_recorded=comparison.not_recorded,
        limit_pct=limit_pct,
        command=command,
    )
    write_text_atomic(path, page)
    return path.resolve()


# --- which runs ---------------------------------------------------------------------------------


def _profiles(store: MeasurementStore, device: str) -> list[Run]:
    """Finished profiles of the device called `device` (or of that id), oldest first.

    By name: a board that was set up anew has another identity, and is what a person compares.
    """
    return [
        run
        for run in store.runs("profile")
        if run.result is not None and device in (run.result.get("name"), run.result["device_id"])
    ]


def _is_device(store: MeasurementStore, name: str) -> bool:
    return any(name in (spec.name, spec.id) for spec in store.devices())


def _find(store: MeasurementStore, reference: str) -> Run:
    """Newest profile of a device, else the run of that id."""
    profiles = _profiles(store, reference)
    if profiles:
        return profiles[-1]
    if _is_device(store, reference):
        raise _no_profile(reference, 0)
    return resolve_run(store, reference)


def _newest_two(store: MeasurementStore, device: str) -> tuple[Run, Run]:
    profiles = _profiles(store, device)
    if len(profiles) >= 2:
        return profiles[-2], profiles[-1]
    if profiles or _is_device(store, device):
        raise _no_profile(device, len(profiles))
    raise DataError(
        f"no measurement in the store is of a device {device!r}",
        code="unknown_device",
        hint="give a device (hwnas devices list), or two runs (hwnas runs list)",
    )


def _no_profile(device: str, n: int) -> DataError:
    found = f"{device} has {'one profile' if n else 'no profile'}"
    return DataError(
        f"{found}; a comparison needs two" if n else f"{found} to compare",
        code="no_profile",
        hint=f"hwnas profile {device}, before and after the change",
    )


def _check_references(first: Run, second: Run) -> None:
    """Refuse two profiles of different reference sets: no number in them means the same."""
    sets = [run.result.get("reference_set") for run in (first, second) if run.result is not None]
    if len(sets) == 2 and None not in sets and sets[0] != sets[1]:
        raise DataError(
            f"the profiles {first.id} and {second.id} are of different reference sets: "
            f"{sets[0]} and {sets[1]}",
            code="other_references",
            hint="profile again with the same --references, or give two runs of one set "
            "(hwnas runs list)",
        )


def _facts_of(store: MeasurementStore, run: Run) -> RunFacts:
    measurements = store.measurements(run_id=run.id)
    if not measurements:
        raise DataError(
            f"run {run.id} ({run.kind}) has no measurements",
            code="empty_run",
            hint="'hwnas runs list' lists those that have",
        )
    return RunFacts(run, device_of_run(store, measurements[0].device_id), measurements)


# --- what they say ------------------------------------------------------------------------------


def _pairs(store: MeasurementStore, a: RunFacts, b: RunFacts) -> tuple[ComparisonPair, ...]:
    first, second = (_by_network(facts.measurements) for facts in (a, b))
    common = [key for key in first if key in second]
    if not common:
        raise DataError(
            f"runs {a.run.id} ({a.run.kind}) and {b.run.id} ({b.run.kind}) have no network "
            "in common",
            code="nothing_to_compare",
            hint="measure the same networks in both (same --seed, both --folded or --unfolded)",
        )
    pairs = []
    for left, right in ((first[key], second[key]) for key in common):
        pairs.append(
            ComparisonPair(
                arch=store.architecture_text(left.arch_id) or left.arch_id,
                a_ms=left.latency_ms if left.status == "valid" else None,
                b_ms=right.latency_ms if right.status == "valid" else None,
                a_ci95_ms=left.ci95_ms,
                b_ci95_ms=right.ci95_ms,
                a_flags=left.flags,
                b_flags=right.flags,
            )
        )
    return tuple(pairs)


def _by_network(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """Best record of each network of a run, keyed by architecture and folding."""
    best: dict[str, Measurement] = {}
    for m in measurements:
        kind = m.item.rpartition("/")[2]
        key = f"{m.arch_id}/{kind}" if kind in ("folded", "unfolded") else m.arch_id
        if key not in best or best[key].status == "invalid":
            best[key] = m
    return best


def _warnings(a: RunFacts, b: RunFacts) -> tuple[str, ...]:
    found = []
    left, right = a.measurements[0].origin, b.measurements[0].origin
    if left != right:
        found.append(f"the latencies of the first run are {left}, those of the second {right}")
    if dict(a.settings) != dict(b.settings):
        found.append("the two runs were measured with different settings")
    emulated = [facts.spec.name for facts in (a, b) if facts.spec.machine == "emulated"]
    if emulated:
        names = " and ".join(dict.fromkeys(emulated))
        found.append(f"{names} is emulated: its latencies say nothing about a real board")
    return tuple(found)


def _side(facts: RunFacts, label: str) -> ComparisonSide:
    first = facts.measurements[0]
    return ComparisonSide(
        label=label,
        run_id=facts.run.id,
        created_at=facts.run.created_at,
        sdk_version=str(facts.run.plan.get("sdk_version", hwnas_sdk.__version__)),
        device=asdict(facts.spec),
        environment=first.environment,
        settings=facts.settings,
        origin=first.origin,
    )
