"""The main job in one call: profile, search zero-shot, verify, report."""

from __future__ import annotations

from pathlib import Path

from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.loop import LoopPlan, LoopResult
from hwnas_sdk.workflows.search import SearchPlan


def quickstart_plan(
    device_id: str, *, device: str, seed: int = 0, minutes: float = 3.0
) -> LoopPlan:
    """One round: ten references, 24 candidates, settings ``quick``, `minutes` of board time."""
    return LoopPlan(
        device=device,
        device_id=device_id,
        search=SearchPlan(seed=seed),
        settings=settings_preset("quick"),
        rounds=1,
        board_s=60.0 * minutes,
    )


def run_quickstart(
    lab: Lab, session: DeviceSession, plan: LoopPlan, report: Path
) -> tuple[LoopResult, Path]:
    """Run the plan and write the page; an interrupted quickstart continues."""
    result = lab.loop(plan, on=session, kind="quickstart")
    return result, lab.report(result, report)
