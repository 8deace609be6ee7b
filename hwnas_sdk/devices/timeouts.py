"""How long each wait for a board may take."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas_sdk.core.settings import MeasureSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each wait may take, in seconds.

    Attributes:
        start_s: from starting the agent to its first answer.
        reply_s: an answer to a request.
        probe_s: a probe, which imports the runtimes.
        silence_s: no event during a job: then the agent is asked whether it still lives.
        job_grace_s: what a job may take beyond the deadline the board has for it.
        lease_own_s: waiting for a job of the same owner (another process of ours, or an orphan).
        lease_other_s: waiting for somebody else's.
        lease_poll_s: between two attempts.
        close_s: for the agent to end by itself.
        ping_s: between two signs of life to a remote board.
        reconnect_s: for a board to come back after its link was lost.
    """

    start_s: float = 30.0
    reply_s: float = 20.0
    probe_s: float = 90.0
    silence_s: float = 20.0
    job_grace_s: float = 30.0
    lease_own_s: float = 900.0
    lease_other_s: float = 10.0
    lease_poll_s: float = 0.1
    close_s: float = 3.0
    ping_s: float = 5.0
    reconnect_s: float = 120.0


def job_deadline_s(settings: MeasureSettings, n_items: int) -> float:
    """Seconds after which the board itself ends a job; generous, it only has to be finite."""
    per_item_s = settings.warmup_max_s + max(settings.max_timed_s, settings.min_timed_s) + 10.0
    if settings.energy:
        per_item_s += 60.0
    return 60.0 + 3.0 * n_items * per_item_s
