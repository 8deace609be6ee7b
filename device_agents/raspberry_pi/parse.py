"""What vcgencmd prints. A text that is not what it should be raises ValueError, never a guess."""

from __future__ import annotations

import re

_BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
"""Bits 0-3: now; bits 16-19: the same since boot. Source: Raspberry Pi documentation."""


def throttled(text: str) -> tuple[list[str], list[str]]:
    """(now, since boot) of ``throttled=0x50005``, or of sysfs's ``50005``."""
    found = re.match(r"(?:throttled=0x)?([0-9a-fA-F]{1,8})$", text.strip())
    if found is None:
        raise ValueError(text)
    bits = int(found.group(1), 16)
    now = [name for index, name in enumerate(_BITS) if bits >> index & 1]
    sticky = [name for index, name in enumerate(_BITS) if bits >> (16 + index) & 1]
    return now, sticky


def clock_hz(text: str) -> int:
    """Of ``frequency(48)=1500398464``."""
    return int(_value(r"frequency\(\d+\)=(\d+)", text))


def temperature_c(text: str) -> float:
    """Of ``temp=42.8'C``."""
    return float(_value(r"temp=(\d+\.\d+)'C", text))


def version(text: str) -> str:
    """Date and commit of ``vcgencmd version`` or ``bootloader_version``."""
    commit = re.search(r"^version ([0-9a-f]{6,40})\b", text, re.MULTILINE)
    date = re.match(r"(\w{3} +\d+ \d{4}|\d{4}/\d\d/\d\d) \d\d:\d\d:\d\d\s*$", text, re.MULTILINE)
    if commit is None or date is None:
        raise ValueError(text)
    return "%s (%s)" % (" ".join(date.group(1).split()), commit.group(1)[:8])


def _value(pattern: str, text: str) -> str:
    found = re.match(pattern + "$", text.strip())
    if found is None:
        raise ValueError(text)
    return found.group(1)
