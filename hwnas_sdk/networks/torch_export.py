"""How long torch needs to export the same network: the yardstick for our own exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from hwnas_sdk.core.errors import ExportError, MissingExtraError

_OPSET = {False: 13, True: 18}  # dynamo writes 18 natively and converts down from there


def torch_onnx_export_seconds(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    dynamo: bool,
    dtype: torch.dtype | None = None,
) -> float:
    """Seconds of one ``torch.onnx.export`` of `module` to a file.

    Args:
        module: what to export; put into evaluation mode for the call.
        input_shape: with the batch dimension.
        dynamo: torch's new exporter instead of the TorchScript one.
        dtype: of the input; None is float32.

    Raises: MissingExtraError without onnxscript; ExportError when torch gives up.
    """
    if dynamo:
        try:
            import onnxscript  # noqa: F401
        except ImportError as exc:
            raise MissingExtraError(
                "onnxscript", "torch", purpose="torch's dynamo exporter"
            ) from exc
    example = torch.zeros(input_shape, dtype=dtype)
    was_training = module.training
    module.eval()
    try:
        with tempfile.TemporaryDirectory() as folder, _quiet():
            target = Path(folder) / "network.onnx"
            start = time.perf_counter()
            torch.onnx.export(
                module,
                (example,),
                target,
                opset_version=_OPSET[dynamo],
                dynamo=dynamo,
                verbose=False,
            )
            return time.perf_counter() - start
    except Exception as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ExportError(f"torch.onnx.export failed: {reason[0]}", code="torch_export") from exc
    finally:
        module.train(was_training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's deprecation warnings, progress prints and log lines to ourselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
