"""``ssh://[user@]host[:port]`` and the user's ``~/.ssh/config``: where to connect, and as whom."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.uri import DeviceUri

_PORT = 22
_HINT = "for example ssh://pi@10.0.0.7 or ssh://board.lab:2222"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """One SSH server and how to log in there.

    Attributes:
        host, port: where to connect.
        user: who logs in.
        key_host: its name in a known hosts file.
        identities: private key files to try.
        only_identities: whether the agent's and the default keys are left out.
        proxy_command: what to run instead of connecting, or None.
    """

    host: str
    port: int
    user: str
    key_host: str
    identities: tuple[str, ...] = ()
    only_identities: bool = False
    proxy_command: str | None = None

    @property
    def address(self) -> str:
        """``host:port`` for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def ssh_target(uri: DeviceUri) -> SshTarget:
    """Resolve `uri` as `ssh` would: what the URI says counts first, then ``~/.ssh/config``.

    Raises: ConfigError for a malformed URI, a missing ``identity`` or a damaged configuration.
    """
    user, alias, port = _split(uri)
    config = _config_of(alias, port)
    host = str(config.get("hostname") or alias)
    identity = uri.options.get("identity")
    if identity is not None and not Path(identity).expanduser().is_file():
        raise ConfigError(
            f"the key file {identity!r} of {uri.text!r} is not there",
            hint="identity= names the private key file",
        )
    number = port or _number(config.get("port"), alias) or _PORT
    key_name = str(config.get("hostkeyalias") or host)
    files = [identity] if identity else [str(path) for path in config.get("identityfile", ())]
    return SshTarget(
        host=host,
        port=number,
        user=user or str(config.get("user") or getpass.getuser()),
        key_host=key_name if number == _PORT else f"[{key_name}]:{number}",
        identities=tuple(
            str(path) for path in (Path(text).expanduser() for text in files) if path.is_file()
        ),
        only_identities=identity is not None or config.get("identitiesonly") == "yes",
        proxy_command=_proxy_of(config, host, number),
    )


def _split(uri: DeviceUri) -> tuple[str, str, int | None]:
    """User (or ""), host and port (or None) of the URI."""
    user, _, place = uri.path.rstrip("/").rpartition("@")
    rest = ""
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket:
            host = ""
    elif place.count(":") > 1:
        raise ConfigError(f"{uri.text!r}: an IPv6 address needs brackets", hint=_HINT)
    else:
        host, colon, number = place.partition(":")
        rest = colon + number
    bad = not host or "/" in place or any(char.isspace() for char in uri.path)
    # A name that begins with a dash would be an option of a proxy command.
    if bad or host.startswith("-") or user.startswith("-") or rest[:1] not in {"", ":"}:
        raise ConfigError(f"{uri.text!r} does not name a host", hint=_HINT)
    return user, host, _number(rest[1:], uri.text) if rest else None


def _number(text: object, where: str) -> int | None:
    if text is None:
        return None
    if not str(text).isdecimal() or not 0 < int(str(text)) < 65536:
        raise ConfigError(f"{where!r}: {text!r} is not a port", hint=_HINT)
    return int(str(text))


def _config_of(alias: str, port: int | None) -> Mapping[str, Any]:
    """What ``~/.ssh/config`` says about `alias`; nothing without that file."""
    path = Path.home() / ".ssh" / "config"
    if not path.is_file():
        return {}
    from hwnas_sdk.devices.transports.ssh_link import load_paramiko

    paramiko = load_paramiko()
    # The first value counts, also where the file's own lines use it (%p).
    first = f"Host *\n  Port {port}\n" if port else ""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return dict(paramiko.SSHConfig.from_text(first + text).lookup(alias))
    except Exception as exc:  # its parser raises many types
        raise ConfigError(
            f"{path} cannot be read: {exc}", hint="ssh -G HOST shows what ssh makes of it"
        ) from exc


def _proxy_of(config: Mapping[str, Any], host: str, port: int) -> str | None:
    command = config.get("proxycommand")
    if command and str(command).lower() != "none":
        return str(command)
    jump = config.get("proxyjump")
    if jump and str(jump).lower() != "none":
        *before, last = str(jump).split(",")
        via = f"-J {shlex.quote(','.join(before))} " if before else ""
        return f"ssh {via}-W {shlex.quote(f'[{host}]:{port}')} {shlex.quote(last)}"
    return None
