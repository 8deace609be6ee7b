"""The work folder of a board without Python: the runner, networks and jobs in it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.command_board import PROBE_SCRIPT, BoardFacts, mask_of, parse_probe
from hwnas_sdk.devices.command_conditions import DUMPS
from hwnas_sdk.devices.command_energy import IDLE_S
from hwnas_sdk.devices.command_job import Invocation
from hwnas_sdk.devices.command_runners import Runner
from hwnas_sdk.devices.command_script import cancel_command, quoted
from hwnas_sdk.devices.session import Cleaned
from hwnas_sdk.devices.transports.base import artifact_name
from hwnas_sdk.devices.transports.board_files import (
    HASH_FUNCTION,
    OWN_FOLDER,
    Upload,
    deliver,
    deploy_error,
    sha256_file,
    tar_stream,
)
from hwnas_sdk.devices.transports.shell import BoardShell, Completed

_MAX_LIBRARIES: Final = 16
_UPLOAD_BYTES_PER_S: Final = 500_000
_SNAPSHOT_EVERY: Final = 8
_DUMP: Final = "@dump "

_PREPARE = """
mkdir -p "$w" && cd "$w" && own && mkdir -p artifacts jobs runners agent || exit 41
[ -w . ] || exit 41
for d in incoming.*; do
  [ -d "$d" ] && ! kill -0 "${d#incoming.}" 2>/dev/null && rm -rf "$d"
done
echo "work $(pwd)"
"""

# With a host that never came back, results of a month ago are of no use to anybody.
_CLEAN = """
read -r p _ 2>/dev/null < lease.d/holder && [ -n "$p" ] && [ -d "/proc/$p" ] && {
  echo "busy $p"; exit 0; }
drop() {
  s=$(du -k "$1" 2>/dev/null | tail -n 1 | cut -f 1)
  rm -rf "$1" && echo "gone ${s:-0} $1"
}
for f in artifacts/* runners/* incoming.*; do
  [ -e "$f" ] || continue
  n=${f##*/} h=${f##*/}
  case $f in incoming.*) ;; *) h=${h%%.*}; [ ${#h} -eq 64 ] || continue;; esac
  case " $keep " in *" ${n%%.*} "*) ;; *) drop "$f";; esac
