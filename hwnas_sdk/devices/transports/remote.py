"""A board behind a shell (SSH, ADB): its work folder, artifacts, the agent and its pipes.

Three commands bring a new board to life: one looks at the folder and finds a Python, one uploads
the agent (once per version), one starts it. A job's artifacts travel in one more.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.agent_build import build_agent
from hwnas_sdk.devices.transports.base import Channel, Transport, artifact_name
from hwnas_sdk.devices.transports.board_files import (
    HASH_FUNCTION,
    OWN_FOLDER,
    Upload,
    deliver,
    deploy_error,
    sha256_file,
)
from hwnas_sdk.devices.transports.remote_channel import PID_LINE, AgentChannel
from hwnas_sdk.devices.transports.shell import BoardShell

_LOG = logging.getLogger(__name__)

_OLDEST: Final = (3, 8)
_PREPARE_S: Final = 60.0
_NO_FOLDER: Final = 41
_PYTHONS: Final = ("python3", *(f"python3.{minor}" for minor in range(14, 7, -1)), "python")

_PREPARE = """
mkdir -p "$w" && cd "$w" && own && mkdir -p agent artifacts journal || exit 41
[ -w . ] && [ -w artifacts ] || { echo "$(pwd): Permission denied" >&2; exit 41; }
w=$(pwd)
echo "work $w"
for d in incoming.*; do
  if [ -d "$d" ] && ! kill -0 "${d#incoming.}" 2>/dev/null; then rm -rf "$d"; fi
