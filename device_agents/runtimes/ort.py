"""ONNX Runtime. One inference is ``run_with_iobinding`` on an input bound once.

Measured on x86 (ORT 1.31): a trivial network takes 5 us this way and 13 us through ``run`` with
plain feeds, which look up names and build Python objects each time.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

NAME = "ort"
_OUTPUT_VALUES = 64
_HINT = "pip install onnxruntime numpy (aarch64: a 64-bit OS with glibc >= 2.28)"


_TINY = (
    b'\x08\x07\x12\x00:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model, y = Relu(x) of one float (opset 13)."""


class ModelError(Exception):
    """A network this runtime cannot measure; `code` as in protocol.ITEM_ERRORS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def describe() -> dict[str, Any]:
    """Import the runtime; return its version and providers, or {"error": {code, message}}."""
    try:
        import numpy as np  # noqa: F401 - measured networks need it
        import onnxruntime
    except ImportError as exc:
        message = "%s; %s" % (exc, _HINT)
        return {"error": {"code": "runtime_missing", "message": message}}
    onnxruntime.set_default_logger_severity(4)
    return {
        "version": onnxruntime.__version__,
        "providers": list(onnxruntime.get_available_providers()),
    }


def prime() -> None:
    """Load and drop a trivial network: the first session of a process sets up the operator tables.

    That took 15 of the 35 ms of a first session; done here, neither a network's load time nor
    each forked memory probe pays for it.
    """
    Session(
        _TINY, threads=1, providers=["CPUExecutionProvider"], spinning=False, input_seed=0
    ).run()


def make_inputs(specs: list[tuple[str, list[int], str]], seed: int) -> dict[str, Any]:
    """Return the arrays fed to inputs (name, shape, ORT type), the same on host and board.

    ``numpy.random.RandomState(seed)`` draws input after input: floats uniform in [-1, 1),
    integers and booleans 0 or 1 (valid as indices). Its stream is frozen in all numpy versions.
    """
    import numpy as np

    generator = np.random.RandomState(seed)
    arrays = {}
    for name, shape, kind in specs:
        element = kind[len("tensor(") : -1]
        dtype = {"float": "float32", "double": "float64"}.get(element, element)
        if dtype in ("float16", "float32", "float64"):
            arrays[name] = generator.uniform(-1.0, 1.0, shape).astype(dtype)
        elif dtype == "bool" or dtype.startswith(("int", "uint")):
            arrays[name] = generator.randint(0, 2, shape).astype(dtype)
        else:
            raise ModelError("model_unsupported", "input %r has type %s" % (name, kind))
    return arrays


class Session:
    """One loaded network, ready to run.

    Attributes:
        run: one inference; takes nothing, returns nothing of use.
        input_shapes: name -> shape.
        providers: those really used.

    Raises: ModelError, and whatever the runtime raises (see `failure_of`).
    """

    def __init__(
        self, data: bytes, *, threads: int, providers: list[str], spinning: bool, input_seed: int
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # errors come back as exceptions
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        session = ort.InferenceSession(data, options, providers=providers)
        specs = [(i.name, list(i.shape), i.type) for i in session.get_inputs()]
        for name, shape, _ in specs:
            for axis, size in enumerate(shape):
                if not isinstance(size, int) or size < 0:
                    raise ModelError(
                        "dynamic_shape",
                        "input %r has no fixed size in dimension %d (%s)" % (name, axis, size),
                    )
        # The binding refers to these arrays' memory.
        self._inputs = make_inputs(specs, input_seed)
        binding = session.io_binding()
        for name, array in self._inputs.items():
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        self._binding = binding
        self.run = functools.partial(session.run_with_iobinding, binding)
        self.input_shapes = {name: shape for name, shape, _ in specs}
        self.providers = list(session.get_providers())

    def output(self) -> tuple[list[float | None], bool]:
        """Return the first values of the first output (None: not finite), and if all are finite."""
        import numpy as np

        arrays = [np.asarray(array) for array in self._binding.copy_outputs_to_cpu()]
        numbers = [array for array in arrays if array.dtype.kind in "fiub"]
        finite = all(bool(np.isfinite(array).all()) for array in numbers)
        if not numbers:
            return [], finite
        head = numbers[0].reshape(-1)[:_OUTPUT_VALUES].astype(np.float64)
        return [float(value) if np.isfinite(value) else None for value in head], finite


def usable_providers(wanted: list[str] | None) -> list[str]:
    """Return those of `wanted` this build has (default: the CPU); never empty."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    usable = [name for name in wanted or ["CPUExecutionProvider"] if name in available]
    return usable or ["CPUExecutionProvider"]


def failure_of(exc: Exception) -> tuple[str, str]:
    """Return the item error code and a one-line message for what `Session` raised."""
    text = " ".join(str(exc).split())[:300]
    if isinstance(exc, ModelError):
        return exc.code, text
    if isinstance(exc, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return "no_memory", text or "out of memory"
    # The exception classes moved between ORT versions; their names did not.
    kind = type(exc).__name__
    if kind == "InvalidProtobuf":
        return "model_invalid", text
    unsupported = ("Could not find an implementation", "Unsupported model IR", "opset", "domain")
    if kind == "NotImplemented" or any(word in text for word in unsupported):
        return "model_unsupported", text
    if kind in ("InvalidGraph", "NoModel", "InvalidArgument"):
        return "model_invalid", text
    return "runtime_error", "%s: %s" % (kind, text)


def read_artifact(path: str, sha256: str) -> bytes:
    """Return the file's bytes. Raises: ModelError when it is missing or not what was asked for."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as exc:
        raise ModelError("artifact_missing", "%s: %s" % (path, exc.strerror)) from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        message = "%s has SHA-256 %s..., expected %s..." % (path, found[:12], sha256[:12])
        raise ModelError("artifact_corrupt", message)
    return data
