"""Trusting boards: a key is pinned, refused when it changes; the user's file is only read."""

from __future__ import annotations

import stat
import subprocess

import paramiko
import pytest

from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices import known_hosts
from hwnas_sdk.devices.drivers.ssh import open_shell
from hwnas_sdk.devices.known_hosts import HostKey

OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
"""github.com's published Ed25519 key, so that its published fingerprint can be compared."""
OTHER_PRINT = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def _run(board):
    shell = open_shell(board.uri(), name="board")
    try:
        return shell.run("echo hello").text
    finally:
        shell.close()


def test_fingerprint_is_opensshs_form(tmp_path) -> None:
    key = HostKey("github.com", "ssh-ed25519", OTHER)
    assert key.fingerprint == OTHER_PRINT
    path = tmp_path / "key.pub"
    path.write_text(f"ssh-ed25519 {OTHER} comment\n")
    try:
        printed = subprocess.run(
            ["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        return  # no OpenSSH client here; the published value above is enough
    assert key.fingerprint in printed.stdout


def test_unknown_then_trusted(ssh_board) -> None:
    with pytest.raises(DeviceError, match="is not known: ecdsa-sha2-nistp256 SHA256:") as caught:
        _run(ssh_board)
    assert caught.value.code == "host_key_unknown"
    assert "hwnas devices trust board" in caught.value.hint
    assert ssh_board.server.n_connections == 0  # nobody logged in at an unknown host
    key = known_hosts.fetch_host_key(ssh_board.uri(), name="board")
    assert key.host == f"[127.0.0.1]:{ssh_board.server.port}"
    assert key.fingerprint == ssh_board.server.host_key.fingerprint
    assert known_hosts.pinned(key.host) == ()
    assert known_hosts.pin(key, name="board")
    assert not known_hosts.pin(key, name="board")
    assert known_hosts.pinned(key.host) == (key,)
    assert stat.S_IMODE(known_hosts.known_hosts_path().stat().st_mode) == 0o600
    assert _run(ssh_board) == "hello"


def test_changed_key_is_refused_until_replaced(ssh_board) -> None:
    ssh_board.trust()
    before = ssh_board.server.host_key.fingerprint
    ssh_board.server.host_key = paramiko.ECDSAKey.generate()
    with pytest.raises(DeviceError) as caught:
        _run(ssh_board)
    assert caught.value.code == "host_key_changed"
    assert before in caught.value.message
    assert ssh_board.server.host_key.fingerprint in caught.value.message
    assert "hwnas devices trust board --replace" in caught.value.hint
    key = known_hosts.fetch_host_key(ssh_board.uri(), name="board")
    with pytest.raises(DeviceError):
        known_hosts.pin(key, name="board")
    assert known_hosts.pin(key, name="board", replace=True)
    assert _run(ssh_board) == "hello"


def test_forgotten_is_unknown_again(ssh_board) -> None:
    ssh_board.trust()
    host = known_hosts.host_of(ssh_board.uri())
    known_hosts.pin(HostKey("other", "ssh-ed25519", OTHER), name="other")
    assert known_hosts.forget(host) == 1
    assert known_hosts.forget(host) == 0
    assert known_hosts.pinned("other")
    with pytest.raises(DeviceError) as caught:
        _run(ssh_board)
    assert caught.value.code == "host_key_unknown"


def _user_file(board, *lines: str):
    path = board.key_file.parent / "known_hosts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _line(board, *, names: str | None = None) -> str:
    key = board.server.host_key
    return f"{names or known_hosts.host_of(board.uri())} {key.get_name()} {key.get_base64()}"


@pytest.mark.parametrize("form", ["plain", "hashed", "pattern", "list"])
def test_users_file_is_believed_and_left_alone(form, ssh_board) -> None:
    host = known_hosts.host_of(ssh_board.uri())
    names = {
        "plain": host,
        "hashed": paramiko.HostKeys.hash_host(host),
        "pattern": "[127.0.0.*]:*",
        "list": f"other,{host}",
    }[form]
    path = _user_file(
        ssh_board, "# a comment", "", "broken", "host ssh-rsa !!!", _line(ssh_board, names=names)
    )
    before = path.read_bytes()
    assert _run(ssh_board) == "hello"
    assert path.read_bytes() == before
    assert not known_hosts.known_hosts_path().exists()


def test_marks_in_the_users_file(ssh_board) -> None:
    _user_file(ssh_board, _line(ssh_board), f"@revoked {_line(ssh_board, names='*')}")
    with pytest.raises(DeviceError) as caught:
        _run(ssh_board)
    assert caught.value.code == "host_key_unknown"
    _user_file(ssh_board, f"@cert-authority {_line(ssh_board)}")
    with pytest.raises(DeviceError):
        _run(ssh_board)
    _user_file(ssh_board, _line(ssh_board, names="!127.0.0.1,other"))
    with pytest.raises(DeviceError):
        _run(ssh_board)


def test_our_pin_counts_more_than_the_users_old_key(ssh_board) -> None:
    host = known_hosts.host_of(ssh_board.uri())
    _user_file(ssh_board, f"{host} ssh-ed25519 {OTHER}")
    with pytest.raises(DeviceError) as caught:
        _run(ssh_board)
    assert caught.value.code == "host_key_changed"
    key = known_hosts.fetch_host_key(ssh_board.uri(), name="board")
    known_hosts.pin(key, name="board", replace=True)
    assert _run(ssh_board) == "hello"


def test_file_that_cannot_be_written(ssh_board) -> None:
    known_hosts.known_hosts_path().mkdir()
    with pytest.raises(ConfigError, match="known_hosts cannot be"):
        known_hosts.pin(HostKey("h", "ssh-ed25519", OTHER), name="board")
