"""The process in which TVM runs: one request per line in, one reply per line out.

``python -m hwnas_sdk._tvm.child``; see `process.TvmProcess`. Its standard output carries
replies only, prints of TVM and of linkers go to standard error. It ends with its input and dies
with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas_sdk._tvm import compat, remote
from hwnas_sdk.core.errors import HwnasError


class Child:
    """What is kept from request to request: layers found, and how candidates are run."""

    def __init__(self) -> None:
        self._layers: list[compat.Layer] = []
        self._trials: dict[str, compat.Trial] = {}
        board = remote.Remote()
        self.verbs: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "compile": self.compile,
            "layers": self.layers,
            "tune": self.tune,
            "rpc_look": board.look,
            "rpc_lease": board.lease,
            "rpc_release": board.release,
            "rpc_run": board.run,
            "rpc_time": board.time,
        }

    def compile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Compile ``onnx`` for ``target`` into ``out``, with the tuned layers in ``folders``."""
        target = self._target(request)
        began_s = time.perf_counter()
        network = compat.lower(Path(request["onnx"]), target)
        lower_s = time.perf_counter() - began_s
        database = compat.open_database(_folders(request))
        facts = compat.build(network, target, database, Path(request["out"]), request["link"])
        return {**facts, "lower_s": lower_s, "inputs": network.inputs}

    def layers(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """List the layers of the networks ``onnx``, each once, and whether it is tuned."""
        target = self._target(request)
        tuned = compat.open_database(_folders(request))
        seen = compat.open_database(())
        self._layers = []
        for path in request["onnx"]:
            for layer in compat.lower(Path(path), target).layers:
                if not seen.has_workload(layer.module):
                    seen.commit_workload(layer.module)
                    self._layers.append(layer)
        listed = [
            {
                "key": layer.key,
                "name": layer.name,
                "shape": layer.shape,
                "weight": layer.weight,
                "tuned": bool(tuned.has_workload(layer.module)),
            }
            for layer in self._layers
        ]
        return {"layers": listed}

    def tune(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Tune the layer ``key`` of the last listing into the new folder ``out``."""
        target = self._target(request)
        layer = next(entry for entry in self._layers if entry.key == request["key"])
        return compat.tune_layer(
            layer,
            target,
            self._trial(request),
            n_trials=request["trials"],
            seed=request["seed"],
            folder=Path(request["out"]),
        )

    def _target(self, request: Mapping[str, Any]) -> Any:
        compat.load(request["arch"])
        return compat.make_target(request["target"])

    def _trial(self, request: Mapping[str, Any]) -> compat.Trial:
        rpc = request.get("rpc")
        name = json.dumps(rpc)
        if name not in self._trials:
            timeout_s = float(request["candidate_timeout_s"])
            link: Sequence[str] = request["link"]
            self._trials[name] = (
                compat.local_trials(link, timeout_s=timeout_s)
                if rpc is None
                else compat.rpc_trials(link, timeout_s=timeout_s, **rpc)
            )
        return self._trials[name]


def _folders(request: Mapping[str, Any]) -> list[Path]:
    return [Path(folder) for folder in request["folders"]]


def main() -> int:
    """Serve until the input ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return 1
    # TVM imports torch where it is installed, which takes longer than TVM itself.
    sys.modules["torch"] = None  # type: ignore[assignment]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    child = Child()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, Any] = {"ok": child.verbs[request["do"]](request)}
        except HwnasError as exc:
            reply = {"error": {"code": exc.code, "message": exc.message, "hint": exc.hint}}
        except Exception as exc:  # noqa: BLE001 - the reply says it; the host decides
            text = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            reply = {"error": {"code": "tvm_failed", "message": text, "hint": ""}}
        out.write(json.dumps(reply) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
