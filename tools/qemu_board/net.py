"""One network per board: a veth pair between the host (.1) and the board's namespace (.2)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .shell import BoardError, run

MAX_BOARDS = 64
_PREFIX = "hwboard"
_SYSCTL = {
    # A board without power says no goodbye: connections it left behind are given up soon.
    "net/ipv4/tcp_orphan_retries": "1",
    "net/ipv6/conf/all/disable_ipv6": "1",
}


def namespace(number: int) -> str:
    """Name of the board's network namespace."""
    return f"{_PREFIX}-{number}"


def host_link(number: int) -> str:
    """Name of the host's end of the cable."""
    return f"{_PREFIX}{number}"


def addresses(number: int) -> tuple[str, str]:
    """Addresses of host and board, out of 198.18.0.0/15, which is set aside for benchmarks."""
    if not 1 <= number <= MAX_BOARDS:
        raise BoardError(f"board numbers go from 1 to {MAX_BOARDS}, not {number}")
    return f"198.18.{number}.1", f"198.18.{number}.2"


def create(number: int) -> None:
    """Make namespace, cable and addresses; what an earlier run left is removed first."""
    remove(number)
    name, link = namespace(number), host_link(number)
    host, board = addresses(number)
    run(["ip", "netns", "add", name])
    for key, value in _SYSCTL.items():
        run(["ip", "netns", "exec", name, "sh", "-c", f"echo {value} > /proc/sys/{key} || :"])
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name])
    run(["ip", "address", "add", f"{host}/30", "dev", link])
    run(["ip", "link", "set", link, "up"])
    run(["ip", "-n", name, "address", "add", f"{board}/30", "dev", "eth0"])
    run(["ip", "-n", name, "link", "set", "lo", "up"])
    run(["ip", "-n", name, "link", "set", "eth0", "up"])


def set_link(number: int, *, up: bool) -> None:
    """Plug or unplug the cable, at the board's end: to the host the board falls silent."""
    run(["ip", "-n", namespace(number), "link", "set", "eth0", "up" if up else "down"])


def link_is_up(number: int) -> bool:
    """Whether the cable is plugged."""
    done = run(["ip", "-n", namespace(number), "-o", "link", "show", "eth0"], check=False)
    return done.returncode == 0 and "state UP" in done.stdout


def processes(number: int) -> list[int]:
    """Host process ids of everything in the board's network namespace."""
    done = run(["ip", "netns", "pids", namespace(number)], check=False)
    return [int(word) for word in done.stdout.split()] if done.returncode == 0 else []


def kill_all(number: int) -> None:
    """End every process of the board."""
    for pid in processes(number):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def remove(number: int) -> None:
    """End what runs in the namespace, then remove it and the cable. Fine when absent."""
    if namespace(number) in present():
        kill_all(number)
        run(["ip", "netns", "delete", namespace(number)], check=False)
    if (Path("/sys/class/net") / host_link(number)).exists():
        run(["ip", "link", "delete", host_link(number)], check=False)


def present() -> list[str]:
    """Names of our namespaces on this machine."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{_PREFIX}-*")) if folder.is_dir() else []


def numbers_present() -> set[int]:
    """Numbers of the boards that have a namespace."""
    tails = (name.removeprefix(f"{_PREFIX}-") for name in present())
    return {int(tail) for tail in tails if tail.isdigit()}
