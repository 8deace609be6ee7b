"""The parts of the emulated board that need neither root nor a board.

The boards themselves are tested in ``tests/integration``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from qemu_board import AdbServer, host, image, net, processes, recipe, state
from qemu_board.board import Board
from qemu_board.disk import cpuinfo
from qemu_board.shell import BoardError, run

TOOL = Path(recipe.HERE)

# As QEMU 7.2 shows them to the host: emulator, program, its name for itself, arguments.
SSHD = ["/usr/bin/qemu-aarch64-static", "/usr/sbin/sshd", "/usr/sbin/sshd", "-D", "-e", ""]
AGENT = ["/usr/bin/qemu-aarch64-static", "/usr/bin/python3.11", "python3", "agent.pyz", "--work",
         "w", ""]  # fmt: skip
STATUS = "Name:\tpython3\nState:\tS (sleeping)\nPid:\t31726\nNSpid:\t31726\t48\nThreads:\t2\n"


def test_a_command_line_is_read_without_the_emulator() -> None:
    assert processes.command_line(AGENT) == "/usr/bin/python3.11 agent.pyz --work w"
    assert processes.command_line(["sh", "/x/boot.sh", ""]) == "sh /x/boot.sh"
    assert processes.command_line(["/usr/bin/qemu-aarch64-static", ""]) == ""


@pytest.mark.parametrize(
    ("words", "is_furniture"), [(SSHD, True), (AGENT, False), (["sh", "/x/boot.sh", "1"], True)]
)
def test_the_boards_own_processes_are_told_from_those_of_users(
    words: list[str], *, is_furniture: bool
) -> None:
    entry = processes.BoardProcess(1, 2, processes.command_line(words))
    assert entry.is_furniture is is_furniture


def test_the_id_on_the_board_is_the_innermost() -> None:
    assert processes.pid_on_board(STATUS) == 48


@pytest.mark.parametrize(
    "status",
    [
        STATUS.replace("31726\t48", "31726"),  # a process of the host
        STATUS.replace("S (sleeping)", "Z (zombie)"),
        "Name:\tx\n",
    ],
)
def test_dead_processes_and_those_of_the_host_are_not_the_boards(status: str) -> None:
    assert processes.pid_on_board(status) is None


def test_every_core_has_an_arm_block_and_no_x86_field() -> None:
    text = cpuinfo(3)
    assert [line for line in text.splitlines() if line.startswith("processor")] == [
        "processor\t: 0", "processor\t: 1", "processor\t: 2"]  # fmt: skip
    assert "vendor_id" not in text
    assert "flags" not in text
    assert text.count("CPU implementer\t: 0x41") == 3


def test_boards_have_their_own_networks_within_bounds() -> None:
    seen = {net.addresses(number) for number in range(1, net.MAX_BOARDS + 1)}
    assert len(seen) == net.MAX_BOARDS
    assert net.addresses(3) == ("198.18.3.1", "198.18.3.2")
    assert len(net.host_link(net.MAX_BOARDS)) <= 15  # the kernel's limit
    for number in (0, net.MAX_BOARDS + 1):
        with pytest.raises(BoardError, match="board numbers go from 1"):
            net.addresses(number)


def test_the_images_name_follows_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, runtime = recipe.base_name(), recipe.runtime_name()
    assert (base, runtime) == (recipe.base_name(), recipe.runtime_name())
    monkeypatch.setattr(recipe, "BOARD_PACKAGES", (*recipe.BOARD_PACKAGES, "less"))
    assert recipe.base_name() != base
    assert recipe.runtime_name() != runtime
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==2.4.6\nnumpydoc==1\nprotobuf==7.0\n")
    assert recipe.runtime_requirements(pins) == [
        "onnxruntime", "numpy==2.4.6", "flatbuffers", "protobuf==7.0", "packaging"]  # fmt: skip


def test_the_runtime_layer_is_pinned_as_the_host_is() -> None:
    assert all("==" in requirement for requirement in recipe.runtime_requirements())


def test_the_cache_lies_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_BOARD_CACHE", str(tmp_path / "c"))
    assert recipe.cache_dir() == tmp_path / "c"
    assert not image.is_built()
    monkeypatch.delenv("HWNAS_BOARD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert recipe.cache_dir() == tmp_path / "hwnas-board"
    assert not recipe.cache_dir().is_relative_to(TOOL.parents[1])


def test_only_an_enabled_aarch64_interpreter_that_stays_open_counts() -> None:
    entry = (
        "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: POCF\noffset 0\n"
        "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00\n"
    )
    assert host.is_ours(entry)
    assert not host.is_ours(entry.replace("POCF", "POC"))
    assert not host.is_ours(entry.replace("enabled", "disabled"))
    assert not host.is_ours(entry.replace("b700", "2800"))  # 32-bit Arm


def test_a_board_record_survives_and_knows_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "RUN_DIR", tmp_path)
    (tmp_path / "7").mkdir()
    assert state.read(7) is None  # a board that was never finished
    record = state.Record(
        number=7,
        adb=True,
        ready=False,
        cpufreq=False,
        disk_mib=64,
        owner_pid=os.getpid(),
        owner_start=state.start_time(os.getpid()),
    )
    state.write(record)
    assert state.read(7) == record
    assert state.numbers() == [7]
    assert not state.owner_is_gone(record)
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stranger = state.Record(
        number=7, adb=True, ready=False, cpufreq=False, disk_mib=64,
        owner_pid=int(child.stdout), owner_start=1,
    )  # fmt: skip
    assert state.owner_is_gone(stranger)
    (tmp_path / "7" / "board.json").write_text('{"number": 7')
    assert state.read(7) is None


def test_addresses_of_a_board_that_is_not_started_are_refused() -> None:
    with pytest.raises(BoardError, match="not started"):
        _ = Board().ssh_uri
    with pytest.raises(BoardError, match="there is no board 63"):
        Board.attach(63)


def test_uris_and_client_commands_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(number=5)
    assert board.ssh_uri == "ssh://pi@198.18.5.2?identity=/run/hwnas-board/5/key"
    assert board.adb_uri == "adb://198.18.5.2:5555"
    command = board.ssh_command("true")
    assert command[-2:] == ["pi@198.18.5.2", "true"]
    assert "StrictHostKeyChecking=yes" in command


def test_without_root_there_is_one_clear_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    reason = host.unavailable()
    assert reason is not None
    assert reason.startswith("no emulated board: ")
    assert "\n" not in reason


def test_a_failing_command_is_one_line_with_its_last_words() -> None:
    with pytest.raises(BoardError, match=r"^sh -c echo a >&2; echo b >&2; exit 3: b$"):
        run(["sh", "-c", "echo a >&2; echo b >&2; exit 3"])
    with pytest.raises(BoardError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_an_adb_server_keeps_to_itself(tmp_path: Path) -> None:
    first, second = AdbServer(tmp_path), AdbServer(tmp_path)
    assert first.port != 5037
    assert first.environ == {
        "HOME": str(tmp_path), "ANDROID_ADB_SERVER_PORT": str(first.port)}  # fmt: skip
    assert second.environ["HOME"] == str(tmp_path)


def test_the_tool_runs_as_a_folder_and_says_what_there_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "status", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "HWNAS_BOARD_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["built"] is False
    assert said["cache"] == str(tmp_path)


@pytest.mark.parametrize("script", ["boot.sh", "essential.sh", "customize.sh"])
def test_the_shell_scripts_parse(script: str) -> None:
    run(["sh", "-n", TOOL / script])
