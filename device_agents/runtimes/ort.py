"""ONNX Runtime. One inference is ``run_with_iobinding`` on an input bound once.

Measured on x86 (ORT 1.31): a trivial network takes 5 us this way and 13 us through ``run`` with
plain feeds, which look up names and build Python objects each time.
"""

from __future__ import annotations

import functools
from typing import Any

from device_agents import runtimes
from device_agents.runtimes import common
from device_agents.runtimes.common import ModelError

NAME = "ort"
HINT = "pip install onnxruntime numpy (aarch64: a 64-bit OS with glibc >= 2.28)"
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_CPU = "CPUExecutionProvider"


_TINY = (
    b'\x08\x07\x12\x00:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX model, y = Relu(x) of one float (opset 13)."""


def installed_version() -> str | None:
    """Version by the installed package's metadata, without importing it."""
    return runtimes.distribution_version("onnxruntime", _DISTRIBUTIONS)


def describe() -> dict[str, Any]:
    """Import the runtime; return its version and providers, or {"error": {code, message}}."""
    try:
        import numpy as np  # noqa: F401 - measured networks need it
        import onnxruntime
    except ImportError as exc:
        message = "%s; %s" % (exc, HINT)
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
    Session(_TINY, threads=1, providers=[_CPU], spinning=False, input_seed=0).run()


class Session:
    """One loaded network, ready to run.

    Attributes:
        run: one inference; takes nothing, returns nothing of use. On an accelerator it includes
            copying the input there, the output back, and waiting for both.
        input_shapes: name -> shape.
        providers: those really used.
        facts: how the timed region is delimited, where that is not the plain call.

    Raises: ModelError, and whatever the runtime raises (see `failure_of`).
    """

    def __init__(
        self,
        data: bytes,
        *,
        path: str = "",
        threads: int,
        providers: list[str],
        spinning: bool,
        input_seed: int,
        inputs: list[Any] | None = None,
    ) -> None:
        del path, inputs  # the bytes say it all
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # errors come back as exceptions
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        # With its fallback, a provider that fails is replaced by the CPU with a line on stdout.
        session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
        self.providers = list(session.get_providers())
        if self.providers[:1] != providers[:1]:
            raise ModelError(
                "provider_fallback",
                "asked for %s, the session uses %s" % (providers[0], self.providers),
            )
        specs = [(i.name, list(i.shape), _dtype(i.type)) for i in session.get_inputs()]
        common.check_shapes(specs)
        # The binding refers to these arrays' memory.
        self._inputs = common.make_inputs(specs, input_seed)
        binding = session.io_binding()
        for name, array in self._inputs.items():
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        self._binding = binding
        self.input_shapes = {name: shape for name, shape, _ in specs}
        self.facts = {}  # type: dict[str, Any]
        self.run = functools.partial(session.run_with_iobinding, binding)
        if self.providers[0] != _CPU:
            self.run = functools.partial(_run_and_wait, session, binding)
            # An engine (TensorRT) is built while loading, so its build time is in load_ns.
            self.facts["timed_region"] = "copy in, run, copy out, synchronise; engine built at load"

    def output(self) -> tuple[list[float | None], bool]:
        """Return the first values of the first output (None: not finite), and if all are finite."""
        return common.head_of(self._binding.copy_outputs_to_cpu())


def _run_and_wait(session: Any, binding: Any) -> None:
    """One inference on an accelerator, until its output is in host memory."""
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def _dtype(kind: str) -> str:
    """Numpy's name of an ORT type such as "tensor(float)"."""
    element = kind[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(element, element)


def usable_providers(wanted: list[str] | None) -> list[str]:
    """Return `wanted` (default: the CPU).

    Raises: ModelError "provider_missing": measuring the CPU under another's name helps nobody.
    """
    import onnxruntime as ort

    available = ort.get_available_providers()
    for name in wanted or []:
        if name not in available:
            raise ModelError(
                "provider_missing",
                "onnxruntime %s has no %s (it has %s)"
                % (ort.__version__, name, ", ".join(available)),
            )
    return list(wanted or [_CPU])


def failure_of(exc: Exception) -> tuple[str, str]:
    """Return the item error code and a one-line message for what `Session` raised."""
    found = common.common_failure(exc)
    if found is not None:
        return found
    text = " ".join(str(exc).split())[:300]
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
