"""``adb://SERIAL``: a phone, or anything else that runs ADB's daemon (``adb:`` when there is one).

Options: ``runner=PATH`` (a benchmark program on this host, made for the device; see
`command_open`), or ``python=PATH`` (an interpreter on the device with `onnxruntime` and `numpy`),
and ``work=DIR`` (the folder used there).

There is no wheel of ONNX Runtime for Android on PyPI, so a phone has no Python to run the agent
unless somebody put one there. Termux has one, in ``/data/data/com.termux/files/usr/bin/python``;
only Termux itself may start it (a debuggable build through `run-as`, or root), so this wants a
rooted device and ``work=`` below ``/data/data/com.termux/files/home``. Termux over SSH needs
neither: ``pkg install openssh``, then ``ssh://USER@PHONE:8022``.
"""

from __future__ import annotations

from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.command_open import COMMAND_OPTIONS, open_command
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.transports.adb import AdbShell
from hwnas_sdk.devices.transports.remote import RemoteTransport
from hwnas_sdk.devices.uri import DeviceUri

DEFAULT_WORK = "/data/local/tmp/hwnas"


def open_shell(uri: DeviceUri, *, name: str) -> AdbShell:
    """A shell on the device of `uri`; finds it on first use.

    Raises: ConfigError for an unknown option.
    """
    uri.check_options("work", "python", "governor", "power", *COMMAND_OPTIONS)
    return AdbShell(uri.path.rstrip("/"), device_id=name)


def open_transport(uri: DeviceUri, *, name: str) -> RemoteTransport:
    """Files and the agent on the device of `uri`. Raises: ConfigError as `open_shell`."""
    return RemoteTransport(
        open_shell(uri, name=name),
        work=uri.options.get("work") or DEFAULT_WORK,
        python=uri.options.get("python"),
    )


def open_adb(uri: DeviceUri, *, name: str) -> DeviceSession:
    """Open the device with its runner, else with a Python there.

    Raises: ConfigError for a bad URI; DeviceError "runner_missing" when it has neither, or what
    says why it cannot be reached.
    """
    shell = open_shell(uri, name=name)
    work = uri.options.get("work") or DEFAULT_WORK
    if "runner" in uri.options:
        return open_command(shell, uri, name=name, work=work)
    for option in COMMAND_OPTIONS:
        if option in uri.options:
            raise ConfigError(f"{option}= in {uri.text!r} means nothing without runner=")
    governor = uri.options.get("governor", "performance")
    if governor not in {"performance", "keep"}:
        raise ConfigError(f"governor={governor!r} in {uri.text!r}", hint="performance or keep")
    try:
        return AgentSession(
            open_transport(uri, name=name),
            name=name,
            uri=uri.text,
            owner=owner_id(),
            governor=None if governor == "keep" else governor,
        )
    except DeviceError as exc:
        if exc.code != "python_missing" or "python" in uri.options:
            raise
        raise DeviceError(
            f"{name!r} has nothing to run networks with: no runner was named and it has no Python "
            "(PyPI has no onnxruntime wheel for Android)",
            device_id=name,
            code="runner_missing",
            hint="1. a program built for it: ?runner=PATH (onnxruntime_perf_test, or LiteRT's "
            "benchmark_model for .tflite files); 2. a Python on a rooted phone: ?python=PATH; "
            "3. Termux with sshd: ssh://USER@PHONE:8022",
        ) from exc
