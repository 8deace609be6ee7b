"""From a `MeasureJob` to what the agent is asked: files on the board, one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.jobs import ItemResult, JobItem, MeasureJob
from hwnas_sdk.devices.transports.base import Transport
from hwnas_sdk.devices.wire import Message

_BAD_FILE = frozenset({"artifact_corrupt", "artifact_missing"})


class JobFiles:
    """A job's files, pushed to the board.

    Attributes:
        bad: items that cannot be sent, by name. One bad file must not stop the others.
        items: the requests of the rest.
        sentinel: the request of the reference network.

    Raises: DeviceError for what concerns the board ("no_space"), or a bad sentinel.
    """

    def __init__(self, transport: Transport, job: MeasureJob, *, device_id: str) -> None:
        self._transport = transport
        self._device_id = device_id
        self.bad: dict[str, ItemResult] = {}
        self.items: list[Message] = []
        artifacts = [entry.artifact for entry in job.items]
        transport.push_all(
            [
                (Path(artifact.path), artifact.sha256)
                for artifact in (*artifacts, job.sentinel)
                if artifact is not None
            ]
        )
        for entry in job.items:
            try:
                path = self._push(entry.artifact)
            except DeviceError as exc:
                if exc.code not in _BAD_FILE:
                    raise
                self.bad[entry.item] = ItemResult(
                    item=entry.item, error_code=exc.code, error_message=exc.message
                )
                continue
            self.items.append(_item_request(entry, path))
        self.sentinel: Message | None = None
        if job.sentinel is not None:
            self.sentinel = {
                "sha256": job.sentinel.sha256,
                "path": self._push(job.sentinel),
                "inputs": _inputs_of(job.sentinel),
            }

    def _push(self, artifact: Artifact | None) -> str:
        if artifact is None:
            raise DeviceError(
                "the job names no file to run",
                device_id=self._device_id,
                code="artifact_missing",
            )
        return self._transport.push(Path(artifact.path), artifact.sha256)


def options_of(
    job: MeasureJob, *, governor: str | None, providers: Sequence[str] = ()
) -> Mapping[str, Any]:
    """What the board is asked to set; the answer says what it could."""
    return {
        "runtime": job.settings.runtime,
        "threads": job.settings.threads,
        "affinity": "auto",
        "nice": -20,
        "providers": list(providers) if providers and job.settings.runtime == "ort" else None,
        "governor": governor,
    }


def _item_request(entry: JobItem, path: str) -> Message:
    assert entry.artifact is not None
    return {
        "item": entry.item,
        "sha256": entry.artifact.sha256,
        "path": path,
        "expected": None if entry.expected is None else list(entry.expected),
        "input_seed": entry.input_seed,
        "inputs": _inputs_of(entry.artifact),
        "tuned": entry.artifact.tuned,
    }


def _inputs_of(artifact: Artifact) -> list[list[Any]] | None:
    """``[name, shape, type]`` of each input; a compiled library cannot be asked for them."""
    return [[name, list(shape), kind] for name, shape, kind in artifact.inputs] or None
