"""Names of the files beside trained weights."""

from __future__ import annotations

from pathlib import Path


def checkpoint_of(output: Path) -> Path:
    """Where a training keeps what it needs to go on; removed once all is done."""
    return output.with_suffix(".checkpoint")
