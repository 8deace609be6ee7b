"""What a board's system is, asked with one plain `sh` command before anything of ours is there.

The command prints ``key=value`` lines between two markers and needs no Python: that a board has
none is one of the answers. The parser refuses what it does not know and keeps the text.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final, Literal

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.transports.shell import BoardShell

Libc = Literal["glibc", "musl", "bionic", "unknown"]
Version = tuple[int, ...]

_BEGIN: Final = "hwnas-facts 1"
_END: Final = "hwnas-facts end"
_FACTS_TIMEOUT_S: Final = 90.0
"""Each interpreter on the board is started once; on an emulated or very small one that adds up."""

# Runs in each interpreter; no single quotes (it travels in them), nothing beyond the core.
_PYTHON_CODE: Final = r"""
import os, sys
def found(name):
    try:
        __import__(name)
    except Exception:
        return "0"
    return "1"
def runtime():
    try:
        from importlib.metadata import version
        from importlib.util import find_spec
        if find_spec("onnxruntime") is None:
            return ""
    except Exception:
        return ""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return name + " " + version(name)
        except Exception:
            pass
    return "onnxruntime ?"
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except Exception:
    libc = ""
i = sys.implementation
flags = getattr(sys, "abiflags", "")
sys.stdout.write("\t".join([
    sys.executable or "", "%d.%d.%d" % tuple(sys.version_info[:3]),
    "64" if sys.maxsize > 2**32 else "32", i.name, flags, libc, found("zlib"), runtime(),
]))
"""

# @WORK@ is a shell word, @PYTHON@ a list of shell words or empty.
_SCRIPT: Final = r"""
LC_ALL=C; export LC_ALL
say() { printf '%s=%s\n' "$1" "$2"; }
echo 'hwnas-facts 1'
say machine "$(uname -m 2>/dev/null)"
say long_bit "$(getconf LONG_BIT 2>/dev/null)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say ldd "$(ldd --version 2>&1 | head -n 1)"
for f in /lib/ld-musl-*; do [ -e "$f" ] && say musl_loader "$f"; done
for f in /system/bin/linker64 /system/bin/linker; do [ -e "$f" ] && say bionic_loader "$f"; done
say os "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
work=@WORK@
say work "$work"
d=$work
while [ ! -d "$d" ] && [ "$d" != / ] && [ "$d" != . ]; do d=$(dirname "$d"); done
(df -Pk "$d" 2>/dev/null || df -k "$d" 2>/dev/null) | tail -n 1 | while read -r line; do
  say df "$line"
done
[ -r "$work/env/hwnas-env.json" ] && say env "$(tr -d '\n' < "$work/env/hwnas-env.json")"
code='@CODE@'
seen=' '
try() {
  real=$(readlink -f "$1" 2>/dev/null || printf %s "$1")
  case "$seen" in *" $real "*) return;; esac
  seen="$seen$real "
  if out=$("$1" -c "$code" 2>/dev/null); then say python "$1	$out"; else say broken "$1"; fi
}
given='@PYTHON@'
if [ -n "$given" ]; then
  p=$(command -v "$given" 2>/dev/null)
  [ -x "$p" ] && try "$p"
else
  p=$(command -v python3 2>/dev/null)
  [ -x "$p" ] && try "$p"
  for d in $(printf %s "$PATH" | tr : ' ') /usr/local/bin /usr/bin /opt/*/bin \
      /data/data/com.termux/files/usr/bin "$HOME"/.local/bin "$HOME"/.pyenv/versions/*/bin; do
    for p in "$d"/python3 "$d"/python3.[0-9] "$d"/python3.[0-9][0-9]; do
      [ -x "$p" ] && [ ! -d "$p" ] && try "$p"
    done
  done
