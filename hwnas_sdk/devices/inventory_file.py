"""The inventory's file: YAML in and out, checked at the edge, errors with file and line."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas_sdk.core.errors import ConfigError


class DeviceModel(BaseModel):
    """One device in the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    uri: str
    note: str = ""


class InventoryFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1] = 1
    devices: dict[str, DeviceModel] = {}


def load(path: Path) -> InventoryFile:
    """Read `path`; a missing or empty file is an empty inventory.

    Raises: ConfigError code "inventory_damaged" naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return InventoryFile()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", code="inventory_damaged") from exc
    try:
        return InventoryFile.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        problem = getattr(exc, "problem", None) or "not YAML"
        raise _at_line(path, mark.line + 1 if mark else 1, str(problem)) from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(path, first["loc"], f"{where}: {first['msg']}".lstrip(": ")) from exc


def save(path: Path, content: InventoryFile) -> None:
    """Replace `path` by `content`, whole and durably.

    Raises: OSError; the old file is then untouched.
    """
    document = content.model_dump()
    for device in document["devices"].values():
        if not device["note"]:
            del device["note"]
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def damaged(path: Path, location: tuple[int | str, ...], problem: str) -> ConfigError:
    """Return the error for a `problem` at `location` (keys from the top) of the file."""
    return _at_line(path, _line_of(path.read_text(encoding="utf-8"), location), problem)


def _at_line(path: Path, line: int, problem: str) -> ConfigError:
    return ConfigError(
        f"{path}, line {line}: {problem}",
        code="inventory_damaged",
        hint="correct the line, or move the file away to start anew",
    )


def _line_of(text: str, location: tuple[int | str, ...]) -> int:
    """Line (from 1) of the deepest part of `location` that exists in the YAML `text`."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == str(part):
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return line
