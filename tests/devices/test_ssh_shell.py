"""Commands over SSH, against a real server: what comes back, and what each failure is called."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ssh_server import Relay

from hwnas_sdk.core.clock import Deadline
from hwnas_sdk.core.errors import DeviceError
from hwnas_sdk.devices.drivers.ssh import open_shell
from hwnas_sdk.devices.transports.ssh_link import ask_host_key
from hwnas_sdk.devices.transports.ssh_target import ssh_target
from hwnas_sdk.devices.uri import DeviceUri


@pytest.fixture
def shell(ssh_board):
    ssh_board.trust()
    shell = open_shell(ssh_board.uri(), name="board")
    yield shell
    shell.close()


def test_one_connection_for_many_commands(shell, ssh_board) -> None:
    before = ssh_board.server.n_connections
    for text in ("one", "two", "three"):
        assert shell.run(f"echo {text}").text == text
    assert ssh_board.server.n_connections == before + 1
    assert (shell.n_connections, shell.n_commands) == (1, 3)


@pytest.mark.parametrize("limiter", [None, "timeout", "none"])
def test_streams_and_status(shell, limiter) -> None:
    shell._limiter = limiter
    done = shell.run("cat; echo oops >&2; exit 7", stdin=b"x" * 300_000)
    assert (done.status, len(done.stdout), done.stderr) == (7, 300_000, b"oops\n")
    assert done.error_line == "oops"


def test_what_the_board_can_limit_is_learned(shell) -> None:
    assert shell._limiter is None
    shell.run("true")
    assert shell._limiter == "timeout"


def test_signals_are_negative(shell) -> None:
    assert shell.run("kill -9 $$").status == -9
    assert shell.run('sh -c "kill -15 \\$\\$"; exit $?').status == -15


def test_quotes_newlines_and_bytes_pass_unharmed(shell) -> None:
    done = shell.run("x='a \"b\" $c `d`'\nprintf '%s\\n' \"$x\"; cat", stdin=bytes(range(256)))
    assert done.stdout == b'a "b" $c `d`\n' + bytes(range(256))


def test_talkative_login_shell_is_no_output(shell, ssh_board) -> None:
    ssh_board.server.greeting = b"Welcome to board\nlast login: never\n"
    assert shell.run("echo hello").stdout == b"hello\n"
    channel = shell.open("echo first; cat")
    assert channel.read_line(100) == b"first\n"
    channel.close(grace_s=2.0)


def test_command_that_stops_reading(shell) -> None:
    done = shell.run(
        "head -c 10 >/dev/null; echo enough", stdin=(b"x" * 100_000 for _ in range(50))
    )
    assert done.text == "enough"


def test_much_output_while_input_flows(shell) -> None:
    done = shell.run("cat; cat /dev/zero | head -c 3000000", stdin=b"y" * 3_000_000)
    assert len(done.stdout) == 6_000_000


def test_deadline_ends_the_command_on_the_board(shell) -> None:
    with pytest.raises(DeviceError, match=r"'board' took more than 1 s: sleep 47\.25") as caught:
        shell.run("sleep 47.25; echo never", timeout_s=1.0)
    assert caught.value.code == "deadline"
    deadline = Deadline.after(10.0)
    while _sleeping("47.25") and not deadline.expired:
        time.sleep(0.05)
    assert not _sleeping("47.25")
    assert shell.run("echo on").text == "on"


def _sleeping(duration: str) -> bool:
    """Whether a process `sleep <duration>` exists."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{duration}\0".encode():
                return True
    return False


def test_channel_talks_both_ways(shell) -> None:
    channel = shell.open('while read -r line; do echo "got $line"; done; echo bye >&2; exit 3')
    for text in ("a", "b c"):
        channel.send(f"{text}\n".encode(), deadline=Deadline.after(5.0))
        assert channel.read_line(100) == f"got {text}\n".encode()
    assert channel.exit_status() is None
    channel._raw.shutdown_write()
    assert channel.read_line(100) == b""
    assert channel.exit_status(wait_s=5.0) == 3
    assert channel.error_tail() == "bye"
    assert not channel.link_lost
    channel.close(grace_s=0.0)
    with pytest.raises(BrokenPipeError):
        channel.send(b"x\n", deadline=Deadline.after(1.0))


def test_lines_are_cut_at_the_limit(shell) -> None:
    channel = shell.open("printf 'abcdef\\nghi'")
    assert [channel.read_line(4) for _ in range(4)] == [b"abcd", b"ef\n", b"ghi", b""]
    channel.close(grace_s=1.0)


def test_reader_that_does_not_read(shell) -> None:
    channel = shell.open("sleep 5")
    with pytest.raises(TimeoutError):
        channel.send(b"z" * 30_000_000, deadline=Deadline.after(0.2))
    channel.close(grace_s=0.0)


def test_closing_a_channel_leaves_the_process(shell, ssh_board) -> None:
    flag = ssh_board.home / "flag"
    go = ssh_board.home / "go"
    channel = shell.open(f"while [ ! -e {go} ]; do sleep 0.05; done; touch {flag}; exit 0")
    channel.close(grace_s=0.0)
    shell.close()
    assert not flag.exists()
    go.touch()
    deadline = Deadline.after(10.0)
    while not flag.exists() and not deadline.expired:
        time.sleep(0.05)
    assert flag.exists()


