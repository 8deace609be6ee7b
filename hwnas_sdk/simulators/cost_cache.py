"""Layer costs on disk: one small file per layer, accelerator, engine version and model version.

Two processes may work in one folder: a file appears whole or not at all, and both would write the
same content.
"""

from __future__ import annotations

import json
from pathlib import Path

from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.ids import canonical_json, content_id
from hwnas_sdk.simulators.description import AcceleratorDescription
from hwnas_sdk.simulators.workload import ArrayWork
from hwnas_sdk.simulators.zigzag_engine import ArrayCost

MODEL_VERSION = 1
"""Raised when the same description would give other numbers because our code changed."""


class CostCache:
    """Costs of layers on one accelerator, kept under `folder`."""

    def __init__(
        self, folder: Path, description: AcceleratorDescription, engine_version: str
    ) -> None:
        """Use `folder`, which need not exist."""
        # The precision is part of the description's hash.
        self._identity = [description.content_hash, engine_version, MODEL_VERSION]
        self._folder = folder / description.content_hash[:16]

    def get(self, work: ArrayWork) -> ArrayCost | None:
        """Stored cost of `work`; None when there is none or its file is damaged."""
        try:
            data = json.loads(self._path(work).read_text(encoding="utf-8"))
            if data["identity"] != self._identity or data["work"] != work.to_json():
                return None
            return ArrayCost(**data["cost"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, work: ArrayWork, cost: ArrayCost) -> None:
        """Keep `cost`.

        Raises: DataError when the file cannot be written.
        """
        document = {"identity": self._identity, "work": work.to_json(), "cost": cost.to_json()}
        write_text_atomic(self._path(work), canonical_json(document))

    def _path(self, work: ArrayWork) -> Path:
        return self._folder / f"{content_id([self._identity, work.to_json()], length=32)}.json"
