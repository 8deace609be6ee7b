"""The wire alone, against small programs that do one thing."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time

import pytest

from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices import wire as wire_module
from hwnas_sdk.devices.transports.local import LocalChannel, LocalTransport
from hwnas_sdk.devices.wire import AgentRefusedError, Wire

ECHO = """
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    print(json.dumps({"type": "event", "n": m["id"]}), flush=True)
    print(json.dumps({"type": "pong", "re": m["id"]}), flush=True)
"""


@pytest.fixture
def connect():
    opened = []

    def make(program: str) -> Wire:
        channel = LocalChannel([sys.executable, "-S", "-c", program], device_id="dev")
        wire = Wire(channel, device_id="dev")
        opened.append((channel, wire))
        return wire

    yield make
    for channel, wire in opened:
        channel.close(grace_s=0.0)
        wire.join(timeout_s=1.0)


def test_replies_and_events(connect) -> None:
    wire = connect(ECHO)
    assert wire.request("ping", timeout_s=10.0)["type"] == "pong"
    assert wire.request("ping", timeout_s=10.0)["re"] == 2
    assert [event["n"] for event in wire.take_events()] == [1, 2]
    assert wire.next_event(timeout_s=0.01) is None


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("no_space", "free some space there: hwnas devices clean dev"),
        ("from_a_newer_agent", "the same command tries again; -v says more"),
    ],
)
def test_a_refusal_says_what_to_do_when_the_agent_does_not(code: str, hint: str) -> None:
    reply = {"type": "error", "code": code, "message": "0 MiB free"}
    assert AgentRefusedError("'dev' refused", device_id="dev", reply=reply).hint == hint


def test_refusal_leaves_the_wire_usable(connect) -> None:
    wire = connect(
        """
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    print(json.dumps({"type": "error", "re": m["id"], "code": "no_space", "message": "full",
                      "retryable": True, "hint": "tidy up"}), flush=True)
