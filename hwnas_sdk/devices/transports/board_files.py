"""Putting files on a board that offers no more than a POSIX shell, `tar` and `sha256sum`.

Files travel as one tar stream into a folder of their own, are hashed there, and only then take
their place; so what lies in ``artifacts/`` is whole, whatever broke off in between. A file's name
begins with its SHA-256, which is all the board needs to check it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.shell import BoardShell, Completed

_BLOCK: Final = 512
_CHUNK: Final = 2**18
_SLOWEST_BYTES_PER_S: Final = 200_000
_BASE_S: Final = 60.0
# The last is what GNU tar says when only the end of a block found no room.
_FULL = re.compile(
    r"no space left|quota exceeded|file too large|enospc|wrote only \d+ of", re.IGNORECASE
)

HASH_FUNCTION: Final = (
    "hashes() { if command -v sha256sum >/dev/null 2>&1; "
    'then sha256sum "$@"; else for f in "$@"; do '
    '"$py" -c \'import hashlib, sys; '
    'print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest(), sys.argv[1])\' "$f"; '
    "done; fi; }"
)
"""Shell function: ``HASH  NAME`` for each file; needs $py only where there is no sha256sum."""

OWN_FOLDER: Final = (
    'own() { p=$(pwd -P); [ "$p" != / ] && [ "$p" != "$(cd "${HOME:-/}" && pwd -P)" ] || '
    '{ echo "$p is no folder of our own" >&2; return 1; }; }'
)
"""Shell function: whether the current folder may be ours; we replace and remove things there."""

# Each line the board prints is "ok NAME", "bad NAME" or "failed NAME". One mv for all: a process
# costs a slow board more than a file does.
_CHECK = """
check() {
  good=
  while read -r h f; do
    n=${f##*/}
    if [ "$h" != "${n%%.*}" ]; then rm -f "$f"; echo "bad $n"; continue; fi
    case $1-$n in
      put-*.pyz)
        if mv -f "$f" "agent/hwnas-agent-$(echo "$h" | cut -c1-12).pyz"
        then echo "ok $n"; else echo "failed $n"; fi;;
      put-*) good="$good $f";;
      *) echo "ok $n";;
    esac
  done
  [ -n "$good" ] || return 0
  if mv -f $good artifacts/; then s=ok; else s=failed; fi
  for f in $good; do echo "$s ${f##*/}"; done
}
"""

_UNPACK = """
d=incoming.$$
mkdir "$d" || exit 42
trap 'rm -rf "$d"' EXIT
trap 'exit 43' HUP INT TERM
tar -xf - -C "$d" || exit 42
set -- "$d"/*
[ -f "$1" ] || { echo "tar unpacked nothing" >&2; exit 42; }
hashes "$@" | check put
"""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way to the board.

    Attributes:
        source: where it lies here.
        name: ``<sha256><suffix>``.
    """

    source: Path
    name: str


def deliver(
    shell: BoardShell,
    work: str,
    uploads: Sequence[Upload],
    *,
    verify: Sequence[str] = (),
    python: str = "python3",
) -> dict[str, bool]:
    """Bring `uploads` to the folder `work`, in one command; returns for each name if it is good.

    Args:
        shell: how to reach the board.
        work: absolute path of the prepared work folder there.
        uploads: what to bring; the sources exist.
        verify: names in ``artifacts/`` that should be there; a damaged one is removed.
        python: interpreter for hashing on a board without `sha256sum`.

    Raises: DeviceError "no_space" or "deploy_failed", or as `BoardShell.run`.
    """
    script = [f"cd {shlex.quote(work)} || exit 42", f"py={shlex.quote(python)}"]
    script += [HASH_FUNCTION, _CHECK]
    if verify:
        names = " ".join(shlex.quote(f"artifacts/{name}") for name in verify)
        script.append(f"hashes {names} 2>/dev/null | check keep")
    if uploads:
        script.append(_UNPACK)
    total_bytes = sum(upload.source.stat().st_size for upload in uploads)
    done = shell.run(
        "\n".join(script),
        stdin=tar_stream(uploads) if uploads else b"",
        timeout_s=_BASE_S + total_bytes / _SLOWEST_BYTES_PER_S,
    )
    found: dict[str, bool] = {}
    for line in done.text.splitlines():
        word, _, name = line.partition(" ")
        if word == "failed":
            raise deploy_error(shell, work, done)
        if word in {"ok", "bad"}:
            found[name] = word == "ok"
    if done.status != 0:
        raise deploy_error(shell, work, done)
    return {name: found.get(name, False) for name in [*verify, *(up.name for up in uploads)]}


def deploy_error(shell: BoardShell, work: str, done: Completed) -> DeviceError:
    """The error for a command that could not write to the board."""
    text = done.stderr.decode(errors="replace")
    full = _FULL.search(text) is not None
    first = next((line.strip()[:200] for line in text.splitlines() if line.strip()), "")
    what = "is full" if full else f"cannot be written: {first or done.error_line}"
    return DeviceError(
        f"the work folder of {shell.device_id!r} {what} ({work})",
        device_id=shell.device_id,
        code="no_space" if full else "deploy_failed",
        hint=f"free some space there: hwnas devices clean {shell.device_id}"
        if full
        else "check the folder's owner, or name another one: ?work=DIR",
    )


def tar_stream(uploads: Sequence[Upload]) -> Iterator[bytes]:
    """The files as a tar archive, read piece by piece.

    A file that changes its size meanwhile is cut or filled with zeros: the board's check finds it.
    """
    for upload in uploads:
        left = size = upload.source.stat().st_size
        entry = tarfile.TarInfo(upload.name)
        entry.size, entry.mode = size, 0o644
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        with upload.source.open("rb") as stream:
            while left > 0:
                data = stream.read(min(_CHUNK, left)) or b"\0" * min(_CHUNK, left)
                left -= len(data)
                yield data
        yield b"\0" * (-size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def sha256_file(path: Path) -> str:
    """SHA-256 of a local file, in hexadecimal. Raises: OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
