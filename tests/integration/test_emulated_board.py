"""The emulated board itself, by the plain clients: it is a board, and it breaks as told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from integration_models import convolution
from qemu_board import AdbServer, Board, numbers, reap
from qemu_board.recipe import HERE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN_MODEL = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
draw = numpy.random.RandomState(0).uniform(-1, 1, (1, 3, 16, 16)).astype("float32")
print(*session.run(None, {"x": draw})[0].ravel().tolist())
"""


def ssh(board: Board, command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        board.ssh_command(command), capture_output=True, text=True, check=False, timeout=60,
        **options,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def test_it_is_an_arm_board_with_its_own_everything(boards: tuple[Board, Board]) -> None:
    seen = [
        ssh(board, "uname -mn; cat /etc/machine-id; id -un; cat /proc/cpuinfo; ls /sys/class/net")
        for board in boards
    ]
    for board, done in zip(boards, seen, strict=True):
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == f"board{board.number} aarch64"
        assert lines[2] == "pi"
        assert "CPU implementer\t: 0x41" in lines
        assert not any(line.startswith("vendor_id") for line in lines)
        assert lines[-2:] == ["eth0", "lo"]
    assert seen[0].stdout.splitlines()[1] != seen[1].stdout.splitlines()[1]
    keys = {board.known_hosts.read_text().split()[2] for board in boards}
    assert len(keys) == 2


def test_boards_see_neither_each_other_nor_the_world(boards: tuple[Board, Board]) -> None:
    first, second = boards
    sleeper = subprocess.Popen(first.ssh_command("exec sleep 4711"))
    try:
        deadline_s = time.monotonic() + 20
        while not any("sleep 4711" in entry.command for entry in first.processes()):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert "4711" not in second.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    finally:
        sleeper.kill()
        sleeper.wait()
        first.kill("sleep 4711")
    reach = "import socket; socket.create_connection(({!r}, 22), 3)"
    for address in (second.address, "192.0.2.1"):
        done = ssh(first, f'python3 -c "{reach.format(address)}"')
        assert "Network is unreachable" in done.stderr


def test_orphans_are_collected_by_init(boards: tuple[Board, Board]) -> None:
    done = boards[1].run("(sleep 0.2 &) ; sleep 2; ps -eo stat,args")
    assert "ps -eo" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("Z")]


