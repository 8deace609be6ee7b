"""Where a URI and ~/.ssh/config lead."""

from __future__ import annotations

import getpass

import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.drivers.ssh import open_shell, open_ssh
from hwnas_sdk.devices.transports.ssh_target import ssh_target
from hwnas_sdk.devices.uri import DeviceUri


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


def _target(text: str):
    return ssh_target(DeviceUri.parse(text))


@pytest.mark.parametrize(
    ("text", "user", "host", "port", "key_host"),
    [
        ("ssh://pi@10.0.0.7", "pi", "10.0.0.7", 22, "10.0.0.7"),
        ("ssh://board.lab:2222", None, "board.lab", 2222, "[board.lab]:2222"),
        ("ssh://pi@[fe80::1]:2222", "pi", "fe80::1", 2222, "[fe80::1]:2222"),
        ("ssh://pi@[fe80::1]", "pi", "fe80::1", 22, "fe80::1"),
        ("ssh://a@b@host/", "a@b", "host", 22, "host"),
        ("ssh:pi@host?work=/tmp/x", "pi", "host", 22, "host"),
    ],
)
def test_places(text, user, host, port, key_host) -> None:
    target = _target(text)
    assert (target.user, target.host) == (user or getpass.getuser(), host)
    assert (target.port, target.key_host) == (port, key_host)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://pi@",
        "ssh://pi@host:none",
        "ssh://pi@host:0",
        "ssh://pi@host:99999",
        "ssh://host/path",
        "ssh://fe80::1",
        "ssh://[fe80::1",
        "ssh://[fe80::1]x",
        "ssh://-oProxyCommand=x",
        "ssh://a b",
    ],
)
def test_bad_places(text) -> None:
    with pytest.raises(ConfigError, match=r"host|port|brackets"):
        _target(text)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'work'"):
        open_shell(DeviceUri.parse("ssh://host?wrok=x"), name="board")
    with pytest.raises(ConfigError, match="governor='fast'"):
        open_ssh(DeviceUri.parse("ssh://host?governor=fast"), name="board")
    with pytest.raises(ConfigError, match="key file"):
        open_shell(DeviceUri.parse("ssh://host?identity=/nowhere"), name="board")


def test_configuration(config, tmp_path) -> None:
    (tmp_path / "key").write_text("k")
    config.write_text(
        f"Host shelf\n  HostName 10.0.0.9\n  Port 2200\n  User root\n  IdentitiesOnly yes\n"
        f"  IdentityFile {tmp_path}/key\n  IdentityFile {tmp_path}/missing\n"
        "Host alias\n  HostName 10.0.0.8\n  HostKeyAlias board-8\n  ProxyJump a@gate,b@door\n"
        "Host tunnel\n  ProxyCommand nc %h %p\n"
    )
    shelf = _target("ssh://shelf")
    assert (shelf.host, shelf.port, shelf.user) == ("10.0.0.9", 2200, "root")
    assert shelf.identities == (f"{tmp_path}/key",)
    assert shelf.only_identities
    assert shelf.key_host == "[10.0.0.9]:2200"
    other = _target("ssh://pi@shelf:22")
    assert (other.user, other.port) == ("pi", 22)
    alias = _target("ssh://alias")
    assert alias.key_host == "board-8"
    assert alias.proxy_command == "ssh -J a@gate -W '[10.0.0.8]:22' b@door"
    assert _target("ssh://tunnel:24").proxy_command == "nc tunnel 24"


def test_damaged_configuration_is_named(config) -> None:
    config.write_text("Host x\n  ProxyCommand\n")
    with pytest.raises(ConfigError, match="config cannot be read"):
        _target("ssh://x")
