"""Numbers, names and nested values as the text a reader sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwnas_sdk.core.errors import SpaceError
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING
from hwnas_sdk.spaces.nasbench201 import NasBench201

ENERGY_REASONS = {
    "no_sensor": "no power sensor that can be read was found (no_sensor)",
    "charging": "the device is on a charger, so its battery says nothing (charging)",
    "rail_unknown": "nobody said which power rail is the whole board (rail_unknown)",
    "bad_option": "the power source asked for is not there (bad_option)",
    "parse_failed": "the power sensor answered something else than a number (parse_failed)",
    "sensor_failed": "the power sensor could not be read all the time (sensor_failed)",
    "sensor_overflow": "the power went beyond the sensor's range (sensor_overflow)",
    "sensor_gap": "readings of the power sensor came too late (sensor_gap)",
    "sensor_stuck": "the power sensor repeated one reading (sensor_stuck)",
    "below_sensor_floor": "the networks draw less than the sensor can tell (below_sensor_floor)",
    "sensor_permission": "the power sensor may not be read by this user (sensor_permission)",
}

MISSING = "\N{EN DASH}"


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals for a column: two, more where the smallest value needs them for three digits."""
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    if not sizes:
        return 2
    return min(6, max(2, 2 - math.floor(math.log10(min(sizes)))))


def number(value: float | None, decimals: int) -> str:
    """Fixed decimals; a dash for a missing value."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def half_width(value: float | None, decimals: int) -> str:
    """``± 0.03``, never a misleading ``± 0.00``; empty when unknown."""
    if value is None or not math.isfinite(value):
        return ""
    smallest = 10.0**-decimals
    return f"± <{smallest:.{decimals}f}" if value < smallest / 2 else f"± {value:.{decimals}f}"


def signed_pct(value: float | None, decimals: int = 1) -> str:
    """``+3.1 %`` with a real minus sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:+.{decimals}f} %".replace("-", "\N{MINUS SIGN}")


def milliseconds(value: float, ci95: float | None = None) -> str:
    """``12.35 ± 0.08 ms``."""
    decimals = decimals_for([value])
    spread = half_width(ci95, decimals)
    return f"{number(value, decimals)} {spread} ms" if spread else f"{number(value, decimals)} ms"


def times(ratio: float) -> str:
    """``3.2 times``."""
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def counted(n: int, one: str, many: str = "") -> str:
    """``1 network``, ``24 networks``."""
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


def short_name(arch: str) -> str:
    """``#1234`` for a NAS-Bench-201 cell (every command accepts it), else the text, shortened."""
    space = NasBench201()
    try:
        return f"#{space.index(space.decode(arch))}"
    except SpaceError:
        return arch if len(arch) <= 40 else f"{arch[:18]}…{arch[-18:]}"


def explain(flag: str, extra: Mapping[str, str]) -> str:
    """Meaning of a flag; an unknown one says so."""
    known = {**INVALIDATING, **INFORMATIVE}
    return extra.get(flag) or known.get(flag) or "no explanation recorded"


def millijoules(value: float | None) -> str:
    """Energy with its unit; nothing when there is none."""
    return "" if value is None else f"{number(value, decimals_for([value]))} mJ"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def energy_reason(reason: str) -> str:
    """Why an energy is missing, in words; `reason` is an agent's code or already a sentence."""
    return ENERGY_REASONS.get(reason, reason) or "the reason was not recorded"


def _scalar(value: Any) -> str:
    if value is None:
        return "not readable"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        same = len(value) > 1 and all(item == value[0] for item in value)
        shown = [_scalar(item) for item in value]
        return f"{shown[0]} (all {len(value)})" if same else ", ".join(shown) or "none"
    return str(value)


def flattened(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Key and text of every leaf; nested keys are joined by dots."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            rows.extend(flattened(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", _scalar(value)))
    return rows
