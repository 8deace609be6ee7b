"""How a measurement is taken. The numbers live here and nowhere else.

The board receives them as JSON (`MeasureSettings.to_json`), so host and agent cannot disagree.
Source: docs/measuring.md; measurement protocol of warm-up, interleaved blocks and adaptive stop.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.ids import content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """One way of measuring one network.

    Attributes:
        name: quick, standard, publication, fixed or custom.
        warmup_min_s, warmup_min_runs: the warm-up takes at least this long and this many runs,
        warmup_max_s: and ends here even when it has not converged,
        warmup_group_runs, warmup_rel_tol: else once the medians of two consecutive groups agree.
        block_min_s, block_min_runs, block_max_runs: a block is max(block_min_runs,
            ceil(block_min_s / latency)) consecutive inferences, capped.
        min_blocks, max_blocks: blocks per network.
        min_timed_s, max_timed_s: timed seconds per network; adding blocks ends at the maximum.
        ci_rel_target: blocks are added until the half-width of the 95 % confidence interval of the
            label, relative to the label, is at most this; 0 means a fixed number of blocks.
        ci_rel_invalid: above this the record is invalid.
        group_size: networks whose blocks are interleaved.
        sentinel_max_gap_s: the reference network is measured at least this often.
        runtime, threads, batch: what runs and how wide.
        energy: whether energy windows are measured too.
    """

    name: str = "custom"
    warmup_min_s: float = 0.2
    warmup_min_runs: int = 10
    warmup_max_s: float = 5.0
    warmup_group_runs: int = 10
    warmup_rel_tol: float = 0.02
    block_min_s: float = 0.1
    block_min_runs: int = 10
    block_max_runs: int = 2000
    min_blocks: int = 5
    max_blocks: int = 20
    min_timed_s: float = 0.0
    max_timed_s: float = 2.0
    ci_rel_target: float = 0.03
    ci_rel_invalid: float = 0.10
    group_size: int = 8
    sentinel_max_gap_s: float = 60.0
    runtime: str = "ort"
    threads: int = 1
    batch: int = 1
    energy: bool = False

    def __post_init__(self) -> None:
        """Refuse values no board can act on."""
        if self.threads < 1 or self.batch < 1 or self.group_size < 1:
            raise ConfigError("threads, batch and group_size must be at least 1")
        if not 1 <= self.min_blocks <= self.max_blocks:
            raise ConfigError("need 1 <= min_blocks <= max_blocks")
        if min(self.warmup_min_s, self.block_min_s, self.max_timed_s) < 0:
            raise ConfigError("durations must not be negative")

    @property
    def id(self) -> str:
        """Identity of these settings: equal values, equal id."""
        return content_id(self.to_json(), length=16)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object, the form the board receives."""
        return asdict(self)

    def estimated_s(self) -> float:
        """Expected board seconds per network, for plans and progress bars."""
        blocks_s = max(self.min_blocks * self.block_min_s * 1.15, self.min_timed_s)
        return self.warmup_min_s * 1.2 + blocks_s + 0.1 + (35.0 if self.energy else 0.0)


PRESETS: dict[str, MeasureSettings] = {
    "quick": MeasureSettings(name="quick"),
    "standard": MeasureSettings(
        name="standard",
        warmup_min_s=1.0,
        warmup_max_s=15.0,
        block_min_s=0.5,
        block_min_runs=20,
        max_blocks=21,
        max_timed_s=12.0,
        ci_rel_target=0.02,
    ),
    "publication": MeasureSettings(
        name="publication",
        warmup_min_s=1.0,
        warmup_max_s=15.0,
        block_min_s=0.5,
        block_min_runs=20,
        min_blocks=7,
        max_blocks=40,
        min_timed_s=10.0,
        max_timed_s=30.0,
        ci_rel_target=0.02,
    ),
    "fixed": MeasureSettings(
        name="fixed",
        warmup_min_s=1.0,
        warmup_max_s=1.0,
        block_min_s=0.5,
        block_min_runs=1,
        min_blocks=7,
        max_blocks=7,
        max_timed_s=60.0,
        ci_rel_target=0.0,
    ),
}


def settings_preset(name: str, **changes: Any) -> MeasureSettings:
    """Return the preset `name` with `changes` (threads, runtime, energy, batch, ...).

    Raises: ConfigError for an unknown name or field.
    """
    try:
        preset = PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ConfigError(f"unknown settings {name!r}", hint=f"one of {known}") from None
    try:
        return replace(preset, **changes)
    except TypeError as exc:
        raise ConfigError(f"unknown measurement setting: {exc}") from None
