"""Which TVM is installed, by its metadata; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Final

from hwnas_sdk.core.errors import ExportError, MissingExtraError

_FFI_SERIES: Final[Mapping[str, str]] = {"0.27.": "0.1.14"}
"""TVM version -> the series of apache-tvm-ffi it was built against."""

_RPC_MODULES: Final[Mapping[str, str]] = {
    "tornado": "tornado", "psutil": "psutil", "cloudpickle": "cloudpickle",
}  # fmt: skip


def installed_version(purpose: str) -> str:
    """Version of the installed TVM, by its metadata; nothing is imported.

    Raises: MissingExtraError when it is absent, ExportError "tvm_pair" when its ffi library is of
        another series: such a pair compiles, runs, and crashes in the middle of tuning.
    """
    versions = {}
    for package in ("apache-tvm", "apache-tvm-ffi"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise MissingExtraError(package, "tvm", purpose=purpose) from None
    tvm, ffi = versions["apache-tvm"], versions["apache-tvm-ffi"]
    wanted = next((s for prefix, s in _FFI_SERIES.items() if tvm.startswith(prefix)), None)
    if wanted is None:
        raise ExportError(
            f"apache-tvm {tvm} is not a version this package was tried with",
            code="tvm_pair",
            hint="pip install 'hwnas-sdk[tvm]'",
        )
    if ffi != wanted and not ffi.startswith(wanted + "."):
        raise ExportError(
            f"apache-tvm {tvm} and apache-tvm-ffi {ffi} do not fit: tuning would crash",
            code="tvm_pair",
            hint=f"pip install 'apache-tvm-ffi=={wanted}.*'",
        )
    return tvm


def check_rpc(purpose: str) -> None:
    """Refuse to start without what TVM's RPC needs: its client would wait 60 s in silence.

    Raises: MissingExtraError naming the package; what `installed_version` raises.
    """
    installed_version(purpose)
    for module, package in _RPC_MODULES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "tvm", purpose=purpose)
