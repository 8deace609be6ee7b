"""Connecting to an SSH server with paramiko: sockets, host keys, log-in, and what went wrong.

No passwords: keys only, from ``identity=``, the user's SSH configuration, an agent, or
``~/.ssh/id_*``. A host key nobody has pinned is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas_sdk.core.errors import DeviceError, MissingExtraError
from hwnas_sdk.devices import known_hosts
from hwnas_sdk.devices.known_hosts import HostKey
from hwnas_sdk.devices.transports.ssh_target import SshTarget

if TYPE_CHECKING:
    import paramiko

_LOG = logging.getLogger(__name__)

CONNECT_S = 10.0
HANDSHAKE_S = 30.0
"""For the server's greeting, key exchange and each attempt to log in; an emulated board is slow."""
KEEPALIVE_S = 5
DEAD_AFTER_S = 20
"""A peer that acknowledges nothing for so long is gone (a cable that was pulled sends no reset)."""
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


def load_paramiko() -> Any:
    """The package. Raises: MissingExtraError without it."""
    try:
        import paramiko
    except ImportError as exc:
        raise MissingExtraError("paramiko", "ssh", purpose="a board reached by SSH") from exc
    return paramiko


def ask_host_key(target: SshTarget, *, device_id: str, timeout_s: float) -> HostKey:
    """Return the key the server proves itself with, without logging in."""
    prefer = [key.kind for key in known_hosts.trusted(target.key_host)]
    with mapped_errors(target, device_id):
        transport = _handshake(target, prefer=prefer, timeout_s=timeout_s)
        try:
            return _host_key_of(transport, target)
        finally:
            transport.close()


def connect(target: SshTarget, *, device_id: str) -> paramiko.Transport:
    """Connect, check the host key, log in, keep alive.

    Raises: DeviceError "unreachable", "host_key_unknown", "host_key_changed", "auth_failed".
    """
    known = known_hosts.trusted(target.key_host)
    with mapped_errors(target, device_id):
        transport = _handshake(target, prefer=[key.kind for key in known], timeout_s=HANDSHAKE_S)
        try:
            _check_host_key(_host_key_of(transport, target), known, device_id=device_id)
            _log_in(transport, target, device_id=device_id)
        except BaseException:
            transport.close()
            raise
    transport.set_keepalive(KEEPALIVE_S)
    return transport


def close_quietly(channel: paramiko.Channel) -> None:
    """Close a channel, whether its connection still stands or not.

    paramiko tells the server of it, and raises when there is no server left to tell; that would
    hide why the channel is closed.
    """
    with contextlib.suppress(OSError, EOFError):
        channel.close()


@contextlib.contextmanager
def mapped_errors(target: SshTarget, device_id: str) -> Iterator[None]:
    """Turn what sockets and paramiko raise while connecting into a DeviceError."""
    paramiko = load_paramiko()
    hint = "is it switched on, and the address right?"
    try:
        yield
    except paramiko.AuthenticationException as exc:
        raise _auth_failed(target, device_id, str(exc)) from exc
    except socket.gaierror as exc:
        what, hint = f"its name cannot be resolved: {exc.strerror}", "check the name in its URI"
        cause: Exception = exc
    except TimeoutError as exc:
        what, cause = "no answer in time", exc
    except OSError as exc:
        what, cause = exc.strerror or _first_reason(exc), exc
        if "refused" in what:
            hint = "is sshd running there, on this port?"
    except (paramiko.SSHException, EOFError) as exc:
        what, cause = f"it does not speak SSH as expected: {exc or 'it hung up'}", exc
        hint = f"try: ssh {target.user}@{target.host} -p {target.port}"
    else:
        return
    raise DeviceError(
        f"{device_id!r} cannot be reached at {target.address}: {what}",
        device_id=device_id,
        code="unreachable",
        hint=hint,
        retryable=True,
    ) from cause


def _handshake(target: SshTarget, *, prefer: Sequence[str], timeout_s: float) -> paramiko.Transport:
    """Open a connection and exchange keys; algorithms in `prefer` come first."""
    stream = _open_stream(target, timeout_s=min(timeout_s, CONNECT_S))
    try:
        transport: paramiko.Transport = load_paramiko().Transport(stream)
    except BaseException:
        stream.close()
        raise
    transport.set_log_channel(_quiet_logger().name)
    transport.banner_timeout = transport.auth_timeout = timeout_s
    transport.handshake_timeout = timeout_s
    options = transport.get_security_options()
    # Ask for a key of a kind we know; otherwise a host with several would look like a changed one.
    first = [kind for known in prefer for kind in _algorithms(known) if kind in options.key_types]
    options.key_types = tuple(dict.fromkeys([*first, *options.key_types]))
    try:
        transport.start_client(timeout=timeout_s)
    except BaseException:
        transport.close()
        raise
    return transport


