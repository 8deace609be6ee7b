"""What a network should answer: the host's own inference, to compare the board's with.

Graph optimisation is off here and on at the board, so the comparison also covers what the runtime
fuses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import numpy as np

from hwnas_sdk.core.types import Artifact
from hwnas_sdk.export.host_runtime import load_onnxruntime

N_VALUES: Final = 64
_FLOATS: Final = {"float": "float32", "double": "float64", "float16": "float16"}


def expected_output(artifact: Artifact, *, input_seed: int = 0) -> tuple[float, ...] | None:
    """First values of the first output for the input every board makes from `input_seed`.

    The input is ``numpy.random.RandomState(input_seed)``: floats uniform in [-1, 1), integers and
    booleans 0 or 1, drawn input after input (device_agents/README.md). None when this host cannot
    run the network, or its answer is not finite: then there is nothing to compare with.
    """
    return _expected(artifact.path, artifact.sha256, input_seed)


@lru_cache(maxsize=4096)
def _expected(path: str, sha256: str, input_seed: int) -> tuple[float, ...] | None:
    del sha256  # part of the key: the content behind `path`
    ort = load_onnxruntime()

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors come back as exceptions
    try:
        session = ort.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        generator = np.random.RandomState(input_seed)  # its stream is frozen
        feeds = {}
        for node in session.get_inputs():
            kind = re.sub(r"tensor\((.*)\)", r"\1", node.type)
            if kind in _FLOATS:
                values = generator.uniform(-1.0, 1.0, node.shape).astype(_FLOATS[kind])
            else:
                values = generator.randint(0, 2, node.shape).astype(kind)
            feeds[node.name] = values
        output = np.asarray(session.run(None, feeds)[0]).reshape(-1)[:N_VALUES]
    except Exception:  # noqa: BLE001 - a runtime may raise anything; the board will say it better
        return None
    if output.dtype.kind not in "fiub" or not np.isfinite(output).all():
        return None
    return tuple(float(value) for value in output)
