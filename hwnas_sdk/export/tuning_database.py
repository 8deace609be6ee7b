"""Tuned layers on disk, reusable by every network of one target.

Layout::

    ROOT/<target>/target.json          what it is for
    ROOT/<target>/layers/<key>/        one tuned layer: TVM's database and layer.json
    ROOT/<target>/tmp/                 layers being tuned; litter after a crash

A layer appears under its name by one rename, whole, so a tuning run may be killed at any time and
the same command goes on with the next layer.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.files import write_text_atomic
from hwnas_sdk.core.ids import canonical_json, content_id
from hwnas_sdk.export.tvm_target import TvmTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedLayer:
    """What tuning found for one layer.

    Attributes:
        key: names it.
        name, shape: for people.
        trials: schedules tried.
        before_us, after_us: the default schedule and the best one, as the tuner timed them alone;
            None where no run succeeded.
        seconds: what tuning took.
        tuned_at: when, ISO 8601.
    """

    key: str
    name: str
    shape: str
    trials: int
    before_us: float | None
    after_us: float | None
    seconds: float
    tuned_at: str


class TuningDatabase:
    """The tuned layers of one target and one TVM version.

    Args:
        root: folder of all targets, e.g. ``HWNAS_HOME/tuning``.
        target: what they are for.
        tvm_version: which TVM wrote them; another one finds none.
    """

    def __init__(self, root: Path, target: TvmTarget, tvm_version: str) -> None:
        self.target = target
        self.folder = root / content_id([target.spec, tvm_version], length=16)
        self._version = tvm_version

    @property
    def id(self) -> str:
        """Identity of the content; "empty" when there is none."""
        entries = [
            [key, (folder / "layer.json").read_text(encoding="utf-8")]
            for key, folder in self._present().items()
        ]
        return content_id(entries, length=16) if entries else "empty"

    @property
    def folders(self) -> list[Path]:
        """Folders of TVM's databases, one per layer."""
        return list(self._present().values())

    def layers(self) -> list[TunedLayer]:
        """What is there, by key; a description that is damaged is left out."""
        found = []
        for folder in self._present().values():
            with contextlib.suppress(ValueError, TypeError, OSError):
                text = (folder / "layer.json").read_text(encoding="utf-8")
                found.append(TunedLayer(**json.loads(text)))
        return found

    @contextlib.contextmanager
    def tuning(self) -> Iterator[None]:
        """Let no other process tune for this target meanwhile; sweeps what a crash left.

        Raises: DataError "tuning_busy" when one does, "not_writable" when the folder cannot be.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as exc:
            raise DataError(
                f"the tuning folder {self.folder} cannot be written: {exc.strerror}",
                code="not_writable",
                hint="set HWNAS_HOME to a folder you can write",
            ) from exc
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(
                    f"another process is tuning for {self.target}",
                    code="tuning_busy",
                    hint="wait for it: both would measure each other",
                    retryable=True,
                ) from None
            shutil.rmtree(self._tmp, ignore_errors=True)
            described = {"target": self.target.spec, "tvm": self._version}
            write_text_atomic(self.folder / "target.json", canonical_json(described) + "\n")
            yield

    def scratch(self) -> Path:
        """Name of a new folder for a layer being tuned."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp / uuid.uuid4().hex

    def keep(self, scratch: Path, layer: TunedLayer) -> None:
        """Give a tuned layer its name; from here on it survives anything."""
        write_text_atomic(scratch / "layer.json", canonical_json(asdict(layer)) + "\n")
        goal = self._layers / layer.key
        goal.parent.mkdir(parents=True, exist_ok=True)
        if goal.exists():  # tuned again, on purpose
            shutil.rmtree(goal)
        scratch.rename(goal)

    def facts(self) -> Mapping[str, Any]:
        """What a record should say of it."""
        return {"id": self.id, "n_layers": len(self._present())}

    @property
    def _layers(self) -> Path:
        return self.folder / "layers"

    @property
    def _tmp(self) -> Path:
        return self.folder / "tmp"

    def _present(self) -> dict[str, Path]:
        if not self._layers.is_dir():
            return {}
        folders = sorted(path for path in self._layers.iterdir() if path.is_dir())
        return {path.name: path for path in folders if (path / "layer.json").is_file()}
