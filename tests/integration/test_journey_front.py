"""Profile, search, verify: what a board is added for, on the emulated board, over SSH and ADB.

A board that answers too late leaves a profile without enough references, and the command says so
with exit status 5. Then the front that is verified is one of the small networks instead of one that
was searched from the profile: the way to the board and back is the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from integration_host import MEASURED, OUTPUT_FLAGS, Reached, nothing_left
from integration_models import SMALL

from hwnas_sdk.core.types import Candidate, ParetoFront
from hwnas_sdk.spaces.nasbench201 import NasBench201
from hwnas_sdk.store.sqlite import MeasurementStore
from hwnas_sdk.workflows.fronts import front_to_mapping

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

N_CANDIDATES = 3


def profile(reached: Reached, figures: dict[str, str]) -> bool:
    """Profile the board; whether there are enough valid references to search from."""
    said = reached.host.ask("profile", reached.name, timeout_s=1200)
    assert said.status in MEASURED, said.errors
    figures[f"{reached.way}: profile of the reference networks"] = (
        f"{said.wall_s:.1f} s, exit {said.status}"
    )
    if said.status == 0:
        assert said.data["reference_set"] == "ours-10"
        assert len(said.data["latency_ms"]) + len(said.data["missing"]) == 10
        assert "emulated" in said.data["flags"]
        assert min(said.data["latency_ms"]) > 0
        return True
    assert said.data["error"]["code"] == "profile_incomplete"
    assert reached.name in said.data["error"]["message"]
    return False


def search(reached: Reached, path: Path) -> list[str]:
    """Write a front that was searched from the profile; returns its networks."""
    words = ("search", "--device", reached.name, "--candidates", str(N_CANDIDATES))
    found = reached.host.run(*words, "-o", str(path))["front"]
    assert len(found) == N_CANDIDATES
    assert {entry["origin"] for entry in found} == {"predicted"}
    return [entry["arch"] for entry in found]


def by_hand(reached: Reached, path: Path) -> list[str]:
    """Write a front of small networks with made-up predictions; returns its networks."""
    space = NasBench201()
    with MeasurementStore.open(reached.host.home / "store.sqlite", read_only=True) as store:
        device = next(spec for spec in store.devices() if spec.name == reached.name)
    front = ParetoFront(
        device_id=device.id,
        space=space.name,
        folded=True,
        objectives=("error", "latency"),
        candidates=tuple(
            Candidate(
                architecture=space.decode(arch),
                arch=arch,
                values={"error_pct": 50.0, "latency_ms": 100.0},
            )
            for arch in SMALL
        ),
        method="by hand",
        seed=0,
        n_evaluations=0,
        duration_s=0.0,
    )
    path.write_text(json.dumps(front_to_mapping(front)))
    return list(SMALL)


def test_profile_search_verify(reached: Reached, tmp_path: Path, figures: dict[str, str]) -> None:
    front = tmp_path / "front.json"
    archs = (search if profile(reached, figures) else by_hand)(reached, front)
    verified = reached.host.ask("verify", str(front), "--device", reached.name, timeout_s=900)
    assert verified.status in MEASURED, verified.errors
    figures[f"{reached.way}: verification of {N_CANDIDATES} candidates"] = (
        f"{verified.wall_s:.1f} s, exit {verified.status}"
    )
    if verified.status == 0:
        candidates = verified.data["candidates"]
        assert {entry["arch"] for entry in candidates} == set(archs)
        for entry in candidates:
            assert not OUTPUT_FLAGS & set(entry["flags"])
    assert nothing_left(reached.board)
