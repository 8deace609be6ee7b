"""Host keys of boards: what we have pinned, what the user's own SSH trusts, and fetching one.

Our pins are in ``HWNAS_HOME/known_hosts`` (OpenSSH's format). When that file knows a host, it alone
counts; otherwise the user's ``~/.ssh/known_hosts`` does, which is only ever read. A key that
neither knows is refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices.transports.ssh_target import ssh_target
from hwnas_sdk.devices.uri import DeviceUri


@dataclass(frozen=True, slots=True)
class HostKey:
    """The public key a host proves itself with.

    Attributes:
        host: as in a known hosts file: ``host``, or ``[host]:port`` beside port 22.
        kind: the algorithm, for example ``ssh-ed25519``.
        key: the public key, base64.
    """

    host: str
    kind: str
    key: str

    @property
    def fingerprint(self) -> str:
        """``SHA256:...``, as `ssh-keygen -l` prints it."""
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def known_hosts_path() -> Path:
    """Our own file of pinned keys."""
    return _resources.home() / "known_hosts"


def user_known_hosts_path() -> Path:
    """The user's file; never written."""
    return Path.home() / ".ssh" / "known_hosts"


def host_of(uri: DeviceUri) -> str:
    """The name under which the host of `uri` stands in a known hosts file.

    Raises: ConfigError for a malformed URI.
    """
    return ssh_target(uri).key_host


def fetch_host_key(uri: DeviceUri, *, name: str, timeout_s: float = 15.0) -> HostKey:
    """Ask the host of `uri` for its key, without logging in; nothing is pinned.

    Raises: DeviceError "unreachable"; MissingExtraError without paramiko.
    """
    from hwnas_sdk.devices.transports.ssh_link import ask_host_key

    return ask_host_key(ssh_target(uri), device_id=name, timeout_s=timeout_s)


def pinned(host: str) -> tuple[HostKey, ...]:
    """Keys of `host` in our own file."""
    return tuple(key for marker, key in _entries(known_hosts_path(), host) if not marker)


def trusted(host: str) -> tuple[HostKey, ...]:
    """Keys `host` may prove itself with: our pins, else the user's own."""
    own = pinned(host)
    if own:
        return own
    found = list(_entries(user_known_hosts_path(), host))
    revoked = {key.key for marker, key in found if marker == "@revoked"}
    return tuple(key for marker, key in found if not marker and key.key not in revoked)


def pin(key: HostKey, *, name: str, replace: bool = False) -> bool:
    """Trust `key` from now on; returns False when it was pinned already.

    Args:
        key: from `fetch_host_key`; the caller has shown its fingerprint.
        name: of the device, for messages.
        replace: also when another key is known for the host, which then counts no longer.

    Raises: DeviceError "host_key_changed" without `replace`; ConfigError when it cannot be written.
    """
    if not replace:
        check_unchanged(key, name=name)
    with _changing() as lines:
        present = [line for line in lines if _matches(line, key.host)]
        line = f"{key.host} {key.kind} {key.key}"
        if present == [line]:
            return False
        lines[:] = [other for other in lines if other not in present] + [line]
    return True


def forget(host: str) -> int:
    """Remove our pins of `host`; returns how many there were.

    Raises: ConfigError when the file cannot be written.
    """
    if not known_hosts_path().exists():
        return 0
    with _changing() as lines:
        kept = [line for line in lines if not _matches(line, host)]
        gone = len(lines) - len(kept)
        lines[:] = kept
    return gone


def check_unchanged(key: HostKey, *, name: str) -> None:
    """Refuse a key that differs from the one known for its host.

    Raises: DeviceError "host_key_changed", naming both fingerprints.
    """
    known = trusted(key.host)
    if not known or any(key.key == other.key for other in known):
        return
    same_kind = [other for other in known if other.kind == key.kind]
    raise DeviceError(
        f"the host key of {name!r} ({key.host}) has changed: it was "
        f"{(same_kind or list(known))[0].fingerprint}, now it is {key.fingerprint} ({key.kind})",
        device_id=name,
        code="host_key_changed",
        hint="another machine answers, or it was set up anew; if you know why: "
        f"hwnas devices trust {name} --replace",
    )


@contextlib.contextmanager
def _changing() -> Iterator[list[str]]:
    """Our file's lines, written back whole when the caller changed them, under a lock."""
    path = known_hosts_path()
    try:
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = _lines(path)
            lines = list(before)
            yield lines
            if lines == before:
                return
            scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write("".join(f"{line}\n" for line in lines))
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(path)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}", hint="set HWNAS_HOME to another folder"
        ) from exc


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc


def _entries(path: Path, host: str) -> Iterator[tuple[str, HostKey]]:
    """(marker, key) of every sound line about `host`; damaged lines and authorities are passed."""
    for line in _lines(path):
        if not _matches(line, host):
            continue
        fields = line.split()
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if marker == "@cert-authority" or len(fields) < 3:
            continue
        with contextlib.suppress(binascii.Error):
            base64.b64decode(fields[2], validate=True)
            yield marker, HostKey(host, fields[1], fields[2])


def _matches(line: str, host: str) -> bool:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return False
    if fields[0].startswith("@"):
        fields.pop(0)
    names = fields[0].split(",") if fields else []
    if any(_fits(name[1:], host) for name in names if name.startswith("!")):
        return False
    return any(_fits(name, host) for name in names)


def _fits(name: str, host: str) -> bool:
    """Whether `name`, plain, hashed or with ``*`` and ``?``, stands for `host`."""
    if name.startswith("|1|"):
        try:
            _, _, salt, expected = name.split("|")
            digest = hmac.new(base64.b64decode(salt), host.encode(), "sha1").digest()
            return hmac.compare_digest(digest, base64.b64decode(expected))
        except ValueError:
            return False
    pattern = re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, host, re.IGNORECASE) is not None