def test_adb_keeps_status_streams_and_bytes(
    boards: tuple[Board, Board], adb_server: AdbServer, tmp_path: Path
) -> None:
    board = boards[1]
    adb_server.connect(board.adb_serial)
    done = subprocess.run(
        ["adb", "-s", board.adb_serial, "shell", "echo out; echo err >&2; exit 7"],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **adb_server.environ},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert "shell_v2" in adb_server.run("-s", board.adb_serial, "features").split()
    data = np.random.RandomState(0).bytes(3_000_001)
    (tmp_path / "a").write_bytes(data)
    adb_server.run("-s", board.adb_serial, "push", str(tmp_path / "a"), "/data/local/tmp/a")
    adb_server.run("-s", board.adb_serial, "pull", "/data/local/tmp/a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == data
    board.run("rm /data/local/tmp/a")


def test_onnxruntime_for_aarch64_agrees_with_the_hosts(ready_board: Board, tmp_path: Path) -> None:
    model = convolution(tmp_path / "m.onnx")
    ssh(ready_board, "true")
    for name, content in (("m.onnx", model.read_bytes()), ("run.py", RUN_MODEL.encode())):
        subprocess.run(
            ready_board.ssh_command(f"cat > {name}"), input=content, check=True, timeout=60
        )
    done = ssh(ready_board, "python3 run.py m.onnx")
    assert done.returncode == 0, done.stderr
    on_board = np.array(done.stdout.split(), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    draw = np.random.RandomState(0).uniform(-1, 1, (1, 3, 16, 16)).astype("float32")
    here = np.asarray(session.run(None, {"x": draw})[0]).ravel()
    np.testing.assert_allclose(on_board, here, rtol=1e-5, atol=1e-6)


def test_closing_an_ssh_channel_stops_nothing_on_the_board(boards: tuple[Board, Board]) -> None:
    board = boards[0]
    client = subprocess.Popen(board.ssh_command("echo on; exec sleep 4712"), stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"on\n"
    client.kill()
    client.communicate()
    time.sleep(1.0)
    assert board.kill("sleep 4712") == 1


def test_a_cut_link_is_silent_and_heals(ready_board: Board) -> None:
    client = subprocess.Popen(
        ready_board.ssh_command("read -r line; echo got $line"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.0)
    ready_board.link_down()
    assert not ready_board.link_is_up
    assert client.stdin is not None
    client.stdin.write("it\n")
    client.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        client.wait(3.0)
    ready_board.link_up()
    out, _ = client.communicate(timeout=60)
    assert (client.returncode, out) == (0, "got it\n")


def test_a_power_cut_keeps_the_disk_and_nothing_else(ready_board: Board) -> None:
    look = "cat /proc/sys/kernel/random/boot_id /proc/uptime kept 2>&1"
    ssh(ready_board, "echo yes > kept; echo performance > "
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")  # fmt: skip
    assert ready_board.governors()[0] == "performance"
    before = ssh(ready_board, look).stdout.split()
    client = subprocess.Popen(ready_board.ssh_command("exec sleep 4713"))
    time.sleep(1.0)
    ready_board.power_off()
    assert (ready_board.is_on, ready_board.all_processes()) == (False, [])
    assert client.poll() is None  # nobody told it
    began_s = time.monotonic()
    ready_board.power_on()
    after = ssh(ready_board, look).stdout.split()
    taken_s = time.monotonic() - began_s
    client.kill()
    client.wait()
    assert after[0] != before[0]
    assert float(after[1]) < 12.0 + taken_s  # its clock starts at 10 s
    assert after[3] == "yes"
    assert ready_board.governors()[0] == "ondemand"


def test_a_full_disk_is_full_and_can_be_freed(ready_board: Board) -> None:
    write = "head -c 2000000 /dev/zero > big; echo $?; stat -c %s big"
    ready_board.fill_disk(leave_kib=64)
    done = ssh(ready_board, write)
    assert "No space left on device" in done.stderr
    assert int(done.stdout.split()[1]) <= 64 * 1024
    ready_board.free_disk()
    assert ssh(ready_board, write).stdout.split() == ["0", "2000000"]


def test_the_clock_can_be_wrong_while_time_goes_on(ready_board: Board) -> None:
    ready_board.set_clock(-86_400)
    watch = "import time; print(time.time(), time.monotonic(), flush=True); input(); " * 2
    client = subprocess.Popen(
        ready_board.ssh_command(f'python3 -c "{watch}"'),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    first = [float(word) for word in client.stdout.readline().split()]
    assert first[0] - time.time() == pytest.approx(-86_400, abs=30)
    ready_board.set_clock(7_200)  # reaches a process that runs
    client.stdin.write("\n")
    client.stdin.flush()
    second = [float(word) for word in client.stdout.readline().split()]
    client.communicate("\n")
    assert second[0] - time.time() == pytest.approx(7_200, abs=30)
    assert 0 < second[1] - first[1] < 60


def test_a_killed_sshd_comes_back(ready_board: Board) -> None:
    assert ssh(ready_board, "true").returncode == 0
    assert ready_board.kill_sshd() >= 1
    deadline_s = time.monotonic() + 30
    while ssh(ready_board, "true").returncode != 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


def test_a_board_of_a_killed_process_is_removed(boards: tuple[Board, Board]) -> None:
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from qemu_board import Board\n"
        "board = Board(); board.start(); print(board.number, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(HERE.parent)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    number = int(done.stdout)
    left = Board.attach(number)
    assert left.is_on
    assert number in reap()
    assert number not in numbers()
    assert not Path(f"/sys/class/net/hwboard{number}").exists()
    assert not Path(f"/run/netns/hwboard-{number}").exists()
    assert all(board.is_on for board in boards)


def test_the_command_line_breaks_and_mends(ready_board: Board) -> None:
    def tool(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, str(HERE), *words], capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    number = str(ready_board.number)
    assert tool("exec", "--user", "pi", number, "id -un; pwd").split() == ["pi", "/home/pi"]
    tool("link", number, "down")
    assert "on, link down" in tool("status")
    tool("link", number, "up")
    tool("kill", number)
    assert not ready_board.is_on
    tool("restart", number)
    assert ssh(ready_board, "true").returncode == 0
