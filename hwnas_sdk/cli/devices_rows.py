"""What the verbs of `hwnas devices` share: names, rows, the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwnas_sdk.cli.context import App

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.types import DeviceSpec
    from hwnas_sdk.devices.session import DeviceSession
    from hwnas_sdk.devices.uri import DeviceUri

COLUMNS = (
    "family",
    "soc",
    "cores",
    "memory_mib",
    "machine",
    "runtimes",
    "power_source",
    "power_reason",
)


def entry_of(app: App, name_or_uri: str) -> tuple[str, DeviceUri]:
    """Name and URI of a board of the inventory, or of a URI given in place of a name.

    Raises: ConfigError for an unknown name or a bad URI.
    """
    from hwnas_sdk.devices.uri import DeviceUri

    if ":" in name_or_uri:
        return name_or_uri, DeviceUri.parse(name_or_uri)
    entry = app.inventory().get(name_or_uri)
    return entry.name, DeviceUri.parse(entry.uri)


def remember(app: App, session: DeviceSession) -> None:
    """Keep what the board said, for `devices list`."""
    app.store().put_device(session.spec)


def device_row(name: str, uri: str, spec: DeviceSpec | None) -> dict[str, Any]:
    """What is known of a board; everything is None for one that was never asked."""
    row: dict[str, Any] = {"name": name, "uri": uri, "id": spec.id if spec else None}
    row |= {key: getattr(spec, key, None) for key in COLUMNS}
    row["memory_mib"] = row["memory_mib"] or None  # a table has none
    row["quiet"] = spec.details.get("quiet") if spec else None
    return row


def next_steps(name: str, spec: DeviceSpec) -> list[str]:
    """Commands that come next for a board that answers."""
    if not spec.runtimes:
        return [f"hwnas devices setup {name}"]
    return [f"hwnas profile {name}"]


def draw_device(console: Console, row: Mapping[str, Any]) -> None:
    """One line for each thing known of a board."""
    from hwnas_sdk.cli.render import facts

    shown = dict(row)
    power = shown.pop("power", None) or {}
    reason = shown.pop("power_reason", None)
    if shown["power_source"] is None and shown["family"] is not None:
        texts = [reason, power.get("detail"), power.get("hint")]
        shown["power_source"] = "; ".join(["none", *(str(text) for text in texts if text)])
    environment = shown.pop("environment", None) or {}
    shown["environment"] = {key: value for key, value in environment.items() if value is not None}
    steps = shown.pop("next", None) or []
    known = {key: value for key, value in shown.items() if value is not None and value != {}}
    console.print(facts(known))
    for i, step in enumerate(steps):
        console.print(f"{'next: ' if i == 0 else '      '}{step}", markup=False)
