"""What is said under the table of a round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas_sdk.cli.lab import why_not_measured
from hwnas_sdk.cli.main import main
from hwnas_sdk.core.flags import INVALIDATING
from hwnas_sdk.core.types import Verdict, VerifiedCandidate

GOOD = VerifiedCandidate(
    arch="a", arch_id="s:1", error_pct=9.0, predicted_ms=1.0, predicted_sd_ms=0.1, measured_ms=1.1,
    ci95_ms=0.01, peak_memory_mib=50.0, energy_mj=None, flags=("virtualised",),
    on_predicted_front=True, on_measured_front=True,
)  # fmt: skip


def verdict_of(*flags: tuple[str, ...]) -> Verdict:
    """One good candidate, and one without a valid measurement for each of `flags`."""
    bad = [replace(GOOD, measured_ms=None, flags=entry) for entry in flags]
    return Verdict(
        device_id="x@1", run_id="r", round=1, candidates=(GOOD, *bad), spearman=None, kendall=None,
        mape_pct=None, hypervolume_predicted=0.5, hypervolume_measured=0.5,
        hypervolume_reference=(10.0, 10.0), dominated_after_measuring=(), n_tied_pairs=0,
    )  # fmt: skip


def test_nothing_is_said_where_all_were_measured() -> None:
    assert why_not_measured(verdict_of()) == ""


def test_the_commonest_reason_is_told_and_what_to_do() -> None:
    drift = ("virtualised", "sentinel_drift")
    said = why_not_measured(verdict_of(drift, ("timeout",), drift))
    assert said.startswith("3 without a valid measurement, 2 of them sentinel_drift: ")
    assert INVALIDATING["sentinel_drift"] in said
    assert "hwnas doctor" in said


def test_quiet_does_not_help_against_what_is_wrong_otherwise() -> None:
    said = why_not_measured(verdict_of(("output_mismatch",)))
    assert "1 of them output_mismatch" in said
    assert "doctor" not in said


def test_the_command_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["loop", "--device", "fake://?mode=crash_item=1", "--rounds", "1", "--candidates", "8"]
    assert main([*asked, "-q"]) == 0
    assert "1 without a valid measurement: they failed on the device" in capsys.readouterr().out
