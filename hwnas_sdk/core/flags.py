"""What can be said of a measurement beside its number, and what makes it invalid.

Source: docs/measuring.md ("Flags"); the agent raises some, the host raises others. `status` is
derived from the flags by one function and stored nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Status = Literal["valid", "invalid"]

INVALIDATING: dict[str, str] = {
    "contended": "CPU time / wall time below 0.90: other work took the core",
    "steal": "the hypervisor took more than 1 % of the time",
    "throttled": "the board throttled or was under-powered during the run",
    "frequency_changed": "the clock of the used core left its start value",
    "too_hot": "the end temperature was above the limit",
    "sentinel_drift": "the reference network ran at another speed than before",
    "ci_too_wide": "the 95 % confidence interval is wider than 10 %",
    "output_mismatch": "the board's output differs from the host's",
    "output_not_finite": "the network produced NaN or infinities",
    "provider_fallback": "the runtime used another provider than the one asked for",
    "clock_unreliable": "the board's clock disagrees with the host's",
    "timeout": "the deadline passed before enough samples were taken",
    "truncated": "samples are missing",
    "lease_lost": "somebody else took the board during the run",
}

UNSTEADY = frozenset({"contended", "steal", "sentinel_drift", "ci_too_wide"})
"""Of those, what a busy machine does to a measurement."""

INFORMATIVE: dict[str, str] = {
    "imprecise": "the confidence interval is wider than asked for, and below 10 %",
    "unsteady": "the host of an emulated board was busy; its times are no labels anyway",
    "warmup_unstable": "the warm-up ended before two groups agreed",
    "outliers_high": "more than 2 % of the samples lie far from the median",
    "bimodal": "the block medians form two groups more than 5 % apart",
    "governor_not_pinned": "the CPU governor is not 'performance'",
    "affinity_denied": "the process could not be pinned to a core",
    "nice_denied": "the priority could not be raised",
    "virtualised": "measured on a virtual machine",
    "emulated": "measured under emulation; never enters a data set",
    "energy_loop_differs": "the latency of the energy loop is more than 5 % from the label",
    "energy_idle_drift": "the idle power before and after differ: gross energy only, no net",
    "summary_only": "the runner reported summaries, no single samples",
    "output_unchecked": "no reference output to compare with",
    "drift_unchecked": "no sentinel was measured beside it",
}


def status_of(flags: Iterable[str]) -> Status:
    """Return whether a measurement with these `flags` may be used as a label.

    Raises: ValueError on a flag that is not in the vocabulary.
    """
    invalid = False
    for flag in flags:
        if flag in INVALIDATING:
            invalid = True
        elif flag not in INFORMATIVE:
            raise ValueError(f"unknown flag {flag!r}")
    return "invalid" if invalid else "valid"
