"""The device inventory: names for URIs, and how a name or URI becomes a session.

The file is YAML, meant to be read and edited by people::

    version: 1
    devices:
      pi4-shelf: {uri: "ssh://pi@10.0.0.7", note: "top shelf"}

Two names are reserved. ``local`` is this machine; it is always there. ``fake`` is a pretend device
for tests and demonstrations; it can always be opened and is never listed.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.uri import DeviceUri

if TYPE_CHECKING:
    from hwnas_sdk.devices.inventory_file import DeviceModel, InventoryFile

RESERVED: Mapping[str, str] = {"local": "local:", "fake": "fake:"}
"""Names that exist without being added, and their URIs."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_GROUP = "hwnas.drivers"


class Driver(Protocol):
    """What an entry point of the group ``hwnas.drivers`` is; its name is the URI scheme."""

    def __call__(self, uri: DeviceUri, *, name: str) -> DeviceSession:
        """Open the device at `uri`, which the user calls `name`."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """One line of the inventory."""

    name: str
    uri: str
    note: str = ""


class Inventory:
    """The devices a user has named, kept in one file.

    Every change is written whole to a new file that then takes the old one's place, under a lock,
    so two processes lose nothing and a crash leaves the old or the new file.
    """

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; it need not exist."""
        self._path = path

    @classmethod
    def default(cls) -> Inventory:
        """The user's own inventory."""
        return cls(_resources.inventory_path())

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    def list(self) -> tuple[DeviceEntry, ...]:
        """All devices, ``local`` first.

        Raises: ConfigError naming file and line when the file is damaged.
        """
        named = [
            DeviceEntry(name, device.uri, device.note)
            for name, device in sorted(self._load().devices.items())
        ]
        return (DeviceEntry("local", RESERVED["local"], "this machine"), *named)

    def get(self, name: str) -> DeviceEntry:
        """The device called `name`.

        Raises: ConfigError for an unknown name, listing the known ones, the closest first.
        """
        if name in RESERVED:
            return DeviceEntry(name, RESERVED[name])
        known = {entry.name: entry for entry in self.list()}
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known, n=3)
        others = [other for other in known if other not in close]
        raise ConfigError(
            f"unknown device {name!r}",
            code="unknown_device",
            hint=f"known: {', '.join([*close, *others])}; add one: hwnas devices add NAME URI",
        )

    def add(self, name: str, uri: str, *, note: str = "") -> DeviceEntry:
        """Give the device at `uri` a name; the same name and URI again is fine.

        Raises: ConfigError for a bad or taken name, a bad URI or an unknown scheme.
        """
        check_name(name)
        if name in RESERVED:
            raise ConfigError(f"the name {name!r} is reserved", hint="it needs no adding")
        parsed = DeviceUri.parse(uri)
        find_driver(parsed)
        if parsed.scheme == "replay" or (parsed.scheme == "sim" and "/" in parsed.path):
            # The entry must mean the same files from every folder it is used in.
            for text in (parsed.path, parsed.options.get("energy_table", "")):
                if text and not text.startswith(("/", "~")):
                    uri = uri.replace(text, str(Path(text).resolve()), 1)
        with self._changing() as content:
            present = content.devices.get(name)
            if present is not None and present.uri != uri:
                raise ConfigError(
                    f"there is a device {name!r} already: {present.uri}",
                    code="device_exists",
                    hint=f"hwnas devices remove {name}",
                )
            content.devices[name] = self._new(uri, note)
        return DeviceEntry(name, uri, note)

    def remove(self, name: str) -> None:
        """Forget a name; its measurements stay.

        Raises: ConfigError when there is none or it is reserved.
        """
        if name in RESERVED:
            raise ConfigError(f"{name!r} is always there and cannot be removed")
        self.get(name)
        with self._changing() as content:
            content.devices.pop(name, None)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[InventoryFile]:
        """Read, let the caller change, write, while no other process of ours does."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                content = self._load()
                yield content
                self._save(content)
        except OSError as exc:
            raise ConfigError(f"{self._path} cannot be written: {exc.strerror}") from exc

    def _load(self) -> InventoryFile:
        # pydantic and yaml cost more to import than the rest of the package together.
        from hwnas_sdk.devices import inventory_file

        content = inventory_file.load(self._path)
        for name in content.devices:
            if not _NAME.fullmatch(name) or name in RESERVED:
                raise inventory_file.damaged(
                    self._path, ("devices", name), f"bad or reserved device name {name!r}"
                )
        return content

    @staticmethod
    def _new(uri: str, note: str) -> DeviceModel:
        from hwnas_sdk.devices.inventory_file import DeviceModel

        return DeviceModel(uri=uri, note=note)

    def _save(self, content: InventoryFile) -> None:
        from hwnas_sdk.devices import inventory_file

        inventory_file.save(self._path, content)


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` can name a device (it also names folders)."""
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise ConfigError(
            f"bad device name {name!r}",
            hint="lower-case letters, digits, '_', '.', '-'; begins with a letter or digit",
        )


def schemes() -> tuple[str, ...]:
    """URI schemes this installation can open."""
    return tuple(sorted({entry.name for entry in _plug_ins()}))


def find_driver(uri: DeviceUri) -> Driver:
    """Return what opens devices of `uri`'s scheme.

    Raises: ConfigError for an unknown scheme or a plug-in that does not load.
    """
    for entry in _plug_ins():
        if entry.name == uri.scheme:
            try:
                driver: Driver = entry.load()
            except Exception as exc:
                raise ConfigError(
                    f"the driver for {uri.scheme!r} ({entry.value}) does not load: {exc}"
                ) from exc
            return driver
    raise ConfigError(
        f"scheme {uri.scheme!r} is not supported by this version",
        code="unknown_scheme",
        hint=f"known: {', '.join(schemes())}",
    )


def open_session(
    name_or_uri: str, *, inventory: Inventory | None = None, on_event: EventSink = ignore
) -> DeviceSession:
    """Open the device called `name_or_uri` in the inventory, or the one at that URI.

    Raises: ConfigError for an unknown name or scheme, DeviceError when it cannot be opened.
    """
    if ":" in name_or_uri:
        uri = DeviceUri.parse(name_or_uri)
        name = _name_for(uri)
    else:
        entry = (inventory or Inventory.default()).get(name_or_uri)
        uri, name = DeviceUri.parse(entry.uri), entry.name
    driver = find_driver(uri)
    on_event(Event(f"open {name}", message=f"opening {name}", data={"uri": uri.text}))
    return driver(uri, name=name)


def _name_for(uri: DeviceUri) -> str:
    """A device name for a URI given without one: a table's column, else the scheme."""
    text = uri.fragment if uri.scheme == "replay" else uri.scheme
    name = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")
    return name[:64] or uri.scheme


def _plug_ins() -> list[Any]:
    return list(entry_points(group=_GROUP))
