"""Where things lie: the user's data folder, and the files that travel with the package."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from hwnas_sdk.core.errors import ConfigError, DataError

_PACKAGE = Path(__file__).resolve().parent


def home_path() -> Path:
    """Per-user data folder, which may not exist yet; ``HWNAS_HOME`` overrides."""
    override = os.environ.get("HWNAS_HOME")
    return Path(override) if override else Path(platformdirs.user_data_dir("hwnas", "hwnas"))


def home() -> Path:
    """Per-user data folder, created on first use; see `home_path`.

    Raises: DataError when it cannot be.
    """
    path = home_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DataError(
            f"the data folder {path} cannot be made: {exc.strerror}",
            code="not_writable",
            hint="set HWNAS_HOME to a folder you can write",
        ) from exc
    return path


def default_store_path() -> Path:
    """The measurement store used when ``--db`` is not given."""
    return home() / "store.sqlite"


def artifact_cache_path() -> Path:
    """Root of the content-addressed artifact cache."""
    return home() / "artifacts"


def tuning_path() -> Path:
    """Root of the layers `hwnas tune` tuned."""
    return home() / "tuning"


def simulator_cache_path() -> Path:
    """Root of the layer costs of simulated accelerators."""
    return home() / "simulator"


def inventory_path() -> Path:
    """The device inventory file."""
    return home() / "devices.yaml"


def board_work_path(device_name: str) -> Path:
    """Working folder of the agent when the board is this machine."""
    return home() / "boards" / device_name


def bundled(name: str) -> Path:
    """Folder ``device_agents`` or ``profiles``, from the wheel or from a checkout.

    Raises: ConfigError when neither has it.
    """
    for candidate in (_PACKAGE / "_bundled" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise ConfigError(f"the folder {name!r} is missing", hint="reinstall hwnas-sdk")
