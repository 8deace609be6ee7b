"""TVM's Relax virtual machine. One inference is one stateful call on inputs set once.

The file is a shared library compiled for this board; only TVM's runtime is loaded, not its compiler
(``TVM_USE_RUNTIME_LIB``), and not torch, which TVM would import where it is installed, and build an
extension for. On x86 that saves 300 MiB and 4 s.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from device_agents import runtimes
from device_agents.runtimes import common
from device_agents.runtimes.common import ModelError

NAME = "tvm"
HINT = "pip install apache-tvm==0.27.0.post1 'apache-tvm-ffi>=0.1.14,<0.1.15' numpy"
_DISTRIBUTIONS = ("apache-tvm",)
_CPU = "CPU"


def installed_version() -> str | None:
    """Version by the installed package's metadata, without importing it."""
    return runtimes.distribution_version("tvm", _DISTRIBUTIONS)


def describe() -> dict[str, Any]:
    """Import the runtime; return its version, or {"error": {code, message}}."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    # The agent has chosen the cores; a pool that pins its threads itself would undo that.
    os.environ["TVM_BIND_THREADS"] = "0"
    os.environ["TVM_FFI_DISABLE_TORCH_C_DLPACK"] = "1"
    had_torch = "torch" in sys.modules
    if not had_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import numpy as np  # noqa: F401 - inputs are made with it
        import tvm
        import tvm.runtime
    except ImportError as exc:
        message = "%s; %s" % (exc, HINT)
        return {"error": {"code": "runtime_missing", "message": message}}
    except Exception as exc:  # a wheel and an ffi library that do not fit
        message = "%s; %s" % (" ".join(str(exc).split())[:200], HINT)
        return {"error": {"code": "runtime_error", "message": message}}
    finally:
        if not had_torch:
            del sys.modules["torch"]
    return {"version": str(tvm.__version__), "providers": [_CPU]}


def prime() -> None:
    """Nothing: there is no library to try before the first one comes."""


class Session:
    """One loaded library, ready to run.

    Attributes:
        run: one inference; takes nothing, returns nothing of use.
        input_shapes: name -> shape.
        providers: ["CPU"].
        facts: empty.

    Raises: ModelError, and whatever the runtime raises (see `failure_of`).
    """

    def __init__(
        self,
        data: bytes,
        *,
        path: str,
        threads: int,
        providers: list[str],
        spinning: bool,
        input_seed: int,
        inputs: list[Any] | None = None,
    ) -> None:
        del providers, spinning
        _check_library(data)
        if not inputs:
            raise ModelError("model_invalid", "the job does not say what the library's inputs are")
        import tvm.runtime
        from tvm.runtime.vm import VirtualMachine

        _use_threads(threads)
        specs = [(name, list(shape), dtype) for name, shape, dtype in inputs]
        common.check_shapes(specs)
        device = tvm.runtime.device("cpu", 0)
        machine = VirtualMachine(tvm.runtime.load_module(os.path.abspath(path)), device)
        arrays = common.make_inputs(specs, input_seed)
        machine.set_input("main", *[tvm.runtime.tensor(arrays[name]) for name, _, _ in specs])
        self._machine = machine
        self.run = functools.partial(machine.invoke_stateful, "main")
        self.input_shapes = {name: shape for name, shape, _ in specs}
        self.providers = [_CPU]
        self.facts = {}  # type: dict[str, Any]

    def output(self) -> tuple[list[float | None], bool]:
        """Return the first values of the first output (None: not finite), and if all are finite."""
        outputs = self._machine.get_outputs("main")
        arrays = [outputs] if hasattr(outputs, "numpy") else list(outputs)
        return common.head_of([array.numpy() for array in arrays])


def _use_threads(threads: int) -> None:
    """Size TVM's thread pool; it belongs to the calling thread, so this is done where it runs."""
    import tvm_ffi

    # 0: all cores alike, which ones is the agent's affinity.
    tvm_ffi.get_global_func("runtime.config_threadpool")(0, threads)


def _check_library(data: bytes) -> None:
    """Refuse what the dynamic loader would call "invalid ELF header", with a reason.

    Raises: ModelError.
    """
    if data[:4] != b"\x7fELF":
        raise ModelError("model_invalid", "not a shared library (a TVM artifact is one)")
    try:
        with open(os.path.realpath(sys.executable), "rb") as stream:
            mine = stream.read(20)
    except OSError:
        return
    # Class (32 or 64 bits), byte order, machine; an interpreter may also be started by a script.
    if mine[:4] == data[:4] and (data[4:6], data[18:20]) != (mine[4:6], mine[18:20]):
        raise ModelError(
            "model_unsupported", "the library was compiled for another instruction set than this"
        )


def usable_providers(wanted: list[str] | None) -> list[str]:
    """Return ["CPU"]: a library is compiled for what it runs on.

    Raises: ModelError "provider_missing" for anything else.
    """
    for name in wanted or []:
        if name != _CPU:
            raise ModelError("provider_missing", "TVM runs on the CPU here, not on %s" % name)
    return [_CPU]


def failure_of(exc: Exception) -> tuple[str, str]:
    """Return the item error code and a one-line message for what `Session` raised."""
    found = common.common_failure(exc)
    if found is not None:
        return found
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    text = (lines[-1] if lines else type(exc).__name__)[:300]
    if any(word in text for word in ("dlopen", "cannot open shared object", "undefined symbol")):
        return "model_unsupported", text
    if "Cannot find function" in text or "vm_load_executable" in text:
        return "model_invalid", text
    return "runtime_error", "%s: %s" % (type(exc).__name__, text)
