"""Profile, search, verify: what a board is added for, on the emulated board, over SSH and ADB.

A command that ends with exit status 5 has something left to measure. The engineer gives it once
more, and what was measured is kept; that must be enough.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_host import MEASURED, OUTPUT_FLAGS, Reached, Said, nothing_left

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

N_CANDIDATES = 3


def measured(reached: Reached, *words: str, timeout_s: float) -> tuple[Said, str]:
    """Give a command, and once more if something was left; returns its answer and its times."""
    told = []
    for _ in range(2):
        said = reached.host.ask(*words, timeout_s=timeout_s)
        assert said.status in MEASURED, said.errors
        told.append(f"{said.wall_s:.1f} s, exit {said.status}")
        if said.status == 0:
            break
    assert said.status == 0, said.errors
    return said, "; ".join(told)


def test_profile_search_verify(reached: Reached, tmp_path: Path, figures: dict[str, str]) -> None:
    front = tmp_path / "front.json"
    said, told = measured(reached, "profile", reached.name, timeout_s=1200)
    figures[f"{reached.way}: profile of the reference networks"] = told
    assert said.data["reference_set"] == "ours-10"
    assert len(said.data["latency_ms"]) + len(said.data["missing"]) == 10
    assert "emulated" in said.data["flags"]
    assert min(said.data["latency_ms"]) > 0

    words = ("search", "--device", reached.name, "--candidates", str(N_CANDIDATES))
    found = reached.host.run(*words, "-o", str(front))["front"]
    assert len(found) == N_CANDIDATES
    assert {entry["origin"] for entry in found} == {"predicted"}

    said, told = measured(reached, "verify", str(front), "--device", reached.name, timeout_s=900)
    figures[f"{reached.way}: verification of {N_CANDIDATES} candidates"] = told
    candidates = said.data["candidates"]
    assert {entry["arch"] for entry in candidates} == {entry["arch"] for entry in found}
    for entry in candidates:
        assert not OUTPUT_FLAGS & set(entry["flags"])
    assert nothing_left(reached.board)