def test_dropped_connection_is_a_lost_link_and_then_remade(shell, ssh_board) -> None:
    channel = shell.open("echo ready; sleep 30")
    assert channel.read_line(100) == b"ready\n"
    ssh_board.server.drop_all()
    assert channel.read_line(100) == b""
    assert channel.link_lost
    assert channel.exit_status(wait_s=1.0) is None
    channel.close(grace_s=0.0)
    assert shell.run("echo back").text == "back"
    assert shell.n_connections == 2


def test_link_lost_in_the_middle_of_a_command(shell, ssh_board) -> None:
    shell.run("true")

    def parts():
        yield b"a"
        ssh_board.server.drop_all()
        for _ in range(200):
            yield b"b" * 100_000

    with pytest.raises(DeviceError, match="the link to 'board'") as caught:
        shell.run("cat >/dev/null", stdin=parts())
    assert caught.value.code == "link_lost"
    assert caught.value.retryable


def test_closed_port(ssh_board) -> None:
    ssh_board.server.stop_listening()
    with pytest.raises(
        DeviceError, match=r"'board' cannot be reached at 127\.0\.0\.1:.*refused"
    ) as caught:
        open_shell(ssh_board.uri(), name="board").run("true")
    assert caught.value.code == "unreachable"
    assert "sshd" in caught.value.hint


def test_unknown_name() -> None:
    uri = DeviceUri.parse("ssh://pi@no-such-board.invalid")
    with pytest.raises(DeviceError, match="cannot be resolved") as caught:
        open_shell(uri, name="board").run("true")
    assert caught.value.code == "unreachable"


def test_something_else_answers(ssh_board) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            stream, _ = listener.accept()
            stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
            stream.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DeviceError, match="does not speak SSH") as caught:
            open_shell(ssh_board.uri(port=listener.getsockname()[1]), name="board").run("true")
        thread.join()
    assert caught.value.code == "unreachable"


def test_wrong_key_and_wrong_user(ssh_board) -> None:
    ssh_board.trust()
    ssh_board.server.client_key = paramiko.ECDSAKey.generate()
    with pytest.raises(DeviceError, match=r"does not let 'pi' in.*id_ecdsa") as caught:
        open_shell(ssh_board.uri(), name="board").run("true")
    assert caught.value.code == "auth_failed"
    assert "ssh-copy-id" in caught.value.hint


def test_no_key_at_all(ssh_board) -> None:
    ssh_board.trust()
    ssh_board.key_file.unlink()
    with pytest.raises(DeviceError, match="there is no key to try"):
        open_shell(ssh_board.uri(), name="board").run("true")


def test_key_with_a_passphrase_is_named(ssh_board) -> None:
    ssh_board.trust()
    paramiko.ECDSAKey.generate().write_private_key_file(str(ssh_board.key_file), password="secret")
    with pytest.raises(DeviceError, match="has a passphrase: load it with ssh-add"):
        open_shell(ssh_board.uri(), name="board").run("true")


def test_damaged_key_file_does_not_hide_a_good_one(ssh_board) -> None:
    ssh_board.trust()
    (ssh_board.key_file.parent / "id_ed25519").write_text("no key\n")
    shell = open_shell(ssh_board.uri(), name="board")
    assert shell.run("echo in").text == "in"
    shell.close()


def test_key_of_a_kind_paramiko_lacks_is_named(ssh_board) -> None:
    ssh_board.trust()
    key = ed448.Ed448PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ssh_board.key_file.write_bytes(pem)
    with pytest.raises(DeviceError, match="cannot be used") as caught:
        open_shell(ssh_board.uri(), name="board").run("true")
    assert caught.value.code == "auth_failed"


def test_identity_option_and_ssh_config(ssh_board) -> None:
    ssh_board.trust()
    elsewhere = ssh_board.home / "key"
    ssh_board.key_file.rename(elsewhere)
    shell = open_shell(ssh_board.uri(identity=str(elsewhere)), name="board")
    assert shell.run("echo in").text == "in"
    shell.close()
    (ssh_board.key_file.parent / "config").write_text(
        f"Host shelf\n  HostName 127.0.0.1\n  Port {ssh_board.server.port}\n  User pi\n"
        f"  IdentityFile {elsewhere}\n"
    )
    shell = open_shell(DeviceUri.parse("ssh://shelf"), name="board")
    assert shell.run("echo in").text == "in"
    shell.close()


def test_pulled_cable_is_noticed_while_connecting(ssh_board) -> None:
    ssh_board.trust()
    relay = Relay(ssh_board.server.port)
    relay.pull()
    uri = ssh_board.uri(port=relay.port)
    with pytest.raises(DeviceError) as caught:
        ask_host_key(ssh_target(uri), device_id="board", timeout_s=0.5)
    assert caught.value.code == "unreachable"
    relay.close()


def test_output_without_end_is_refused(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.transports.shell.OUTPUT_LIMIT_BYTES", 2**20)
    with pytest.raises(DeviceError, match="'board' said more than 1 MiB: yes") as caught:
        shell.run("yes", timeout_s=20.0)
    assert caught.value.code == "output_too_large"
    assert shell.run("echo fine").text == "fine"
