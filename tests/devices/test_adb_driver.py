"""``adb://`` URIs: which session they open, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from adb_server import AdbServerDouble

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices import open_session
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.command_open import with_runner
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.drivers.ssh import open_ssh
from hwnas_sdk.devices.uri import DeviceUri

RUNNER = Path(__file__).parent / "runners" / "test_onnxruntime_perf_test"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch):
    """URI without options, and a work folder on the "phone"."""
    with AdbServerDouble(tmp_path) as double:
        double.states["SERIAL"] = "device"
        monkeypatch.delenv("ANDROID_ADB_SERVER_HOST", raising=False)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(double.port))
        yield f"adb://SERIAL?work={tmp_path}/work"


def test_runner_opens_a_command_session(phone: str) -> None:
    with open_session(f"{phone}&runner={RUNNER}&mask=1") as session:
        assert isinstance(session, CommandSession)
        assert session._used_cores == (0,)
        assert session.spec.runtimes["ort"].startswith("test_onnxruntime_perf_test ")


def test_python_opens_the_agent(phone: str) -> None:
    with open_session(f"{phone}&governor=keep") as session:
        assert isinstance(session, AgentSession)


def test_neither_names_the_ways_out(phone: str, monkeypatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.transports.remote._PYTHONS", ("no-such-python",))
    with pytest.raises(DeviceError) as caught:
        open_session(phone)
    assert caught.value.code == "runner_missing"
    assert "PyPI has no onnxruntime wheel for Android" in caught.value.message
    assert "runner=PATH" in caught.value.hint
    assert "ssh://" in caught.value.hint


def test_wrong_python_is_its_own_error(phone: str) -> None:
    with pytest.raises(DeviceError) as caught:
        open_session(f"{phone}&python=/no/such/python")
    assert caught.value.code == "python_missing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("runner=x_perf_test&python=y", "python= .* means nothing beside runner="),
        ("mask=f0", "mask= .* means nothing without runner="),
        ("runner=x_perf_test&mask=all", "not a core mask"),
        ("runner=/bin/true", "cannot tell from its name"),
        ("governor=ondemand", "governor='ondemand'"),
        ("serial=x", "unknown option 'serial'"),
    ],
)
def test_options_that_make_no_sense(phone: str, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_session(f"{phone}&{options}")


def test_runner_joins_the_uri(tmp_path: Path) -> None:
    program = tmp_path / "my perf_test"
    program.write_bytes(b"x")
    uri = with_runner("adb://SERIAL", str(program))
    assert DeviceUri.parse(uri).options == {"runner": str(program)}
    both = DeviceUri.parse(with_runner("ssh://pi@board?work=/data", str(program)))
    assert both.options == {"work": "/data", "runner": str(program)}
    for bad in (tmp_path / "nowhere_perf_test", tmp_path):
        with pytest.raises(ConfigError):
            with_runner("adb:", str(bad))
    with pytest.raises(ConfigError, match="already"):
        with_runner(uri, str(program))


def test_ssh_boards_take_a_runner_too(monkeypatch) -> None:
    opened: list[str] = []

    def fake(shell, uri, *, name: str, work: str) -> str:
        opened.append(f"{shell.device_id} {work}")
        return "session"

    monkeypatch.setattr("hwnas_sdk.devices.drivers.ssh.open_command", fake)
    uri = DeviceUri.parse(f"ssh://pi@board?runner={RUNNER}")
    assert open_ssh(uri, name="router") == "session"
    assert opened == ["router $HOME/.local/share/hwnas"]


def _json(capsys, *words: str, status: int = 0) -> dict:
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_phone_from_the_command_line(phone: str, tmp_path: Path, capsys) -> None:
    """Added with its runner; a .tflite file is measured, an .onnx file is refused by the runner."""
    runner = RUNNER.with_name("test_benchmark_model")
    added = _json(capsys, "devices", "add", "phone", phone, "--runner", str(runner))
    assert added["uri"] == f"{phone}&runner={quote(str(runner))}"
    assert added["runtimes"]["litert"].startswith("test_benchmark_model ")
    path = tmp_path / "net.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
    words = ("measure", str(path), "--device", "phone", "--settings", "quick")
    (measured,) = _json(capsys, *words)["measurements"]
    assert measured["latency_ms"] > 0.0
    assert "summary_only" in measured["flags"]
    onnx = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"
    refused = _json(capsys, "measure", onnx, "--device", "phone", status=5)
    assert [entry["status"] for entry in refused["measurements"]] == ["invalid"]
    assert refused["measurements"][0]["latency_ms"] is None
