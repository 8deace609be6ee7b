"""Measure neural networks on a board, learn from the numbers, search, and check on the board again.

Public names are loaded on first use, so importing the package costs little and pulls in no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwnas_sdk.core.errors import HwnasError
    from hwnas_sdk.core.settings import MeasureSettings, settings_preset
    from hwnas_sdk.core.types import (
        Architecture,
        Artifact,
        Candidate,
        DeviceProfile,
        DeviceSpec,
        Measurement,
        ParetoFront,
        Verdict,
    )
    from hwnas_sdk.spaces import get_space as space
    from hwnas_sdk.workflows.lab import Lab

__version__ = "0.1.0"

_WHERE = {
    "Architecture": "hwnas_sdk.core.types",
    "Artifact": "hwnas_sdk.core.types",
    "Candidate": "hwnas_sdk.core.types",
    "DeviceProfile": "hwnas_sdk.core.types",
    "DeviceSpec": "hwnas_sdk.core.types",
    "HwnasError": "hwnas_sdk.core.errors",
    "Lab": "hwnas_sdk.workflows.lab",
    "MeasureSettings": "hwnas_sdk.core.settings",
    "Measurement": "hwnas_sdk.core.types",
    "ParetoFront": "hwnas_sdk.core.types",
    "Verdict": "hwnas_sdk.core.types",
    "settings_preset": "hwnas_sdk.core.settings",
    "space": "hwnas_sdk.spaces",
}

__all__ = [
    "Architecture",
    "Artifact",
    "Candidate",
    "DeviceProfile",
    "DeviceSpec",
    "HwnasError",
    "Lab",
    "MeasureSettings",
    "Measurement",
    "ParetoFront",
    "Verdict",
    "__version__",
    "settings_preset",
    "space",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    value = getattr(module, "get_space" if name == "space" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