"""
    )
    for _ in range(2):
        with pytest.raises(
            AgentRefusedError, match=r"'dev' refused 'x': full \(tidy up\)"
        ) as caught:
            wire.request("x", timeout_s=10.0)
        assert caught.value.code == "no_space"
        assert caught.value.retryable
    assert wire.broken is None


@pytest.mark.parametrize(
    ("prints", "code", "says"),
    [
        ("print('Illegal instruction')", "agent_protocol", "not JSON: Illegal"),
        ("print('[1, 2]')", "agent_protocol", "not a message"),
        ("print('{}')", "agent_protocol", "not a message"),
        ("print('{\"type\": \"pong\", \"re\": NaN}')", "agent_protocol", "not JSON"),
        ("print('[' * 100000)", "agent_protocol", "not JSON"),
        ("sys.stdout.buffer.write(b'\\xff\\xfe\\n')", "agent_protocol", "not JSON"),
        ("print('{\"type\": \"pong\", \"re\": 77}')", "agent_protocol", "out of order"),
        ("print('{\"type\": \"pong\", \"re\": [1]}')", "agent_protocol", "not a message"),
        ("print('{\"type\": \"error\", \"re\": null, \"code\": \"bad_json\", \"message\": \"m\"}')",
         "agent_protocol", "bad_json: m"),
        ("print('{\"type\": \"po', end='')", "agent_died", "status 0 in the middle"),
        ("sys.exit('no module named numpy')", "agent_died", "status 1.*no module named numpy"),
        ("os.kill(os.getpid(), 9)", "agent_died", "SIGKILL"),
        ("time.sleep(60)", "agent_hung", "did not answer 'ping'"),
    ],
)  # fmt: skip
def test_nonsense(connect, prints, code, says) -> None:
    wire = connect(f"import os, sys, time\nsys.stdin.readline()\n{prints}\nsys.stdout.flush()")
    with pytest.raises(DeviceError, match=says) as caught:
        wire.request("ping", timeout_s=0.5 if code == "agent_hung" else 20.0)
    assert caught.value.code == code
    assert wire.broken is caught.value


def test_what_a_terminal_would_obey_arrives_as_plain_text(connect) -> None:
    said = {"type": "x", "re": 1, "a": ["\x1b[2J\ud800\u00e9\n\\u001b"]}
    wire = connect(
        f"import json, sys\nsys.stdin.readline()\nprint({json.dumps(said)!r}, flush=True)\n"
        "sys.stdin.readline()\nsys.stderr.write('\\x1b]0;pwned\\x07\\n')\n"
    )
    assert wire.request("x", timeout_s=10.0)["a"] == ["?[2J?\u00e9\n\\u001b"]
    with pytest.raises(DeviceError, match="pwned") as caught:
        wire.request("x", timeout_s=10.0)
    assert "\x1b" not in str(caught.value)


def test_line_without_end(connect, monkeypatch) -> None:
    monkeypatch.setattr(wire_module, "LINE_LIMIT_BYTES", 1000)
    wire = connect(
        "import sys, time\nsys.stdout.write('x' * 5000)\nsys.stdout.flush()\ntime.sleep(9)"
    )
    with pytest.raises(DeviceError, match="a line without end"):
        wire.request("ping", timeout_s=10.0)


def test_agent_that_does_not_read(connect) -> None:
    wire = connect("import time\ntime.sleep(60)")
    with pytest.raises(DeviceError, match="does not read its input") as caught:
        wire.request("measure", timeout_s=0.3, payload="x" * 1_000_000)
    assert caught.value.code == "agent_hung"


def test_ctrl_c_leaves_the_wire_usable(connect) -> None:
    wire = connect(
        "import sys, time\nfor n, line in enumerate(sys.stdin, 1):\n"
        "    time.sleep(0.4 if n == 1 else 0)\n"
        '    print(\'{"type": "pong", "re": %d}\' % n, flush=True)'
    )
    previous = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            wire.request("one", timeout_s=10.0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert wire.request("two", timeout_s=10.0)["re"] == 2


def _interrupt(_number, _frame) -> None:
    raise KeyboardInterrupt


def test_agent_is_out_of_reach_of_the_terminal(connect) -> None:
    wire = connect(ECHO)
    wire.request("ping", timeout_s=10.0)
    pid = wire._channel.pid
    assert os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)


def test_stubborn_agent_is_killed_with_its_children(tmp_path) -> None:
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print('{}', flush=True)\ntime.sleep(60)"
    )
    channel = LocalChannel([sys.executable, "-S", "-c", program], device_id="dev")
    assert channel.read_line(100) == b"{}\n"
    channel.close(grace_s=0.0)
    assert channel.exit_status() == -signal.SIGKILL
    child = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not _alive(child):
            break
        time.sleep(0.01)
    assert not _alive(child)
    assert channel.read_line(100) == b""


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:  # noqa: PTH123
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def transport(tmp_path) -> LocalTransport:
    return LocalTransport(tmp_path / "work", ["true"], device_id="dev")


def test_push_links_once(transport, make_artifact, tmp_path) -> None:
    artifact = make_artifact("net")
    source = tmp_path / "net.onnx"
    relative = transport.push(source, artifact.sha256)
    target = tmp_path / "work" / relative
    assert target.name == f"{artifact.sha256}.onnx"
    assert target.samefile(source)
    stamp = target.stat().st_ctime_ns
    assert transport.push(source, artifact.sha256) == relative
    assert target.stat().st_ctime_ns == stamp
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_push_copies_where_links_are_impossible(
    transport, make_artifact, tmp_path, monkeypatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "link", refuse)
    artifact = make_artifact("net")
    relative = transport.push(tmp_path / "net.onnx", artifact.sha256)
    target = tmp_path / "work" / relative
    assert target.read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert not target.samefile(tmp_path / "net.onnx")


def test_push_to_a_full_disk(transport, make_artifact, tmp_path, monkeypatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DeviceError, match="No space left") as caught:
        transport.push(tmp_path / "net.onnx", make_artifact("net").sha256)
    assert caught.value.code == "no_space"
    assert list((tmp_path / "work" / "artifacts").iterdir()) == []