def _open_stream(target: SshTarget, *, timeout_s: float) -> Any:
    paramiko = load_paramiko()
    if target.proxy_command is not None:
        return paramiko.ProxyCommand(target.proxy_command)
    stream = socket.create_connection((target.host, target.port), timeout=timeout_s)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
        ("TCP_KEEPCNT", max(1, DEAD_AFTER_S // KEEPALIVE_S)),
        ("TCP_USER_TIMEOUT", 1000 * DEAD_AFTER_S),  # Linux; elsewhere only the probes count
    ):
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return stream


def _host_key_of(transport: paramiko.Transport, target: SshTarget) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(target.key_host, key.get_name(), key.get_base64())


def _check_host_key(key: HostKey, known: Sequence[HostKey], *, device_id: str) -> None:
    if not known:
        raise DeviceError(
            f"the host key of {device_id!r} ({key.host}) is not known: {key.kind} "
            f"{key.fingerprint}",
            device_id=device_id,
            code="host_key_unknown",
            hint=f"compare the fingerprint, then: hwnas devices trust {device_id}",
        )
    known_hosts.check_unchanged(key, name=device_id)


def _log_in(transport: paramiko.Transport, target: SshTarget, *, device_id: str) -> None:
    """Try one key after another; says at the end what was tried."""
    paramiko = load_paramiko()
    tried: list[str] = []
    with contextlib.ExitStack() as stack:
        for label, key in _keys(target, tried, stack):
            try:
                missing = transport.auth_publickey(target.user, key)
            except paramiko.AuthenticationException as exc:
                _LOG.debug("%s: %s refused: %s", device_id, label, exc)
                tried.append(label)
                if not transport.is_active():  # MaxAuthTries
                    break
                continue
            if not missing:
                return
            raise _auth_failed(target, device_id, f"it also asks for {', '.join(missing)}")
    what = f"it refused {', '.join(tried)}" if tried else "there is no key to try"
    raise _auth_failed(target, device_id, what)


def _keys(
    target: SshTarget, tried: list[str], stack: contextlib.ExitStack
) -> Iterator[tuple[str, Any]]:
    """(label, key) of every private key to try; unusable files are noted in `tried`."""
    paramiko = load_paramiko()
    yield from _file_keys(target.identities, tried)
    if target.only_identities:
        return
    if os.environ.get("SSH_AUTH_SOCK"):
        with contextlib.suppress(paramiko.SSHException, OSError):
            agent = paramiko.Agent()
            stack.callback(agent.close)
            yield from ((f"the agent's key {key.fingerprint}", key) for key in agent.get_keys())
    folder = Path.home() / ".ssh"
    files = [str(folder / name) for name in _DEFAULT_KEYS if (folder / name).is_file()]
    yield from _file_keys([path for path in files if path not in target.identities], tried)


def _file_keys(paths: Sequence[str], tried: list[str]) -> Iterator[tuple[str, Any]]:
    paramiko = load_paramiko()
    for path in paths:
        try:
            key = paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            tried.append(f"{path} (has a passphrase: load it with ssh-add)")
        except Exception as exc:  # noqa: BLE001 - two libraries' own: a kind of key they lack
            _LOG.debug("%s cannot be read: %r", path, exc)
            tried.append(f"{path} (cannot be used: {str(exc)[:80]})")
        else:
            yield path, key


def _auth_failed(target: SshTarget, device_id: str, what: str) -> DeviceError:
    return DeviceError(
        f"{device_id!r} does not let {target.user!r} in at {target.address}: {what}",
        device_id=device_id,
        code="auth_failed",
        hint=f"ssh-copy-id -p {target.port} {target.user}@{target.host}, "
        "or name a key: ?identity=PATH",
    )


def _algorithms(kind: str) -> tuple[str, ...]:
    """Names under which a key of `kind` is negotiated."""
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)


def _first_reason(exc: OSError) -> str:
    inner = getattr(exc, "errors", None)  # of paramiko's NoValidConnectionsError
    reasons = [str(error) for error in inner.values()] if isinstance(inner, dict) else []
    return (reasons or [str(exc) or type(exc).__name__])[0]


class _Demote(logging.Filter):
    """paramiko reports an everyday hang-up as an error with a traceback; we report it ourselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return _LOG.isEnabledFor(logging.DEBUG)


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.paramiko")
    if not logger.filters:
        logger.addFilter(_Demote())
    return logger