done
py=
for p in "$@"; do
  case $p in env/*) p=$w/$p;; esac
  p=$(command -v "$p" 2>/dev/null) || continue
  v=$("$p" -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
  case $v in
    3.[89].*|3.[1-9][0-9]*|[4-9].*) py=$p; echo "python $v $p"; break;;
    *) echo "old $v $p";;
  esac
done
if [ -f "$agent" ]; then
  set -- $(hashes "$agent")
  echo "agent $1"
fi
echo "have" $(ls artifacts)
"""


@dataclass(frozen=True, slots=True)
class BoardFolder:
    """What a look at the board's work folder found.

    Attributes:
        work: its absolute path.
        python: interpreter for the agent, absolute path, or None.
        python_version: for example "3.11.2"; of a too old one when there is no other.
        has_agent: whether this version of the agent is there, and whole.
        artifacts: names of the files in ``artifacts/``, not checked.
    """

    work: str
    python: str | None
    python_version: str | None
    has_agent: bool
    artifacts: frozenset[str]


class RemoteTransport(Transport):
    """The work folder of a board that is reached by a `BoardShell`."""

    is_remote = True

    def __init__(
        self,
        shell: BoardShell,
        *,
        work: str,
        python: str | None = None,
        agent: Path | None = None,
        agent_options: Sequence[str] = (),
        host_timeout_s: float = 25.0,
    ) -> None:
        """Keep where and how; nothing is sent yet.

        Args:
            shell: how to reach the board.
            work: the folder there; may begin with ``$HOME`` or ``~``.
            python: the only interpreter to use; None looks for one.
            agent: file to run as the agent; None builds ours.
            agent_options: further options of the agent's command line.
            host_timeout_s: silence of the host after which the agent takes it for gone.
        """
        self.shell = shell
        self._device_id = shell.device_id
        self._work = work
        self._python = python
        self._agent_options = tuple(agent_options)
        self._host_timeout_s = host_timeout_s
        self._agent_sha = ""
        self._agent_path = agent
        self._folder: BoardFolder | None = None
        self._good: set[str] = set()

    def prepare(self) -> BoardFolder:
        """Make the work folder and look what is there; one command.

        Raises: DeviceError "no_space", "deploy_failed", or as `BoardShell.run`.
        """
        self._build()
        candidates = [self._python] if self._python else ["env/bin/python", *_PYTHONS]
        script = [
            f"w={_expandable(self._work)}",
            f"agent={shlex.quote(self._agent_name)}",
            HASH_FUNCTION,
            OWN_FOLDER,
            "set -- " + " ".join(_expandable(path) for path in candidates),
            _PREPARE,
        ]
        done = self.shell.run("\n".join(script), timeout_s=_PREPARE_S)
        if done.status != 0:
            raise deploy_error(self.shell, self._work, done)
        facts: dict[str, str] = {}
        for line in done.text.splitlines():
            word, _, rest = line.partition(" ")
            facts.setdefault(word, rest)
        if "work" not in facts or "have" not in facts:
            raise deploy_error(self.shell, self._work, done)
        version, _, python = facts.get("python", "").partition(" ")
        self._folder = BoardFolder(
            work=facts["work"],
            python=python or None,
            python_version=version or facts.get("old", "").partition(" ")[0] or None,
            has_agent=facts.get("agent") == self._agent_sha,
            artifacts=frozenset(facts["have"].split()),
        )
        self._good.clear()
        return self._folder

    def start(self) -> Channel:
        """Bring the agent if it is not there, and start it in a session of its own.

        Raises: DeviceError "python_missing", "no_space", "deploy_failed", or as `BoardShell.run`.
        """
        folder = self.prepare()
        python = self._python_of(folder)
        if not folder.has_agent:
            self._upload_agent(folder)
        command = [python, self._agent_name, "--work", folder.work]
        command += ["--host-timeout", f"{self._host_timeout_s:g}", *self._agent_options]
        words = " ".join(shlex.quote(word) for word in command)
        announce = shlex.quote(f'echo {PID_LINE} $$; exec "$@"')
        # Not the last command, else the shell replaces itself by setsid, which then has to fork
        # and takes the exit status with it.
        line = (
            f"cd {shlex.quote(folder.work)} || exit 41; s=setsid; "
            f"command -v setsid >/dev/null 2>&1 || s=; $s sh -c {announce} sh {words}; exit $?"
        )
        return AgentChannel(self.shell.open(line), self.shell)

    def push_all(self, files: Sequence[tuple[Path, str]]) -> None:
        """Push what is missing, check what is there; one command, none when all is known."""
        folder = self._folder or self.prepare()
        uploads: dict[str, Upload] = {}
        verify: list[str] = []
        for source, sha256 in files:
            name = artifact_name(source, sha256)
            if name in self._good or name in uploads or name in verify:
                continue
            if name in folder.artifacts:
                verify.append(name)
            elif _is_whole(source, sha256):
                uploads[name] = Upload(source, name)
        if uploads or verify:
            self._deliver(folder, list(uploads.values()), verify)
        sources = {artifact_name(source, sha256): (source, sha256) for source, sha256 in files}
        damaged = [name for name in verify if name not in self._good]
        again = [Upload(sources[name][0], name) for name in damaged if _is_whole(*sources[name])]
        if again:
            self._deliver(folder, again, [])

    def push(self, source: Path, sha256: str) -> str:
        """Make `source` available on the board; see `Transport.push`."""
        name = artifact_name(source, sha256)
        if name not in self._good:
            self.push_all([(source, sha256)])
        if name in self._good:
            return f"artifacts/{name}"
        try:
            good_here = sha256_file(source) == sha256
        except OSError as exc:
            raise DeviceError(
                f"the artifact {source} is gone",
                device_id=self._device_id,
                code="artifact_missing",
                hint="export the network again",
            ) from exc
        what = (
            f"the file {source.name} arrived damaged on {self._device_id!r}"
            if good_here
            else f"the file {source.name} is not what its hash says"
        )
        raise DeviceError(
            what,
            device_id=self._device_id,
            code="artifact_corrupt",
            hint="is the board's storage sound?" if good_here else "export the network again",
        )

    def forget_pushed(self) -> None:
        """Look again what is on the board before the next push (something was removed there)."""
        self._folder = None
        self._good.clear()

    def close(self) -> None:
        """End the connection."""
        self.shell.close()

    def _build(self) -> None:
        """Build the agent, once; its name and hash follow from its content."""
        if self._agent_path is None:
            self._agent_path = build_agent(_resources.home() / "agent")
        if not self._agent_sha:
            self._agent_sha = sha256_file(self._agent_path)

    @property
    def _agent_name(self) -> str:
        return f"agent/hwnas-agent-{self._agent_sha[:12]}.pyz"

    def _upload_agent(self, folder: BoardFolder) -> None:
        assert self._agent_path is not None
        upload = Upload(self._agent_path, f"{self._agent_sha}.pyz")
        found = deliver(self.shell, folder.work, [upload], python=folder.python or "python3")
        if not found[upload.name]:
            raise DeviceError(
                f"the agent arrived damaged on {self._device_id!r}",
                device_id=self._device_id,
                code="deploy_failed",
                hint="is the board's storage sound?",
                retryable=True,
            )

    def _deliver(
        self, folder: BoardFolder, uploads: Sequence[Upload], verify: Sequence[str]
    ) -> None:
        found = deliver(
            self.shell, folder.work, uploads, verify=verify, python=folder.python or "python3"
        )
        self._good |= {name for name, good in found.items() if good}

    def _python_of(self, folder: BoardFolder) -> str:
        if folder.python is not None:
            return folder.python
        wanted = f">= {'.'.join(str(part) for part in _OLDEST)}"
        if self._python:
            what = f"{self._python!r} on {self._device_id!r} is no Python {wanted}"
            hint = "correct python= in the device's URI"
        elif folder.python_version:
            what = f"{self._device_id!r} has only Python {folder.python_version}, not {wanted}"
            hint = "install a newer one there, or name it: ?python=PATH"
        else:
            what = f"{self._device_id!r} has no Python {wanted}"
            hint = "install one there (apt install python3), or name it: ?python=PATH"
        raise DeviceError(what, device_id=self._device_id, code="python_missing", hint=hint)


def _is_whole(source: Path, sha256: str) -> bool:
    """Whether the local file is what its hash says; what is not stays here (`push` says why)."""
    try:
        return sha256_file(source) == sha256
    except OSError as exc:
        _LOG.debug("not pushed: %s", exc)
        return False


def _expandable(path: str) -> str:
    """`path` quoted for a shell, a leading ``$HOME`` or ``~`` left to the board."""
    match = re.fullmatch(r"(?:\$HOME|~)(/.*)?", path)
    if match is None:
        return shlex.quote(path)
    return '"$HOME"' + shlex.quote(match.group(1) or "")
