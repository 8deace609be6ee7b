"""From a device URI with ``runner=`` to a `CommandSession`, over any shell."""

from __future__ import annotations

from pathlib import Path

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.command_board import cores_of_mask
from hwnas_sdk.devices.command_runners import find_runner
from hwnas_sdk.devices.command_session import CommandSession
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.transports.shell import BoardShell
from hwnas_sdk.devices.uri import DeviceUri

COMMAND_OPTIONS = ("runner", "kind", "mask")
"""Options of a URI that only mean something with a runner."""


def open_command(shell: BoardShell, uri: DeviceUri, *, name: str, work: str) -> CommandSession:
    """Open the board behind `shell` with the runner that `uri` names.

    Options: ``runner=PATH`` (a file on this host, made for the board), ``kind=`` (where its name
    does not say), ``mask=HEX`` (cores, as for `taskset`; else the strongest).

    Raises: ConfigError for bad options, DeviceError when the board or the runner cannot be used.
    """
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
