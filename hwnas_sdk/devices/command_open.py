"""From a device URI with ``runner=`` to a `CommandSession`, over any shell."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.command_board import cores_of_mask
from hwnas_sdk.devices.command_runners import find_runner
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.transports.shell import BoardShell
from hwnas_sdk.devices.uri import DeviceUri

COMMAND_OPTIONS = ("runner", "kind", "mask")
"""Options of a URI that only mean something with a runner."""


def with_runner(uri: str, program: str) -> str:
    """Return `uri` with ``runner=`` naming the file `program`, as an absolute path.

    Raises: ConfigError when there is no such file, or `uri` names a runner already.
    """
    parsed = DeviceUri.parse(uri)
    if "runner" in parsed.options:
        raise ConfigError(f"{uri!r} names a runner already", hint="leave out --runner")
    path = Path(program).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(
            f"the runner {program} does not exist", code="runner_missing", hint="give its path"
        )
    find_runner(path.name, parsed.options.get("kind", ""))
    return f"{uri}{'&' if parsed.options else '?'}runner={quote(str(path))}"


def open_command(shell: BoardShell, uri: DeviceUri, *, name: str, work: str) -> CommandSession:
    """Open the board behind `shell` with the runner that `uri` names.

    Options: ``runner=PATH`` (a file on this host, made for the board), ``kind=`` (where its name
    does not say), ``mask=HEX`` (cores, as for `taskset`; else the strongest).

    Raises: ConfigError for bad options, DeviceError when the board or the runner cannot be used.
    """
    for option in ("python", "governor", "power"):
        if option in uri.options:
            raise ConfigError(f"{option}= in {uri.text!r} means nothing beside runner=")
    program = Path(uri.options["runner"]).expanduser()
    runner = find_runner(program.name, uri.options.get("kind", ""))
    cores = None
    if "mask" in uri.options:
        try:
            cores = cores_of_mask(uri.options["mask"])
        except ValueError:
            raise ConfigError(
                f"mask={uri.options['mask']!r} in {uri.text!r} is not a core mask",
                hint="hexadecimal, one bit per core: f0 is cores 4 to 7",
            ) from None
    return CommandSession(
        shell,
        name=name,
        uri=uri.text,
        owner=owner_id(),
        work=work,
        program=program,
        runner=runner,
        cores=cores,
    )
