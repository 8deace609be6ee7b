"""``ssh://[user@]host[:port]``: a board that is reached by SSH.

Options: ``work=DIR`` (the agent's folder there), ``python=PATH``, ``identity=FILE`` (private key),
``governor=keep`` (leave the clock governor alone), ``power=SOURCE`` (which energy sensor, where the
board cannot tell: ``hwmon:rail=VDD_IN``, ``ina226:bus=1,addr=0x40,shunt_ohm=0.1``),
``providers=A,B`` (of ONNX Runtime, the wanted one first, for example
``CUDAExecutionProvider,CPUExecutionProvider``; else the CPU). A board without Python takes
``runner=PATH`` instead (see `command_open`).
"""

from __future__ import annotations

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.command_open import COMMAND_OPTIONS, open_command
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.transports.remote import RemoteTransport
from hwnas_sdk.devices.transports.ssh import SshShell
from hwnas_sdk.devices.transports.ssh_target import ssh_target
from hwnas_sdk.devices.uri import DeviceUri

DEFAULT_WORK = "$HOME/.local/share/hwnas"
_OPTIONS = ("work", "python", "identity", "governor", "power", "providers")


def open_shell(uri: DeviceUri, *, name: str) -> SshShell:
    """A shell on the board of `uri`; connects on first use.

    Raises: ConfigError for an unknown option or a malformed URI.
    """
    uri.check_options(*_OPTIONS, *COMMAND_OPTIONS)
    return SshShell(ssh_target(uri), device_id=name)


def open_transport(uri: DeviceUri, *, name: str) -> RemoteTransport:
    """Files and the agent on the board of `uri`; connects on first use.

    Raises: ConfigError as `open_shell`.
    """
    return RemoteTransport(
        open_shell(uri, name=name),
        work=uri.options.get("work") or DEFAULT_WORK,
        python=uri.options.get("python"),
        agent_options=["--power", uri.options["power"]] if uri.options.get("power") else (),
    )


def open_ssh(uri: DeviceUri, *, name: str) -> DeviceSession:
    """Connect, bring the agent when it is not there yet, and start it.

    Raises: ConfigError for a bad URI; DeviceError when the board cannot be reached or used.
    """
    if "runner" in uri.options:
        work = uri.options.get("work") or DEFAULT_WORK
        return open_command(open_shell(uri, name=name), uri, name=name, work=work)
    governor = uri.options.get("governor", "performance")
    if governor not in {"performance", "keep"}:
        raise ConfigError(f"governor={governor!r} in {uri.text!r}", hint="performance or keep")
    return AgentSession(
        open_transport(uri, name=name),
        name=name,
        uri=uri.text,
        owner=owner_id(),
        governor=None if governor == "keep" else governor,
        providers=[word for word in uri.options.get("providers", "").split(",") if word],
    )
