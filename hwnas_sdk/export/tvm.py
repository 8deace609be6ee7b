"""ONNX artifact in, shared library out, compiled by TVM for one target.

Needs the extra ``tvm``. The compiler runs in a child process (`hwnas_sdk._tvm`): it aborts on some
inputs, and one import (3 to 8 s) then serves all networks of a command.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final, Self

from hwnas_sdk._tvm.process import TvmProcess
from hwnas_sdk._tvm.versions import installed_version
from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import canonical_json, content_id
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.tuning_database import TuningDatabase
from hwnas_sdk.export.tvm_target import TvmTarget, linker

RECIPE: Final = "1"
"""Raised whenever the same input would give another library."""

COMPILE_TIMEOUT_S: Final = 600.0


class TvmCompiler:
    """Compiles artifacts for one target; a context manager.

    Args:
        cache: where libraries go.
        target: what to compile for.
        tuning: tuned layers to use; None compiles with TVM's default schedules.

    Raises: MissingExtraError without TVM, ExportError "tvm_pair" for versions that do not fit.
    """

    def __init__(
        self, cache: ArtifactCache, target: TvmTarget, *, tuning: TuningDatabase | None = None
    ) -> None:
        self.version = installed_version("the runtime TVM")
        self.target = target
        self._cache = cache
        self._tuning = tuning
        self._process = TvmProcess()

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the child process."""
        self._process.close()

    def compile(self, source: Artifact) -> Artifact:
        """Return the library of an ONNX artifact, from the cache when it was compiled before.

        Raises: ExportError: "cross_compiler_missing", "tvm_unsupported", "tvm_build",
            "tvm_crashed", "tvm_timeout"; DataError from the cache.
        """
        if source.format != "onnx":
            raise ExportError(f"TVM compiles ONNX files, not {source.format}", code="bad_format")
        tuning_id = "none" if self._tuning is None else self._tuning.id
        key = content_id(
            ["tvm", RECIPE, source.sha256, self.target.spec, self.version, tuning_id], length=32
        )
        found = self._cache.recall(key)
        if found is not None:
            return found
        artifact = self._compile(source, tuning_id)
        self._cache.remember(key, artifact.sha256)
        return artifact

    def _compile(self, source: Artifact, tuning_id: str) -> Artifact:
        link = linker(self.target)
        folders = [] if self._tuning is None else self._tuning.folders
        with tempfile.TemporaryDirectory(prefix="hwnas-tvm-") as scratch:
            out = Path(scratch) / "network.so"
            facts = self._process.request(
                "compile",
                timeout_s=COMPILE_TIMEOUT_S,
                onnx=source.path,
                target=self.target.spec,
                arch=self.target.arch,
                folders=[str(folder) for folder in folders],
                out=str(out),
                link=link,
            )
            data = out.read_bytes()
        n_layers, n_tuned = int(facts["n_layers"]), int(facts["n_tuned"])
        tuned = n_layers > 0 and n_tuned == n_layers
        data += _label(source, tuned=tuned)
        details: dict[str, Any] = {
            "onnx_sha256": source.sha256,
            "tvm": self.version,
            "tuning": tuning_id,
            "n_layers": n_layers,
            "n_tuned": n_tuned,
            "compile_s": {key: facts[key] for key in ("lower_s", "build_s", "link_s")},
        }
        return self._cache.put(
            data,
            format="tvm",
            arch_id=source.arch_id,
            folded=source.folded,
            producer=f"apache-tvm {self.version}, {n_tuned} of {n_layers} layers tuned",
            input_shapes=source.input_shapes,
            details=details,
            target=self.target.text,
            inputs=[(name, tuple(shape), kind) for name, shape, kind in facts["inputs"]],
            tuned=tuned,
        )


def _label(source: Artifact, *, tuned: bool) -> bytes:
    """What is appended to a library (loaders ignore it), so that its hash names one thing only.

    Two networks may compile to the same code, and so may a tuned and an untuned one where TVM's own
    schedule was the best; neither may be taken for the other.
    """
    facts = {"arch_id": source.arch_id, "folded": source.folded, "tuned": tuned}
    return b"\nhwnas " + canonical_json(facts).encode() + b"\n"
