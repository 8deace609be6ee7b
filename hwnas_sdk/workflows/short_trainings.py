"""Which candidates a selection has trained already: a file that survives the process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.ids import canonical_json


class Trained:
    """Results of the candidates that are trained already, in a file."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(canonical_json(identity))
        self.results: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._read(path)

    def under_way(self, number: int) -> Path | None:
        """Checkpoint of one candidate's training."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.{number + 1}")

    def add(self, arch: str, losses: Sequence[float], accuracy_pct: float) -> None:
        """Keep a result."""
        self.results[arch] = {"losses": list(losses), "accuracy_pct": accuracy_pct}
        if self.path is not None:
            document = {"identity": self.identity, "results": self.results}
            write_text_atomic(self.path, canonical_json(document))

    def drop(self, under_way: Path | None) -> None:
        """Remove the checkpoint of a training whose result is kept."""
        if under_way is not None:
            under_way.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            same = document["identity"] == self.identity
            self.results = dict(document["results"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ModelError(
                f"the checkpoint {path} cannot be read: {type(exc).__name__}",
                code="checkpoint_damaged",
                hint="delete it to start over",
            ) from exc
        if not same:
            raise ModelError(
                f"the checkpoint {path} belongs to another selection",
                code="other_checkpoint",
                hint="delete it to start over, or name another file",
            )
