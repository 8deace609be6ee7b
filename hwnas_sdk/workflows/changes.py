"""What changed between two runs, from the facts that lie beside their measurements.

A device is described once in the store, always as it was seen last; so that a board can be compared
with itself before an update, every measurement carries what was true of it (`environment`: what the
board is, `environment.options`: how it ran). Records of older versions lack the first of these:
such facts are "not recorded", never guessed from what the board is today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwnas_sdk.core.types import DeviceSpec, Measurement
from hwnas_sdk.report.data import Change
from hwnas_sdk.store.sqlite import Run

TEMPERATURE_TOL_C: Final = 1.0
"""A range of temperatures that moved by less is the same range."""

_VOLATILE: Final = frozenset(
    {
        "clock", "conditions", "disk_free_mib", "end", "freq_khz", "load1", "measured_at",
        "memory_available_mib", "pressure_cpu_pct", "recovered", "requested", "steal_s",
        "temperature_c",
    }
)  # fmt: skip
"""Differs from job to job without anything having been changed."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run, and where its facts are looked up.

    Attributes:
        run: the run.
        spec: its device, as last seen.
        measurements: its records.
    """

    run: Run
    spec: DeviceSpec
    measurements: Sequence[Measurement]

    @property
    def settings(self) -> Mapping[str, Any]:
        """`MeasureSettings.to_json()` of the run."""
        settings = self.run.plan.get("settings")
        return settings if isinstance(settings, Mapping) else {}

    def of(self, *path: str) -> str | None:
        """Fact at `path` of the environment; several values of one run are joined by " + "."""
        found = [_text(_at(m.environment, path)) for m in self.measurements]
        return " + ".join(dict.fromkeys(text for text in found if text is not None)) or None

    def temperatures_c(self) -> tuple[float, float] | None:
        """Lowest and highest temperature at the start or end of a job; None where unreadable."""
        paths = (("temperature_c",), ("end", "temperature_c"))
        values = [_at(m.environment, path) for m in self.measurements for path in paths]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return (min(known), max(known)) if known else None


def changes_between(before: RunFacts, after: RunFacts) -> tuple[list[Change], list[str]]:
    """What differs, and the names of the facts neither run recorded."""
    changed, unknown = [], []
    for what, fact in _NAMED.items():
        left, right = fact(before), fact(after)
        if left != right:
            changed.append(Change(what, left, right))
        elif left is None and what in _EXPECTED:
            unknown.append(what)
    changed += _other_changes(before, after)
    changed += [
        Change(f"settings: {key}", _text(before.settings.get(key)), _text(after.settings.get(key)))
        for key in dict.fromkeys([*before.settings, *after.settings])
        if before.settings.get(key) != after.settings.get(key)
    ]
    temperature = _temperature_change(before, after)
    if temperature is not None:
        changed.append(temperature)
    elif before.temperatures_c() is None:
        unknown.append("temperature")
    return changed, unknown


def _at(mapping: Mapping[str, Any], path: Sequence[str]) -> object:
    value: Any = mapping
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: object) -> str | None:
    """One line for a value; None when there is none."""
    match value:
        case None | "":
            return None
        case bool():
            return "yes" if value else "no"
        case Mapping():
            parts = [f"{key} {text}" for key in sorted(value) if (text := _text(value[key]))]
            return ", ".join(parts) or None
        case list() | tuple():
            return ", ".join(filter(None, map(_text, value))) or None
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _runtime(facts: RunFacts) -> str | None:
    name = facts.of("options", "runtime") or _text(facts.settings.get("runtime"))
    # The version's key was named after the only runtime there was.
    version = facts.of("options", "runtime_version") or facts.of("options", "ort_version")
    return " ".join(part for part in (name, version) if part) or None


def _agent(facts: RunFacts) -> str | None:
    version, sha = facts.of("board", "agent_version"), facts.of("board", "agent_sha")
    return f"{version or '?'} ({sha[:12]})" if sha else version


def _clock(facts: RunFacts) -> str | None:
    khz = facts.of("freq_max_khz")
    return f"{int(khz) / 1000:g} MHz" if khz and khz.isdecimal() else khz


def _fact(*path: str) -> Callable[[RunFacts], str | None]:
    return lambda facts: facts.of(*path)


_NAMED: Final[Mapping[str, Callable[[RunFacts], str | None]]] = {
    "device": lambda facts: facts.spec.name,
    "board identity": lambda facts: facts.spec.id.rpartition("@")[2],
    "board": lambda facts: facts.of("board", "model") or facts.of("board", "soc"),
    "operating system": _fact("board", "os"),
    "kernel": _fact("board", "kernel"),
    "firmware": lambda facts: (
        # Raspberry Pi's, NVIDIA's release of Linux, Android's build.
        facts.of("board", "firmware") or facts.of("board", "l4t") or facts.of("board", "build")
    ),
    "runtime": _runtime,
    "installed runtimes": _fact("board", "runtimes"),
    "providers": _fact("options", "providers"),
    "tuned": _fact("options", "tuned"),
    "Python on the board": lambda facts: facts.of("options", "python"),
    "agent": _agent,
    "hwnas_sdk": lambda facts: _text(facts.run.plan.get("sdk_version")),
    "governor": _fact("governor"),
    "governor between jobs": _fact("options", "governor", "before"),
    "power mode": _fact("conditions", "power_mode"),
    "boost": _fact("boost"),
    "highest clock": _clock,
    "cores used": _fact("options", "cores"),
    "threads": _fact("options", "threads"),
    "nice": _fact("options", "nice"),
}

_EXPECTED: Final = frozenset(
    {"operating system", "kernel", "firmware", "runtime", "agent", "governor", "power mode"}
)
"""Worth saying when neither run knows them."""

_SHOWN: Final = frozenset(
    {
        ("board", key)
        for key in (
            "agent_sha", "agent_version", "build", "firmware", "kernel", "l4t", "model", "os",
            "python", "runtimes", "soc",
        )
    }
    | {
        ("options", key)
        for key in (
            "cores", "governor", "nice", "ort_version", "providers", "python", "runtime",
            "runtime_version",
            "threads", "tuned",
        )
    }
    | {(key,) for key in ("boost", "freq_max_khz", "governor")}
)  # fmt: skip
"""Has a name of its own in `_NAMED`."""


def _other_changes(before: RunFacts, after: RunFacts) -> list[Change]:
    """Everything else that was recorded, holds for a whole run and differs."""
    paths: dict[tuple[str, ...], None] = {}
    for facts in (before, after):
        for m in facts.measurements:
            for key, value in m.environment.items():
                inner = value if key in ("board", "options") else None
                names = [(key, name) for name in inner] if isinstance(inner, Mapping) else [(key,)]
                paths |= dict.fromkeys(name for name in names if name[0] not in _VOLATILE)
    rows = [
        Change(": ".join(path).replace("_", " "), before.of(*path), after.of(*path))
        for path in paths
        if path not in _SHOWN
    ]
    return [row for row in rows if row.before != row.after]


def _temperature_change(before: RunFacts, after: RunFacts) -> Change | None:
    left, right = before.temperatures_c(), after.temperatures_c()
    if left is not None and right is not None:
        moved = max(abs(a - b) for a, b in zip(left, right, strict=True))
        if moved < TEMPERATURE_TOL_C:
            return None
    elif left == right:
        return None
    return Change("temperature", *(_range_c(span) for span in (left, right)))


def _range_c(span: tuple[float, float] | None) -> str | None:
    return None if span is None else f"{span[0]:.0f} to {span[1]:.0f} °C"
