"""Runs on a board: makes the Python environment that measures, from wheels that lie beside it.

Python 3.8 or newer, standard library only. Everything is built in ``env.new.*`` and renamed to
``env`` once the runtime was imported from it, so a board that is switched off at any moment has
the old environment or the new one. What an earlier attempt left is removed by the next.

Standard input: one JSON object: ``work`` (absolute folder), ``runtimes`` (name -> module),
``wheels`` (file name -> SHA-256), ``packages`` and ``bytes`` (for the description), ``base`` (this
interpreter), ``fresh`` (do not build on the environment there is), ``deadline_s``.
Standard output, last line: ``{"ok": {...}}`` or ``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from typing import IO, Any

MARKER = "hwnas-env.json"
_LOCK_WAIT_S = 60.0
_LITTER_AGE_S = 3600.0
IMPORT_CODE = (
    "import importlib, json, sys\n"
    "m = importlib.import_module(sys.argv[1])\n"
    "p = getattr(m, 'get_available_providers', list)()\n"
    "sys.stdout.write('\\n' + json.dumps({'version': m.__version__, 'providers': list(p)}))\n"
)


class SetupError(Exception):
    """Something that ends the installation; `code` is for the host."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def main() -> int:
    """Install, and say how it went."""
    request = json.load(sys.stdin)
    here = os.path.dirname(os.path.abspath(__file__))
    signal.signal(signal.SIGALRM, _too_late)
    signal.signal(signal.SIGTERM, _too_late)  # the limit set from outside
    signal.alarm(int(request["deadline_s"]))
    try:
        answer = {"ok": install(request, here)}
    except SetupError as exc:
        answer = {"error": {"code": exc.code, "message": str(exc)}}
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        answer = {"error": {"code": "no_space" if full else "deploy_failed", "message": str(exc)}}
    finally:
        signal.alarm(0)
        shutil.rmtree(here, ignore_errors=True)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


def install(request: dict[str, Any], here: str) -> dict[str, Any]:
    """Build ``env`` anew or extend it; returns its description."""
    work = request["work"]
    if os.path.realpath(work) in (os.path.realpath(os.path.expanduser("~")), "/"):
        raise SetupError("deploy_failed", "%s is no folder of our own: ?work=DIR" % work)
    env = os.path.join(work, "env")
    if os.path.lexists(env) and not os.path.isfile(os.path.join(env, MARKER)):
        raise SetupError("deploy_failed", "%s is there and is not ours: ?work=DIR" % env)
    with open(os.path.join(work, "setup.lock"), "w") as lock:
        _take(lock)
        _remove_litter(work, here)
        _check(request["wheels"], here)
        env = os.path.join(work, "env")
        new = os.path.join(work, "env.new.%d" % os.getpid())
        try:
            _make(env, new, request)
            python = os.path.join(new, "bin", "python")
            _install_wheels(new, request["wheels"], here)
            marker = _described(python, request)
            with open(os.path.join(new, MARKER), "w") as stream:
                json.dump(marker, stream)
            os.sync()
            old = os.path.join(work, "env.old.%d" % os.getpid())
            if os.path.lexists(env):
                os.rename(env, old)
            os.rename(new, env)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    return marker


def _take(lock: IO[str]) -> None:
    """Wait a while for another installation on this board."""
    until_s = time.monotonic() + _LOCK_WAIT_S
    while not _taken(lock):
        if time.monotonic() > until_s:
            raise SetupError("board_busy", "another setup of this board is running")
        time.sleep(0.2)


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_litter(work: str, here: str) -> None:
    """Remove what killed attempts left; a push that is under way right now is younger."""
    for path in glob.glob(os.path.join(work, "env.new.*")) + glob.glob(
        os.path.join(work, "env.old.*")
    ):
        shutil.rmtree(path, ignore_errors=True)
    for path in glob.glob(os.path.join(work, "setup.*")):
        if path != here and os.path.isdir(path):
            age_s = time.time() - os.stat(path).st_mtime
            if age_s > _LITTER_AGE_S:
                shutil.rmtree(path, ignore_errors=True)


def _check(wheels: dict[str, str], here: str) -> None:
    for name, sha256 in sorted(wheels.items()):
        digest = hashlib.sha256()
        try:
            with open(os.path.join(here, name), "rb") as stream:
                for chunk in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(chunk)
        except FileNotFoundError:
            raise SetupError("deploy_failed", "the file %s did not arrive" % name) from None
        if digest.hexdigest() != sha256:
            raise SetupError("deploy_failed", "the file %s arrived damaged" % name)