fi
echo 'hwnas-facts end'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonFacts:
    """One interpreter of the board.

    Attributes:
        path: as it was found.
        executable: what it calls itself.
        version: (major, minor, micro).
        bits: 32 or 64.
        implementation: "cpython", "pypy", ...
        abi_flags: "t" for a free-threaded build, for which few wheels exist.
        libc: glibc's version text as the interpreter knows it; empty elsewhere.
        has_zlib: whether it can read wheels.
        runtime: ONNX Runtime it has already ("onnxruntime-gpu 1.18.0"), or empty.
    """

    path: str
    executable: str
    version: Version
    bits: int
    implementation: str
    abi_flags: str
    libc: str
    has_zlib: bool
    runtime: str

    @property
    def version_text(self) -> str:
        """For example "3.11.2"."""
        return ".".join(str(part) for part in self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """What `ask_board` found out.

    Attributes:
        machine: as `uname -m` says.
        bits: of the userland, which on a 64-bit kernel may still be 32; None where nobody says.
        libc: which C library.
        libc_version: of glibc, else None.
        os_name: the name the system gives itself; may be empty.
        work: our folder on the board, absolute.
        free_mib: on its file system; None where `df` is missing.
        pythons: interpreters, the default `python3` first.
        broken: interpreters that were found and do not run.
        env: text of the description of the environment made earlier; empty when there is none.
        raw: the whole answer.
    """

    machine: str
    bits: int | None
    libc: Libc
    libc_version: Version | None
    os_name: str
    work: str
    free_mib: int | None
    pythons: tuple[PythonFacts, ...]
    broken: tuple[str, ...]
    env: str
    raw: str

    @property
    def name(self) -> str:
        """What to call the system in a message."""
        return f"{self.os_name or 'an unnamed system'} ({self.machine})"


def ask_board(
    shell: BoardShell, *, work: str, python: str | None = None, timeout_s: float = _FACTS_TIMEOUT_S
) -> BoardFacts:
    """Ask the board what it is.

    Args:
        shell: a connection to it.
        work: our folder there as a shell word: quoted where it has to be, `$HOME` allowed.
        python: the only interpreter to look at; None looks for all.
        timeout_s: for the whole answer.

    Raises: DeviceError as `BoardShell.run`, "parse_failed" for an answer that makes no sense.
    """
    done = shell.run(facts_command(work=work, python=python), timeout_s=timeout_s)
    return parse_facts(done.stdout.decode(errors="replace"), device_id=shell.device_id)


def facts_command(*, work: str, python: str | None = None) -> str:
    """Return the command whose output `parse_facts` reads."""
    given = shlex.quote(python) if python else "''"
    return (
        _SCRIPT.replace("@WORK@", work).replace("@CODE@", _PYTHON_CODE).replace("'@PYTHON@'", given)
    )


def parse_facts(text: str, *, device_id: str = "") -> BoardFacts:
    """Read the answer.

    Raises: DeviceError "parse_failed" that quotes the first line that makes no sense.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    try:
        # A login script of the board may greet before and say goodbye behind.
        body = lines[lines.index(_BEGIN) + 1 : lines.index(_END)]
    except ValueError:
        shown = next((line for line in lines if line.strip()), "nothing")
        raise _not_understood(device_id, shown) from None
    single: dict[str, str] = {}
    several: dict[str, list[str]] = {"python": [], "broken": [], "df": []}
    for line in body:
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+", key):
            raise _not_understood(device_id, line)
        if key in several:
            several[key].append(value)
        else:
            single.setdefault(key, value)
    try:
        pythons = _unique([_python(value) for value in several["python"]])
        libc, version = _libc(single, pythons)
        return BoardFacts(
            machine=_machine(single["machine"]),
            bits=_bits(single, pythons),
            libc=libc,
            libc_version=version,
            os_name=single["os"],
            work=_absolute(single["work"]),
            free_mib=_free_mib(several["df"]),
            pythons=pythons,
            broken=tuple(several["broken"]),
            env=single.get("env", ""),
            raw=text,
        )
    except (KeyError, ValueError) as exc:
        raise _not_understood(device_id, str(exc).strip("'")) from exc


def _not_understood(device_id: str, shown: str) -> DeviceError:
    return DeviceError(
        f"the description of {device_id!r} by its own shell is not understood: {shown[:200]!r}",
        device_id=device_id,
        code="parse_failed",
        hint="report this line, please; -v logs the whole answer",
    )


def _python(value: str) -> PythonFacts:
    fields = value.split("\t")
    if len(fields) != 9:
        raise ValueError(f"python={value}")
    path, executable, version, bits, implementation, flags, libc, zlib, runtime = fields
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None or bits not in {"32", "64"} or zlib not in {"0", "1"}:
        raise ValueError(f"python={value}")
    return PythonFacts(
        path=path,
        executable=executable or path,
        version=tuple(int(part) for part in match.groups()),
        bits=int(bits),
        implementation=implementation,
        abi_flags=flags,
        libc=libc,
        has_zlib=zlib == "1",
        runtime=runtime,
    )


def _unique(pythons: list[PythonFacts]) -> tuple[PythonFacts, ...]:
    return tuple({python.executable: python for python in reversed(pythons)}.values())[::-1]


def _machine(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_+-]+", text):
        raise ValueError(f"machine={text}")
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(text, text)


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"work={text}")
    return text.rstrip("/") or "/"


def _bits(single: dict[str, str], pythons: tuple[PythonFacts, ...]) -> int | None:
    """Bits of the userland: the C library's, else the default interpreter's."""
    text = single["long_bit"]
    if text:
        if text not in {"32", "64"}:
            raise ValueError(f"long_bit={text}")
        return int(text)
    return pythons[0].bits if pythons else None


def _libc(single: dict[str, str], pythons: tuple[PythonFacts, ...]) -> tuple[Libc, Version | None]:
    """Kind and version: what getconf says, else ldd, else an interpreter, else which loader."""
    glibc = single["glibc"] or next((python.libc for python in pythons if python.libc), "")
    if glibc:
        match = re.fullmatch(r"glibc (\d+)\.(\d+)(?:\.\d+)*", glibc)
        if match is None:
            raise ValueError(f"glibc={glibc}")
        return "glibc", (int(match.group(1)), int(match.group(2)))
    ldd = single["ldd"]
    match = re.search(r"\((?:.*GLIBC.*|GNU libc)\) (\d+)\.(\d+)", ldd)
    if match is not None:
        return "glibc", (int(match.group(1)), int(match.group(2)))
    if "musl" in ldd or "musl_loader" in single:
        return "musl", None
    if "bionic_loader" in single:
        return "bionic", None
    return "unknown", None


def _free_mib(lines: list[str]) -> int | None:
    """Free space from the last line of df: ``... available use% mount``."""
    if not lines:
        return None
    match = re.search(r"\s(\d+)\s+\d+%\s+/", lines[-1] + " ")
    if match is None:
        raise ValueError(f"df={lines[-1]}")
    return int(match.group(1)) // 1024
