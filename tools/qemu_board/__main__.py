"""Emulated boards: build, start, stop and break them.

python tools/qemu_board build | start | stop | status | exec | ssh | link | kill | restart | fill |
unfill | clock          (see tools/qemu_board/README.md)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # `python tools/qemu_board`: make the folder a package
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "qemu_board"
    import qemu_board  # noqa: F401

from .adb import AdbServer
from .board import Board, numbers, reap
from .host import unavailable
from .image import build, is_built
from .recipe import cache_dir
from .shell import BoardError


def main() -> int:
    """Run one command; the exit status is 0, 1 for an error, 3 when this host cannot."""
    options = _parser().parse_args()
    try:
        reason = unavailable()
        if reason and options.command != "status":
            return _cannot(options, reason)
        result = options.do(options)
    except BoardError as exc:
        if _may_skip(options):
            return _cannot(options, f"no emulated board: {exc}")
        print(f"error: {exc}", file=sys.stderr)
        return 1
    if isinstance(result, int):
        return result
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        _show(result)
    return 0


def _cannot(options: argparse.Namespace, reason: str) -> int:
    """Say why not; no failure when the caller can do without, unless boards are required."""
    print(reason, file=sys.stderr)
    return 0 if _may_skip(options) else 3


def _may_skip(options: argparse.Namespace) -> bool:
    return getattr(options, "or_skip", False) and not os.environ.get("HWNAS_REQUIRE_BOARD")


def _show(result: dict[str, Any]) -> None:
    for board in result.get("boards", ()):
        print(f"board {board['number']}: {board['state']}")
        for key in ("ssh_uri", "adb_uri", "known_hosts", "ssh"):
            print(f"  {key:12} {board[key]}")
    for key, value in result.items():
        if key != "boards":
            print(f"{key}: {value}")


def _describe(board: Board) -> dict[str, Any]:
    is_on = board.is_on
    return {
        "number": board.number,
        "state": ("on" if board.link_is_up else "on, link down") if is_on else "off",
        "address": board.address,
        "ssh_uri": board.ssh_uri,
        "adb_uri": board.adb_uri,
        "key_file": str(board.key_file),
        "known_hosts": str(board.known_hosts),
        "ssh": " ".join(board.ssh_command()),
        "processes": [entry.command for entry in board.processes()] if is_on else [],
    }


def do_build(options: argparse.Namespace) -> dict[str, Any]:
    """Build what is missing."""
    taken_s = build(runtime=not options.bare, log=lambda line: print(line, file=sys.stderr))
    return {"taken_s": taken_s, "cache": str(cache_dir())}


def do_start(options: argparse.Namespace) -> dict[str, Any]:
    """Start boards 1 to N; those that run already are left alone."""
    began_s = time.monotonic()
    boards = []
    for number in range(1, options.boards + 1):
        board = Board(number=number, owned=False, adb=options.adb, ready=options.ready,
                      cpufreq=options.cpufreq, disk_mib=options.disk_mib)  # fmt: skip
        board.start()
        board.power_on()
        boards.append(_describe(board))
    return {"boards": boards, "taken_s": round(time.monotonic() - began_s, 1)}


def do_stop(options: argparse.Namespace) -> dict[str, Any]:
    """Stop boards; without numbers all that no living process owns."""
    removed = reap()
    for number in options.number or numbers():
        board = Board.attach(number)
        if options.number or options.all or not board.has_owner:
            board.stop()
            removed.append(number)
    return {"stopped": removed}


def do_status(_: argparse.Namespace) -> dict[str, Any]:
    """What there is."""
    reason = unavailable()
    boards = [] if reason else [_describe(Board.attach(number)) for number in numbers()]
    return {"boards": boards, "unavailable": reason, "built": is_built(), "cache": str(cache_dir())}


def do_exec(options: argparse.Namespace) -> int:
    """Run a command on a board, past its network."""
    done = Board.attach(options.number).run(
        " ".join(options.words), user=options.user, check=False, timeout_s=options.timeout_s
    )
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def do_ssh(options: argparse.Namespace) -> int:
    """Log in with the plain client."""
    command = Board.attach(options.number).ssh_command(*options.words)
    os.execvp(command[0], command)  # noqa: S606 - our own command line


def do_link(options: argparse.Namespace) -> dict[str, Any]:
    """Plug or unplug the network cable."""
    board = Board.attach(options.number)
    if options.state == "up":
        board.link_up()
    else:
        board.link_down()
    return {"board": options.number, "link": options.state}


def do_kill(options: argparse.Namespace) -> dict[str, Any]:
    """Cut the power."""
    Board.attach(options.number).power_off()
    return {"board": options.number, "state": "off"}


def do_restart(options: argparse.Namespace) -> dict[str, Any]:
    """Cut the power if it is on, then boot."""
    board = Board.attach(options.number)
    board.power_off()
    board.power_on()
    return {"boards": [_describe(board)]}


def do_fill(options: argparse.Namespace) -> dict[str, Any]:
    """Make the disk full."""
    Board.attach(options.number).fill_disk(leave_kib=options.leave_kib)
    return {"board": options.number, "disk": "full"}


def do_unfill(options: argparse.Namespace) -> dict[str, Any]:
    """Give the disk its size back."""
    Board.attach(options.number).free_disk()
    return {"board": options.number, "disk": "free"}


def do_clock(options: argparse.Namespace) -> dict[str, Any]:
    """Let the wall clock be wrong."""
    Board.attach(options.number).set_clock(options.offset_s)
    return {"board": options.number, "clock_offset_s": options.offset_s}


def do_adb(options: argparse.Namespace) -> dict[str, Any]:
    """Start an adb server of its own and attach the boards to it."""
    home = Path(options.home)
    home.mkdir(parents=True, exist_ok=True)
    server = AdbServer(home)
    server.start()
    for number in numbers():
        server.connect(Board.attach(number).adb_serial)
    return {"environment": server.environ, "devices": server.run("devices").split("\n")[1:]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tools/qemu_board", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, do: Any, *, numbered: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=do.__doc__, description=do.__doc__)
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.set_defaults(do=do)
        if numbered:
            command.add_argument("number", type=int, help="which board")
        return command

    command = add("build", do_build)
    command.add_argument("--bare", action="store_true", help="without the ONNX Runtime layer")
    command.add_argument(
        "--or-skip",
        action="store_true",
        help="no failure where boards are impossible (see HWNAS_REQUIRE_BOARD)",
    )
    command = add("start", do_start)
    command.add_argument("--boards", type=int, default=1, metavar="N", help="boards 1 to N")
    command.add_argument("--adb", action="store_true", help="with adbd")
    command.add_argument("--ready", action="store_true", help="with ONNX Runtime installed")
    command.add_argument("--cpufreq", action="store_true", help="with a stand-in for cpufreq")
    command.add_argument("--disk-mib", type=int, default=3072, help="size of the disk, on memory")
    command = add("stop", do_stop)
    command.add_argument("number", type=int, nargs="*", help="which boards")
    command.add_argument("--all", action="store_true", help="also those of running tests")
    add("status", do_status)
    command = add("exec", do_exec, numbered=True)
    command.add_argument("--user", choices=("root", "pi"), default="root")
    command.add_argument("--timeout-s", type=float, default=600.0)
    command.add_argument("words", nargs=argparse.REMAINDER, help="command for the board's sh")
    command = add("ssh", do_ssh, numbered=True)
    command.add_argument("words", nargs=argparse.REMAINDER)
    add("link", do_link, numbered=True).add_argument("state", choices=("up", "down"))
    add("kill", do_kill, numbered=True)
    add("restart", do_restart, numbered=True)
    add("fill", do_fill, numbered=True).add_argument("--leave-kib", type=int, default=0)
    add("unfill", do_unfill, numbered=True)
    add("clock", do_clock, numbered=True).add_argument("offset_s", type=int)
    add("adb", do_adb).add_argument("--home", required=True, help="folder for its keys")
    return parser


if __name__ == "__main__":
    sys.exit(main())