def _make(env: str, new: str, request: dict[str, Any]) -> None:
    """Make the new environment: a copy of the one there is, or an empty one."""
    if not request["fresh"] and os.path.isdir(env):
        shutil.copytree(env, new, symlinks=True)
    else:
        try:
            import venv  # some boards ship Python without it

            venv.EnvBuilder(with_pip=False, symlinks=True).create(new)
        except ImportError:
            _make_by_hand(new)


def _make_by_hand(new: str) -> None:
    """What `venv` does, for a Python that was packaged without it."""
    executable = os.path.realpath(sys.executable)
    version = "python%d.%d" % sys.version_info[:2]
    os.makedirs(os.path.join(new, "bin"))
    os.makedirs(os.path.join(new, "lib", version, "site-packages"))
    for name in ("python", "python3"):
        os.symlink(executable, os.path.join(new, "bin", name))
    with open(os.path.join(new, "pyvenv.cfg"), "w") as stream:
        stream.write("home = %s\n" % os.path.dirname(executable))
        stream.write("include-system-site-packages = false\n")
        stream.write("version = %d.%d.%d\n" % sys.version_info[:3])


def _install_wheels(new: str, wheels: dict[str, str], here: str) -> None:
    """Unpack wheels as pip does, without pip: that takes six times as long on a slow board.

    What it leaves out is not needed here: dependencies (the host chose), scripts, byte code.
    """
    version = "python%d.%d" % sys.version_info[:2]
    site = os.path.join(new, "lib", version, "site-packages")
    for name in sorted(wheels):
        distribution = name.split("-")[0]
        _uninstall(site, distribution)
        with zipfile.ZipFile(os.path.join(here, name)) as archive:
            archive.extractall(site)
        # The parts of a wheel that go elsewhere (PEP 427); of these only libraries matter.
        data = os.path.join(site, "-".join(name.split("-")[:2]) + ".data")
        for kind in ("purelib", "platlib"):
            if os.path.isdir(os.path.join(data, kind)):
                _move_into(os.path.join(data, kind), site)
        shutil.rmtree(data, ignore_errors=True)


def _uninstall(site: str, distribution: str) -> None:
    """Remove what another version of a distribution put there, by its own record."""
    wanted = _normal(distribution)
    for info in glob.glob(os.path.join(site, "*.dist-info")):
        if _normal(os.path.basename(info).split("-")[0]) != wanted:
            continue
        with open(os.path.join(info, "RECORD"), encoding="utf-8", newline="") as stream:
            paths = [row[0] for row in csv.reader(stream) if row]
        for path in paths:
            target = os.path.normpath(os.path.join(site, path))
            if target.startswith(site + os.sep) and os.path.isfile(target):
                os.unlink(target)
                _remove_byte_code(target)
        shutil.rmtree(info, ignore_errors=True)


def _remove_byte_code(source: str) -> None:
    """Remove what Python compiled from `source`, which no record names.

    It would be taken for the next version's as well, where that has the same size and the same
    second of its clock: after a quick second setup, or on a board whose clock starts anew.
    """
    folder, name = os.path.split(source)
    stem, suffix = os.path.splitext(name)
    if suffix == ".py":
        pattern = os.path.join(glob.escape(folder), "__pycache__", glob.escape(stem) + ".*.pyc")
        for path in glob.glob(pattern):
            os.unlink(path)


def _normal(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").lower()


def _move_into(source: str, target: str) -> None:
    for folder, _, names in os.walk(source):
        place = os.path.join(target, os.path.relpath(folder, source))
        os.makedirs(place, exist_ok=True)
        for name in names:
            os.replace(os.path.join(folder, name), os.path.join(place, name))


def _described(python: str, request: dict[str, Any]) -> dict[str, Any]:
    """Import every runtime in a process of its own: some builds crash on some processors."""
    runtimes = {}
    for name, module in sorted(request["runtimes"].items()):
        status, out, errors = _run([python, "-c", IMPORT_CODE, module])
        if status < 0:
            raise SetupError(
                "runtime_crashed",
                "importing %s ends with %s" % (module, _signal_name(-status)),
            )
        if status != 0:
            raise SetupError("runtime_missing", "importing %s: %s" % (module, _last(errors)))
        runtimes[name] = json.loads(out.splitlines()[-1])
    return {
        "format": 1,
        "runtimes": runtimes,
        "packages": request["packages"],
        "bytes": request["bytes"],
        "python": "%d.%d.%d" % sys.version_info[:3],
        "base": request["base"],
    }


def _run(command: list[str]) -> tuple[int, str, str]:
    """Run to the end; returns status (negative for a signal), output and errors."""
    environment = {key: value for key, value in os.environ.items() if key[:6] != "PYTHON"}
    environment["PYTHONNOUSERSITE"] = "1"
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")


def _too_late(number: int, frame: Any) -> None:
    raise SetupError("deadline", "the installation took too long")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


if __name__ == "__main__":
    sys.exit(main())
