"""What NVIDIA's tools print. A text that is not what it should be raises ValueError."""

from __future__ import annotations

import re
from typing import Any


def l4t(text: str) -> str:
    """Version 35.4.1 of ``# R35 (release), REVISION: 4.1, GCID: ...``."""
    found = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*),", text)
    if found is None:
        raise ValueError(text)
    return "%s.%s" % found.groups()


def jetpack(dpkg_status: str) -> str | None:
    """Version of the installed package nvidia-jetpack, None when only parts are installed."""
    pattern = r"^Package: nvidia-jetpack\n(?:\S.*\n|[ \t].*\n)*?Version: (\S+)$"
    found = re.search(pattern, dpkg_status, re.MULTILINE)
    return found.group(1) if found else None


def nvpmodel(text: str) -> tuple[str, int]:
    """(name, number) of ``nvpmodel -q``; its complaints about single knobs do not matter."""
    found = re.search(r"^NV Power Mode: (\S+)\n(\d+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(text)
    return found.group(1), int(found.group(2))


def clocks(text: str) -> dict[str, Any]:
    """Of ``jetson_clocks --show``: {locked, governors, gpu_hz, emc_hz, fan}.

    `locked`: every core that is on, and the GPU where it is listed, has one possible clock.
    """
    cpu = r"^cpu\d+:\s+(?:Online=(\d) )?Gon?vernor=(\S+) MinFreq=(\d+) MaxFreq=(\d+) Current"
    cores = [core for core in re.findall(cpu, text, re.MULTILINE) if core[0] != "0"]
    if not cores:
        raise ValueError(text)
    spans = [core[2:4] for core in cores]
    gpu = _span("GPU", text)
    fan = re.search(r"^(?:Fan: |FAN )(.*)$", text, re.MULTILINE)
    return {
        "locked": all(low == high for low, high in spans + ([gpu[:2]] if gpu else [])),
        "governors": "+".join(sorted({core[1] for core in cores})),
        "gpu_hz": int(gpu[2]) if gpu else None,
        "emc_hz": int(_span("EMC", text)[2]) if _span("EMC", text) else None,
        "fan": fan.group(1).strip() if fan else None,
    }


def _span(name: str, text: str) -> tuple[str, ...]:
    pattern = r"^%s MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)" % name
    found = re.search(pattern, text, re.MULTILINE)
    return found.groups() if found else ()
