"""Commands through ADB: what comes back, and what each failure is called.

The server is a double that runs real commands; tests/integration has the real server and daemon.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from adb_server import AdbServerDouble

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices.transports.adb import AdbShell

SERIAL = "R58M12ABCDE"


@pytest.fixture
def server(tmp_path: Path, monkeypatch):
    with AdbServerDouble(tmp_path) as double:
        double.states[SERIAL] = "device"
        monkeypatch.delenv("ANDROID_ADB_SERVER_HOST", raising=False)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(double.port))
        yield double


@pytest.fixture
def shell(server: AdbServerDouble) -> AdbShell:
    return AdbShell(SERIAL, device_id="phone")


def _refusal(serial: str) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        AdbShell(serial, device_id="phone").run("true")
    assert caught.value.device_id == "phone"
    return caught.value


def test_streams_and_status_stay_apart(shell) -> None:
    done = shell.run("echo out; echo err >&2; exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert shell.run("kill -9 $$").status == -9


def test_input_flows_while_output_does(shell) -> None:
    data = os.urandom(3_000_000)
    parts = (data[start : start + 50_000] for start in range(0, len(data), 50_000))
    done = shell.run("tee copy | sha256sum; cat copy", stdin=parts)
    assert done.stdout.startswith(hashlib.sha256(data).hexdigest().encode())
    assert done.stdout.endswith(data)


def test_command_that_stops_reading(shell) -> None:
    done = shell.run("head -c 10 >/dev/null; echo enough", stdin=b"x" * 5_000_000)
    assert done.text == "enough"


def test_input_ends(shell) -> None:
    assert shell.run("cat; echo over").text == "over"


def test_slow_command_is_a_deadline(shell) -> None:
    with pytest.raises(DeviceError) as caught:
        shell.run("sleep 30", timeout_s=0.2)
    assert caught.value.code == "deadline"
    assert "sleep 30" in caught.value.message


def test_command_that_never_stops_talking_is_a_deadline(shell) -> None:
    with pytest.raises(DeviceError) as caught:
        shell.run("while :; do echo yes; sleep 0.01; done & sleep 5; kill $!", timeout_s=0.5)
    assert caught.value.code == "deadline"


def test_broken_link_has_a_name_and_heals(shell, server, tmp_path) -> None:
    assert shell.run("echo 1").text == "1"

    def cut_once_begun() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        server.cut(SERIAL)

    threading.Thread(target=cut_once_begun, daemon=True).start()
    with pytest.raises(DeviceError) as caught:
        shell.run("echo begun > made; mv made begun; sleep 1; echo done > finished")
    assert caught.value.code == "link_lost"
    assert caught.value.retryable
    server.broken.clear()
    wait = "while [ ! -s finished ]; do sleep 0.1; done"  # what was begun went on
    assert shell.run(f"cat begun; {wait}; cat finished").text == "begun\ndone"


def test_dead_link_is_no_slow_command(shell, server, monkeypatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.transports.adb._CHECK_S", 0.2)
    shell.run("true")

    def stall() -> None:
        server.broken.add(SERIAL)

    threading.Timer(0.1, stall).start()
    with pytest.raises(DeviceError) as caught:
        shell.run("sleep 30", timeout_s=0.4)
    assert caught.value.code == "link_lost"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("unauthorized", "adb_unauthorized"),
        ("authorizing", "adb_unauthorized"),
        ("offline", "adb_offline"),
        ("no permissions (verify udev rules)", "adb_offline"),
        ("recovery", "adb_offline"),
    ],
)
def test_devices_that_do_not_answer(server, state: str, code: str) -> None:
    server.states[SERIAL] = state
    error = _refusal(SERIAL)
    assert error.code == code
    assert SERIAL in error.message
    assert error.hint


def test_one_device_needs_no_name(server) -> None:
    assert AdbShell("", device_id="phone").serial == SERIAL


def test_several_devices_need_one(server) -> None:
    server.states["emulator-5554"] = "device"
    error = _refusal("")
    assert error.code == "adb_many"
    assert SERIAL in error.message
    assert "emulator-5554" in error.message


def test_no_device_and_unknown_device(server) -> None:
    error = _refusal("nobody")
    assert error.code == "adb_no_device"
    assert SERIAL in error.hint
    server.states.clear()
    assert _refusal("").code == "adb_no_device"


def test_addresses_are_connected_on_demand(server) -> None:
    server.reachable.add("10.0.0.9:5555")
    shell = AdbShell("10.0.0.9:5555", device_id="phone")
    assert shell.run("echo there").text == "there"
    assert "host:connect:10.0.0.9:5555" in server.requests
    assert _refusal("10.0.0.8:5555").code == "unreachable"


def test_lost_address_is_connected_anew(server) -> None:
    server.reachable.add("10.0.0.9:5555")
    shell = AdbShell("10.0.0.9:5555", device_id="phone")
    shell.run("true")
    server.cut("10.0.0.9:5555")
    with pytest.raises(DeviceError) as caught:
        shell.run("true")
    assert caught.value.code == "link_lost"
    assert shell.run("echo back").text == "back"
    assert server.requests.count("host:connect:10.0.0.9:5555") == 2


def test_pipes_of_a_long_command(shell) -> None:
    channel = shell.open("echo ready; while read -r x; do echo got $x; done; echo bye >&2; exit 3")
    assert channel.read_line(100) == b"ready\n"
    channel.send(b"one\ntwo\n", deadline=Deadline.after(2.0))
    assert [channel.read_line(100), channel.read_line(6)] == [b"got one\n", b"got tw"]
    rest: list[bytes] = []
    reader = threading.Thread(target=lambda: rest.extend(iter(lambda: channel.read_line(100), b"")))
    reader.start()
    channel.close(grace_s=5.0)
    channel.close(grace_s=5.0)
    reader.join()
    assert rest == [b"o\n"]
    assert channel.exit_status() == 3
    assert channel.error_tail() == "bye"
    assert not channel.link_lost
    with pytest.raises(BrokenPipeError):
        channel.send(b"x", deadline=Deadline.after(1.0))


def test_pipes_of_a_broken_link(shell, server) -> None:
    channel = shell.open("echo ready; sleep 30")
    assert channel.read_line(100) == b"ready\n"
    server.cut(SERIAL)
    assert channel.read_line(100) == b""
    assert channel.exit_status(wait_s=0.1) is None
    assert channel.link_lost
    channel.leave()


def test_reader_is_woken_by_close(shell) -> None:
    channel = shell.open("sleep 30")
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(channel.read_line(100)))
    reader.start()
    channel.close(grace_s=0.1)
    reader.join(5.0)
    assert lines == [b""]


def test_daemon_without_the_shell_protocol(server, tmp_path, monkeypatch) -> None:
    server.features = "cmd"
    shell = AdbShell(SERIAL, device_id="phone")
    command = "echo out; echo err >&2; exit 7"
    # The wrapper keeps standard error in a folder every phone has.
    monkeypatch.setattr(
        "hwnas_sdk.devices.transports.adb.LEGACY_FOLDER", str(tmp_path), raising=True
    )
    done = shell.run(command)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert shell.run("wc -c", stdin=b"x" * 200_000).text == "200000"
    assert not list(tmp_path.glob(".hwnas-*"))
    channel = shell.open("cat")
    channel.send(b"hello\n", deadline=Deadline.after(2.0))
    assert channel.read_line(100) == b"hello\n"
    channel.close(grace_s=0.0)
    assert channel.exit_status() is None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_adb_at_all(monkeypatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(_free_port()))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/nonexistent/adb")
    error = _refusal(SERIAL)
    assert error.code == "adb_missing"
    assert "install" in error.hint


def test_adb_that_starts_no_server(monkeypatch) -> None:
    port = _free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/bin/false")
    error = _refusal(SERIAL)
    assert error.code == "adb_missing"
    assert str(port) in error.message


def test_foreign_server_is_not_started_here(monkeypatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_HOST", "127.0.0.9")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(_free_port()))
    assert _refusal(SERIAL).code == "unreachable"


def test_port_that_is_none(monkeypatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "usb")
    with pytest.raises(ConfigError, match="ANDROID_ADB_SERVER_PORT"):
        AdbShell(SERIAL, device_id="phone").run("true")


def test_output_without_end_is_refused(shell, monkeypatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.transports.shell.OUTPUT_LIMIT_BYTES", 2**20)
    with pytest.raises(DeviceError, match="'phone' said more than 1 MiB: yes") as caught:
        shell.run("yes", timeout_s=20.0)
    assert caught.value.code == "output_too_large"