done
for f in $(find jobs -mindepth 1 -maxdepth 1 $jobs 2>/dev/null); do drop "$f"; done
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A runner that lies on the board and starts there.

    Attributes:
        name: its file name.
        sha256: of the file.
        folder: where it lies on the board.
        has_libraries: whether shared libraries lie beside it.
    """

    name: str
    sha256: str
    folder: str
    has_libraries: bool

    @property
    def command(self) -> list[str]:
        """How to start it."""
        environment = ["env", f"LD_LIBRARY_PATH={self.folder}"] if self.has_libraries else []
        return [*environment, f"{self.folder}/{self.name}"]


class BoardFiles:
    """The folder `work` on a board."""

    def __init__(self, shell: BoardShell, work: str) -> None:
        """Make the folder. Raises: DeviceError "no_space" or "deploy_failed", or as the shell."""
        self.shell = shell
        home = re.fullmatch(r"(?:\$HOME|~)(/.*)?", work)
        path = shlex.quote(work) if home is None else '"$HOME"' + shlex.quote(home.group(1) or "")
        done = shell.run(f"w={path}\n{OWN_FOLDER}\n{_PREPARE}")
        word, _, rest = done.text.partition(" ")
        if done.status != 0 or word != "work":
            raise deploy_error(shell, work, done)
        self.work = rest
        self._good: set[str] = set()

    @property
    def lease(self) -> str:
        """The folder that stands for having the board."""
        return f"{self.work}/lease.d"

    def job_dir(self, job_id: str) -> str:
        """Folder of a job."""
        return f"{self.work}/jobs/{job_id}"

    def look(self) -> BoardFacts:
        """Ask the board what and how it is."""
        dumps = "; ".join(f"echo '{_DUMP}{name}'; {command}" for name, command in DUMPS.items())
        script = f"cd {shlex.quote(self.work)}\n{PROBE_SCRIPT}\n"
        script += f"command -v dumpsys >/dev/null 2>&1 && {{ {dumps}; }} 2>/dev/null\n:\n"
        done = self.shell.run(script, timeout_s=60.0)
        text, _, rest = done.stdout.decode(errors="replace").partition(f"\n{_DUMP}")
        return parse_probe(text, dumps=split_dumps(f"{_DUMP}{rest}" if rest else ""))

    # --- the runner ---------------------------------------------------------------------------

    def bring_program(self, program: Path) -> Program:
        """Bring the runner (and the shared libraries beside it), once per version, and try it.

        Raises: DeviceError "runner_missing" when there is no such file, "runner_unusable" when the
        board cannot start it.
        """
        name = self.shell.device_id
        try:
            files = [program, *_libraries(program)]
            hashes = {path.name: sha256_file(path) for path in files}
        except OSError as exc:
            raise DeviceError(
                f"the runner of {name!r} cannot be read: {program}: {exc.strerror}",
                device_id=name,
                code="runner_missing",
                hint="correct runner= in the device's URI",
            ) from exc
        digest = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()
        found = Program(
            program.name, hashes[program.name], f"{self.work}/runners/{digest}", len(files) > 1
        )
        if self._hashes(found.folder) != hashes:
            self._upload(found.folder, files, hashes)
        self._try(found)
        return found

    def _hashes(self, folder: str) -> dict[str, str]:
        script = f"py=python3; {HASH_FUNCTION}; cd {shlex.quote(folder)} 2>/dev/null && hashes *"
        done = self.shell.run(script, timeout_s=120.0)
        return _read_hashes(done) if done.status == 0 else {}

    def _upload(self, folder: str, files: Sequence[Path], hashes: Mapping[str, str]) -> None:
        target = shlex.quote(folder)
        script = (
            f"cd {shlex.quote(self.work)} || exit 42; py=python3; {HASH_FUNCTION}\n"
            "d=incoming.$$; mkdir $d && tar -xf - -C $d && chmod 755 $d/* || exit 42\n"
            f"rm -rf {target}; mv $d {target} && cd {target} && hashes *\n"
        )
        uploads = [Upload(path, path.name) for path in files]
        size = sum(path.stat().st_size for path in files)
        done = self.shell.run(
            script, stdin=tar_stream(uploads), timeout_s=60.0 + size / _UPLOAD_BYTES_PER_S
        )
        if done.status != 0:
            raise deploy_error(self.shell, self.work, done)
        if _read_hashes(done) != hashes:
            self.shell.run(f"rm -rf {target}")
            raise DeviceError(
                f"the runner arrived damaged on {self.shell.device_id!r}",
                device_id=self.shell.device_id,
                code="deploy_failed",
                hint="is the board's storage sound?",
                retryable=True,
            )

    def _try(self, program: Program) -> None:
        """Start the runner for its help; whatever it answers, it must be able to start."""
        help_text = f"{quoted(program.command)} --help </dev/null"
        limited = "t=; timeout -k 1 9 true 2>/dev/null && t='timeout -k 1 20'; $t "
        done = self.shell.run(limited + help_text, timeout_s=40.0)
        stderr = done.stderr.decode(errors="replace")
        linker = "CANNOT LINK EXECUTABLE" in stderr or "loading shared libraries" in stderr
        if 0 <= done.status < 126 and not linker:
            return
        device_id = self.shell.device_id
        how = f"ended by signal {-done.status}" if done.status < 0 else done.error_line
        line = next((line for line in stderr.splitlines() if "LINK" in line or "load" in line), how)
        raise DeviceError(
            f"the runner {program.name} does not start on {device_id!r}: {line.strip()}",
            device_id=device_id,
            code="runner_unusable",
            hint="put the shared libraries it needs beside it"
            if linker
            else "is it made for this board (processor, Android or Linux)?",
        )

    # --- networks -----------------------------------------------------------------------------

    def bring_networks(
        self, files: Sequence[tuple[Path, str]]
    ) -> dict[tuple[Path, str], str | DeviceError]:
        """Bring the files that are missing, in one go; returns each one's path there, or why not.

        Raises: DeviceError "no_space" or "deploy_failed", or as `BoardShell.run`.
        """
        folder = shlex.quote(f"{self.work}/artifacts")
        present = set(self.shell.run(f"ls {folder}").text.split())
        found: dict[tuple[Path, str], str | DeviceError] = {}
        uploads: dict[str, Upload] = {}
        names = {pair: artifact_name(*pair) for pair in files}
        for (source, sha256), name in names.items():
            try:
                whole = name in self._good or sha256_file(source) == sha256
            except OSError:
                found[source, sha256] = self._bad("artifact_missing", f"{source} is gone")
                continue
            if not whole:
                text = f"the file {source.name} is not what its hash says"
                found[source, sha256] = self._bad("artifact_corrupt", text)
            elif name not in present or name not in self._good:
                uploads[name] = Upload(source, name)
        verify = [name for name in uploads if name in present]
        good = deliver(
            self.shell,
            self.work,
            [upload for name, upload in uploads.items() if name not in present],
            verify=verify,
        )
        damaged = [uploads[name] for name in verify if not good[name]]
        if damaged:
            good |= deliver(self.shell, self.work, damaged)
        self._good = (self._good & present) | {name for name, is_good in good.items() if is_good}
        for pair, name in names.items():
            if pair not in found:
                found[pair] = (
                    f"../../artifacts/{name}"  # from a job's folder
                    if name in self._good
                    else self._bad("artifact_corrupt", f"{pair[0].name} arrived damaged")
                )
        return found

    def _bad(self, code: str, text: str) -> DeviceError:
        return DeviceError(text, device_id=self.shell.device_id, code=code)

    # --- jobs ---------------------------------------------------------------------------------

    def plan_text(
        self,
        plan: Sequence[Invocation],
        models: Mapping[str, str],
        *,
        runner: Runner,
        program: Program,
        prefix: Sequence[str],
        cores: Sequence[int],
        threads: int,
        is_android: bool,
        gauge: str | None,
    ) -> str:
        """Shell text of a plan; on Android the phone's conditions are noted now and then."""
        dumps = "; ".join(f"echo '{_DUMP}{name}'; {command}" for name, command in DUMPS.items())
        lines = [f'snap() {{ {{ {dumps}; }} > "snap.$1" 2>/dev/null; }}'] if is_android else []
        if gauge is not None:
            lines.append(f"gauge={shlex.quote(gauge)}")
        pinned = ["taskset", mask_of(cores)] if cores else []
        for count, one in enumerate(plan):
            if is_android and count % _SNAPSHOT_EVERY == 0:
                lines.append(f"snap {one.number}")
            arguments = runner.arguments(
                models[one.item],
                f"res.{one.number}",
                threads=threads,
                warmup_runs=one.warmup_runs,
                runs=one.runs,
                limit_s=one.limit_s,
            )
            words = quoted([*prefix, *pinned, *program.command, *arguments])
            kind = f"energy {IDLE_S}" if one.is_energy else "inv"
            lines.append(f"{kind} {one.number} {one.limit_s} {words}")
        if is_android and plan:
            lines.append(f"snap {plan[-1].number + 1}")
        return "\n".join([*lines, ":", ""])

    def forget(self, job_id: str) -> None:
        """Remove a job's folder; a job that still runs is ended first."""
        folder = self.job_dir(job_id)
        self.shell.run(f"({cancel_command(folder, self.lease)}); rm -rf {shlex.quote(folder)}")

    def clean(self, keep: AbstractSet[str], *, journals: bool, program: Program) -> Cleaned:
        """Remove what is not needed. Raises: DeviceError "board_busy" while a job runs."""
        kept = " ".join([*sorted(keep), program.folder.rpartition("/")[2]])
        jobs = "" if journals else "-mtime +30"
        script = f"cd {shlex.quote(self.work)} || exit 41\nkeep={shlex.quote(kept)} jobs='{jobs}'"
        done = self.shell.run(f"{script}\n{_CLEAN}\n:", timeout_s=120.0)
        lines = [line.split(" ", 2) for line in done.text.splitlines()]
        if any(line[0] == "busy" for line in lines):
            device_id = self.shell.device_id
            raise DeviceError(
                f"{device_id!r} is measuring, nothing was removed",
                device_id=device_id,
                code="board_busy",
                hint="try again when the run has ended",
                retryable=True,
            )
        self._good.clear()
        gone = [int(line[1]) for line in lines if line[0] == "gone" and len(line) == 3]
        return Cleaned(len(gone), 1024 * sum(gone))


def split_dumps(text: str) -> dict[str, str]:
    """Take apart what `DUMPS` printed: name -> text."""
    found: dict[str, str] = {}
    for part in f"\n{text}".split(f"\n{_DUMP}")[1:]:
        name, _, content = part.partition("\n")
        found[name.strip()] = content
    return found


def _libraries(program: Path) -> list[Path]:
    """Shared libraries beside the runner; none when it lies in a folder full of them."""
    found = sorted(path for path in program.parent.glob("lib*.so*") if path.is_file())
    return found if len(found) <= _MAX_LIBRARIES else []


def _read_hashes(done: Completed) -> dict[str, str]:
    pairs = [line.split(None, 1) for line in done.text.splitlines()]
    return {pair[1].strip().lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}
