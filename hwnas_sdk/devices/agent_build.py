"""Packs ``device_agents/`` into the one file that goes to a board.

The file is byte-reproducible (equal sources, equal bytes, whatever built it) and named by its
hash, so a board needs it once per version.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Final

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DeviceError

_PACKAGE: Final = "device_agents"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip file knows."""
_UNIX: Final = 3


def agent_bytes() -> bytes:
    """Return the zipapp.

    Entries are stored, not compressed: deflate's output differs between zlib versions.
    Raises: ConfigError when the sources are missing.
    """
    folder = _resources.bundled(_PACKAGE)
    files = {
        f"{_PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*.py")
    }
    files["__main__.py"] = files[f"{_PACKAGE}/__main__.py"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def build_agent(out_dir: Path) -> Path:
    """Return ``out_dir/hwnas-agent-<sha12>.pyz``, written unless it is there and sound.

    Raises: DeviceError "no_space" or "deploy_failed" when it cannot be written.
    """
    data = agent_bytes()
    path = out_dir / f"hwnas-agent-{hashlib.sha256(data).hexdigest()[:12]}.pyz"
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() == data:
            return path
        try:
            with scratch.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as exc:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        raise DeviceError(
            f"the agent cannot be written to {out_dir}: {exc.strerror}",
            code="no_space" if full else "deploy_failed",
            hint="free some space" if full else "check the folder's owner",
        ) from exc
    return path
