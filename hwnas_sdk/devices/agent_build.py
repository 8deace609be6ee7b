"""Packs ``device_agents/`` into the one file that goes to a board.

The file is byte-reproducible (equal sources and one zlib: equal bytes, whoever built it, wherever)
and named by its hash, so a board needs it once per version. A host with another zlib would compress
a little differently, and bring its own file beside ours.
"""

from __future__ import annotations

import ast
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
_MADE_OF: Final = "hwnas-agent.made-of"


def agent_bytes() -> bytes:
    """Return the zipapp.

    Raises: ConfigError when the sources are missing.
    """
    return _packed(_sources())


def _sources() -> dict[str, bytes]:
    """Name in the archive -> content, as written by people. Raises: ConfigError."""
    folder = _resources.bundled(_PACKAGE)
    paths = sorted(folder.rglob("*.py"))
    return {
        f"{_PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths
    }


def _packed(sources: dict[str, bytes]) -> bytes:
    files = {name: slim(source) for name, source in sources.items()}
    files["__main__.py"] = files[f"{_PACKAGE}/__main__.py"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = _UNIX
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _made_before(out_dir: Path, made_of: str) -> Path | None:
    """The agent made of the same sources, if it is there and whole."""
    try:
        sources_sha256, sha256 = (out_dir / _MADE_OF).read_text(encoding="ascii").split()
        path = out_dir / f"hwnas-agent-{sha256[:12]}.pyz"
        is_whole = hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return path if is_whole and sources_sha256 == made_of else None


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def slim(source: bytes) -> bytes:
    """Return Python source without docstrings and comment lines, every other line where it was.

    The board needs neither; a traceback from there still names the right lines.
    """
    lines = source.decode("utf-8").splitlines()
    tree = ast.parse(source)
    inside: set[int] = set()  # lines within a string, where a "#" begins no comment
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            inside.update(range(node.lineno, node.end_lineno or 0))
    comments = [
        index
        for index, line in enumerate(lines)
        if line.lstrip().startswith("#") and index not in inside
    ]
    for index in comments:
        lines[index] = ""
    for text in _docstrings(tree):
        # What is left keeps a body that has nothing else.
        lines[text.lineno - 1 : text.end_lineno] = [
            " " * text.col_offset + '""',
            *[""] * ((text.end_lineno or text.lineno) - text.lineno),
        ]
    return "\n".join(lines).encode() + b"\n"


def _docstrings(tree: ast.AST) -> list[ast.Expr]:
    """Every statement that is nothing but a string."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def build_agent(out_dir: Path) -> Path:
    """Return ``out_dir/hwnas-agent-<sha12>.pyz``, written unless it is there and sound.

    Packing takes a quarter of a second, so a small file beside it remembers what it was made of.
    Raises: DeviceError "no_space" or "deploy_failed" when it cannot be written.
    """
    sources = _sources()
    made_of = hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        path = _made_before(out_dir, made_of)
        if path is None:
            data = _packed(sources)
            sha256 = hashlib.sha256(data).hexdigest()
            path = out_dir / f"hwnas-agent-{sha256[:12]}.pyz"
            _write(path, data)
            _write(out_dir / _MADE_OF, f"{made_of} {sha256}\n".encode())
    except OSError as exc:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        raise DeviceError(
            f"the agent cannot be written to {out_dir}: {exc.strerror}",
            code="no_space" if full else "deploy_failed",
            hint="free some space" if full else "check the folder's owner",
        ) from exc
    return path
