"""What the installed ONNX Runtime says about a foreign model, before any board is touched."""

from __future__ import annotations

from pathlib import Path

import onnx

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.export.host_runtime import load_onnxruntime


def check_versions(path: Path, model: onnx.ModelProto) -> None:
    """Ask the runtime whether it knows the file's IR version and operator sets.

    It is asked with a one-node model, so that nothing of the user's file can get in the way.

    Raises: ExportError (``too_new``).
    """
    probe = onnx.ModelProto(ir_version=model.ir_version)
    domains = [o for o in model.opset_import if o.domain in {"", "ai.onnx", "ai.onnx.ml"}]
    probe.opset_import.extend(domains)
    if not any(o.domain in {"", "ai.onnx"} for o in domains):
        probe.opset_import.add(version=13)
    probe.graph.name = "probe"
    probe.graph.node.add(op_type="Identity", input=["x"], output=["y"])
    for field, name in ((probe.graph.input, "x"), (probe.graph.output, "y")):
        tensor = field.add(name=name).type.tensor_type
        tensor.elem_type = onnx.TensorProto.FLOAT
        tensor.shape.dim.add(dim_value=1)
    reason = _load_failure(probe.SerializeToString())
    if reason is None:
        return
    opset = next((o.version for o in domains if o.domain in {"", "ai.onnx"}), 0)
    raise ExportError(
        f"{path} (IR {model.ir_version}, opset {opset}) is too new for {_runtime()}: {reason}",
        code="too_new",
        hint="export it with an older opset, e.g. opset_version=17, or update onnxruntime",
    )


def check_loads(path: Path, data: bytes) -> None:
    """Load the model once, unoptimised.

    Raises: ExportError (``unsupported``) with the runtime's reason: a custom operator, a type it
        has no kernel for, shapes that do not fit together.
    """
    reason = _load_failure(data)
    if reason is not None:
        raise ExportError(f"{_runtime()} cannot load {path}: {reason}", code="unsupported")


def _load_failure(data: bytes) -> str | None:
    onnxruntime = load_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as exc:  # noqa: BLE001 - the runtime's exceptions share no narrower base
        return " ".join(str(exc).split())[:300]
    return None


def _runtime() -> str:
    onnxruntime = load_onnxruntime()

    return f"ONNX Runtime {onnxruntime.__version__}"
