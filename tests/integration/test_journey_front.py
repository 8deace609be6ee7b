"""Profile, search, verify: what a board is added for, on the emulated board, over SSH and ADB.

A machine that is busy otherwise makes emulated measurements invalid, and the command says so with
exit status 5. Giving it again is what its user would do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_host import OUTPUT_FLAGS, Reached, Said, nothing_left

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

N_CANDIDATES = 3
TRIES = 3
NOT_VALID = 5


def insist(reached: Reached, *words: str) -> Said:
    """Give a command until its measurements are valid."""
    for _ in range(TRIES):
        said = reached.host.ask(*words, timeout_s=900)
        if said.status != NOT_VALID:
            break
        assert reached.name in said.errors
    assert said.status == 0, said.errors
    return said


def test_profile_search_verify(reached: Reached, tmp_path: Path, figures: dict[str, str]) -> None:
    profiled = insist(reached, "profile", reached.name)
    figures[f"{reached.way}: profile of the reference networks"] = f"{profiled.wall_s:.1f} s"
    assert profiled.data["reference_set"] == "ours-10"
    assert len(profiled.data["latency_ms"]) + len(profiled.data["missing"]) == 10
    assert "emulated" in profiled.data["flags"]
    assert min(profiled.data["latency_ms"]) > 0
    front = tmp_path / "front.json"
    words = ("search", "--device", reached.name, "--candidates", str(N_CANDIDATES))
    found = reached.host.run(*words, "-o", str(front))["front"]
    assert len(found) == N_CANDIDATES
    assert {entry["origin"] for entry in found} == {"predicted"}
    verified = insist(reached, "verify", str(front), "--device", reached.name)
    figures[f"{reached.way}: verification of {N_CANDIDATES} candidates"] = (
        f"{verified.wall_s:.1f} s"
    )
    candidates = verified.data["candidates"]
    assert {entry["arch"] for entry in candidates} == {entry["arch"] for entry in found}
    measured = [entry for entry in candidates if entry["measured_ms"] is not None]
    assert measured
    for entry in measured:
        assert entry["measured_ms"] > 0
        assert not OUTPUT_FLAGS & set(entry["flags"])
    assert nothing_left(reached.board)
