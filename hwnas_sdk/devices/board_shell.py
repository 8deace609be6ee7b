"""From a device URI to a shell on its board and our folder there, for any driver that has both."""

from __future__ import annotations

import posixpath
import re
import shlex
import sys
from typing import Any

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.inventory import find_driver
from hwnas_sdk.devices.transports.shell import BoardShell
from hwnas_sdk.devices.uri import DeviceUri


def has_shell(uri: DeviceUri) -> bool:
    """Whether boards of `uri` are reached through a shell, like those behind SSH and ADB.

    Raises: ConfigError for an unknown scheme.
    """
    return hasattr(_driver_module(uri), "open_shell")


def open_shell(uri: DeviceUri, *, name: str) -> BoardShell:
    """Return a shell on the board of `uri`; it connects on first use.

    Raises: ConfigError "no_shell" where there is none, or for a bad URI.
    """
    module = _driver_module(uri)
    if not hasattr(module, "open_shell"):
        raise ConfigError(
            f"{name!r} ({uri.text}) has no shell to work through",
            code="no_shell",
            hint="this is for boards reached by ssh:// or adb:",
        )
    shell: BoardShell = module.open_shell(uri, name=name)
    return shell


def work_word(uri: DeviceUri) -> str:
    """Our folder on the board of `uri` as a shell word; `$HOME` is the board's.

    Raises: ConfigError for a relative folder, or one that cannot be ours alone (home, root).
    """
    text = uri.options.get("work") or str(_driver_module(uri).DEFAULT_WORK)
    match = re.match(r"(?:\$HOME|~)(?=/|$)", text)
    rest = text if match is None else text[match.end() :]
    if posixpath.normpath(f"/{rest.strip('/')}") == "/":
        raise ConfigError(
            f"work={text!r} in {uri.text!r} is no folder of our own",
            hint="we remove and replace things there; for example $HOME/hwnas",
        )
    if match is not None:
        return f'"$HOME"{shlex.quote(text[match.end() :])}'
    if not text.startswith("/"):
        raise ConfigError(
            f"work={text!r} in {uri.text!r} is not an absolute folder",
            hint="for example /opt/hwnas",
        )
    return shlex.quote(text)


def _driver_module(uri: DeviceUri) -> Any:
    """Return the module a scheme's driver lives in: that is where it offers more than sessions."""
    return sys.modules[find_driver(uri).__module__]
