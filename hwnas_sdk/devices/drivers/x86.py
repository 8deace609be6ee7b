"""``local:``: the board is this machine; options ``python=``, ``providers=``, ``power=``."""

from __future__ import annotations

import sys

from hwnas_sdk import _resources
from hwnas_sdk.devices.agent_build import build_agent
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.transports.local import LocalTransport
from hwnas_sdk.devices.uri import DeviceUri


def open_local(uri: DeviceUri, *, name: str) -> AgentSession:
    """Build the agent if needed and start it as a child process.

    `python` names the interpreter whose runtime is measured; the default is our own. `providers`
    and `power` are those of boards reached by SSH (drivers/ssh.py).
    Raises: ConfigError for an unknown option, DeviceError when the agent does not start.
    """
    uri.check_options("python", "providers", "power")
    work = _resources.board_work_path(name)
    work.mkdir(parents=True, exist_ok=True)
    agent = build_agent(work)
    python = uri.options.get("python") or sys.executable
    command = [python, str(agent), "--work", str(work)]
    if uri.options.get("power"):
        command += ["--power", uri.options["power"]]
    return AgentSession(
        LocalTransport(work, command, device_id=name),
        name=name,
        uri=uri.text,
        owner=owner_id(),
        providers=[word for word in uri.options.get("providers", "").split(",") if word],
    )
