"""Which candidates a selection has trained already: a file that survives the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas_sdk.core.ids import plain


class Trained:
    """Results of the candidates that are trained already, in a file."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = plain(identity)
        self.results: dict[str, dict[str, Any]] = {}
        if path is not None:
            from hwnas_sdk.networks.resumable import load_checkpoint

            load_checkpoint(path, self.identity, self.results.update, of="selection")

    def under_way(self, number: int) -> Path | None:
        """Checkpoint of one candidate's training."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.{number + 1}")

    def add(self, arch: str, losses: Sequence[float], accuracy_pct: float) -> None:
        """Keep a result."""
        self.results[arch] = {"losses": list(losses), "accuracy_pct": accuracy_pct}
        if self.path is not None:
            from hwnas_sdk.networks.resumable import save_checkpoint

            save_checkpoint(self.path, self.identity, self.results)

    def drop(self, under_way: Path | None) -> None:
        """Remove the checkpoint of a training whose result is kept."""
        if under_way is not None:
            under_way.unlink(missing_ok=True)
