"""Who we are to a board: one stable name per data folder."""

from __future__ import annotations

import os
import re
import uuid

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError

_FILE = "owner-id"
_VALID = re.compile(r"[0-9a-f]{32}")


def owner_id() -> str:
    """Name of this data folder, made on first use; jobs are recovered by the same name only.

    Safe against two processes at once: the file appears complete, and the first one wins.
    Raises: ConfigError when it can neither be read nor written.
    """
    path = _resources.home() / _FILE
    try:
        for _ in range(2):
            if path.is_file():
                text = path.read_text(encoding="ascii", errors="replace").strip()
                if _VALID.fullmatch(text):
                    return text
                path.unlink()
            scratch = path.with_name(f".{_FILE}.{os.getpid()}")
            scratch.write_text(uuid.uuid4().hex + "\n", encoding="ascii")
            try:
                os.link(scratch, path)
            except FileExistsError:
                pass
            finally:
                scratch.unlink()
        return path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"cannot keep an owner id in {path}: {exc.strerror}") from exc
