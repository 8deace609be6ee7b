"""The client side of TVM's RPC; runs in the child process.

What the tracker guarantees is one client per server at a time. Nothing here is authenticated.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import DeviceError

_OUTPUT_VALUES = 64


class Remote:
    """One tracker, and at most one board leased from it."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._board: Any = None
        self._machines: dict[str, Any] = {}
        self._uploaded: set[str] = set()

    def look(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Count the servers that answer for ``key``, and how many of them are free."""
        from tvm import rpc

        host, port, key = request["host"], int(request["port"]), request["key"]
        if self._tracker is None:
            try:
                self._tracker = rpc.connect_tracker(host, port)
            except Exception as exc:
                raise DeviceError(
                    f"no TVM tracker answers at {host}:{port}: {_line(exc)}",
                    code="rpc_unreachable",
                    hint="start one there: python -m tvm.exec.rpc_tracker",
                    retryable=True,
                ) from exc
        summary = self._tracker.summary()
        queue = summary.get("queue_info", {}).get(key, {})
        servers = [
            entry for entry in summary.get("server_info", []) if entry.get("key") == f"server:{key}"
        ]
        return {
            "servers": len(servers),
            "addresses": [entry.get("addr") for entry in servers],
            "free": int(queue.get("free", 0)),
            "pending": int(queue.get("pending", 0)),
            "keys": sorted(summary.get("queue_info", {})),
        }

    def lease(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for the board and take it."""
        if self._board is None:
            self.look(request)
            try:
                self._board = self._tracker.request(
                    request["key"], priority=1, session_timeout=float(request["session_s"])
                )
            except Exception as exc:
                raise DeviceError(
                    f"the TVM server {request['key']!r} cannot be used: {_line(exc)}",
                    code="rpc_unreachable",
                    hint="start it again on the board: python -m tvm.exec.rpc_server",
                    retryable=True,
                ) from exc
        return {}

    def release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Give the board back; the server ends what this session had there."""
        del request
        self._machines.clear()
        self._uploaded.clear()
        self._board = None
        gc.collect()  # the connection ends with the last object that lives on the board
        return {}

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Upload, load and run a library once; it stays loaded until `release`."""
        import numpy as np
        import tvm.runtime
        from tvm.runtime.vm import VirtualMachine

        path = Path(request["path"])
        began_s = time.perf_counter()
        if path.name not in self._uploaded:  # writing over a loaded library crashes the server
            self._board.upload(str(path), target=path.name)
            self._uploaded.add(path.name)
        uploaded_s = time.perf_counter()
        device = self._board.cpu(0)
        machine = VirtualMachine(self._board.load_module(path.name), device)
        arrays = _arrays(request["inputs"], int(request["input_seed"]))
        tensors = [tvm.runtime.tensor(array, device) for array in arrays]
        machine.set_input("main", *tensors)
        loaded_s = time.perf_counter()
        machine.invoke_stateful("main")
        device.sync()
        first_s = time.perf_counter()
        outputs = machine.get_outputs("main")
        values = outputs.numpy() if hasattr(outputs, "numpy") else outputs[0].numpy()
        self._machines[request["name"]] = (machine, device)
        head = values.reshape(-1)[:_OUTPUT_VALUES].astype(np.float64)
        return {
            "upload_s": uploaded_s - began_s,
            "load_s": loaded_s - uploaded_s,
            "first_s": first_s - loaded_s,
            "output": [float(v) if np.isfinite(v) else None for v in head],
            "finite": bool(np.isfinite(values).all()),
        }

    def time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds per inference: the mean of each of ``repeat`` blocks, by the board's clock."""
        machine, device = self._machines[request["name"]]
        evaluator = machine.time_evaluator(
            "invoke_stateful",
            device,
            number=int(request["number"]),
            repeat=int(request["repeat"]),
            min_repeat_ms=int(request["min_repeat_ms"]),
        )
        return {"seconds": [float(value) for value in evaluator("main").results]}


def _arrays(inputs: list[Any], seed: int) -> list[Any]:
    """The inputs every board makes from `seed`; see device_agents/README.md."""
    import numpy as np

    generator = np.random.RandomState(seed)
    arrays = []
    for _, shape, kind in inputs:
        if kind.startswith("float"):
            arrays.append(generator.uniform(-1.0, 1.0, shape).astype(kind))
        else:
            arrays.append(generator.randint(0, 2, shape).astype(kind))
    return arrays


def _line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return json.dumps(lines[-1] if lines else type(exc).__name__)[1:-1][:200]
