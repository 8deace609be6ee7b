"""Devices: what a board is asked for, how it is reached, and what its answers mean.

`open_session` turns a device name or URI into a `DeviceSession`; `measurements_of` turns what the
session answered into records with flags.
"""

from __future__ import annotations

from hwnas_sdk.devices.inventory import Inventory, open_session
from hwnas_sdk.devices.jobs import Block, ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.quality import quiet_verdict
from hwnas_sdk.devices.records import measurements_of
from hwnas_sdk.devices.session import DeviceSession

__all__ = [
    "Block",
    "DeviceSession",
    "Inventory",
    "ItemResult",
    "JobItem",
    "JobResult",
    "MeasureJob",
    "measurements_of",
    "open_session",
    "quiet_verdict",
]
