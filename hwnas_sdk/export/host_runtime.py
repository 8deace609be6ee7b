"""ONNX Runtime on this host, imported late and without its telemetry."""

from __future__ import annotations

import os
from typing import Any


def load_onnxruntime() -> Any:
    """Import and return ``onnxruntime``.

    Its telemetry would write a database and an identity into the user's cache folder; the switch
    must be set before the first import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
