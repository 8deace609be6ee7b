"""``fake:`` devices: a real process and the real wire, made-up numbers, faults on command.

``fake://?mode=MODE[,MODE...][&seed=N][&delay_s=X][&work=DIR][&silence_s=X][&reply_s=X]``

Modes: ok; die_at_start, die_after=N, die_once=N (events written; once per work folder); hang,
hang_hello; garbage, half_json, half_json_eof, out_of_order (a reply), event_order (an event),
old_protocol; busy=N (refusals before the lease is given), lease_lost (once);
slow (delay_s per event, real time), hold=N (event N waits for a file "go" in the work folder);
crash_item=K, wrong_hash, nan, mismatch, drift, contended (what a record's flags come from).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.devices.agent_session import AgentSession
from hwnas_sdk.devices.owner import owner_id
from hwnas_sdk.devices.timeouts import Timeouts
from hwnas_sdk.devices.transports.local import LocalTransport
from hwnas_sdk.devices.uri import DeviceUri

MODES = frozenset(
    {
        "ok",
        "busy",
        "contended",
        "crash_item",
        "die_after",
        "die_at_start",
        "die_once",
        "drift",
        "event_order",
        "garbage",
        "half_json",
        "half_json_eof",
        "hang",
        "hang_hello",
        "hold",
        "lease_lost",
        "mismatch",
        "nan",
        "old_protocol",
        "out_of_order",
        "slow",
        "wrong_hash",
    }
)


def open_fake(uri: DeviceUri, *, name: str) -> AgentSession:
    """Start a fake agent; `origin` is "simulated", so its numbers cannot pass for measured ones.

    Raises: ConfigError for an unknown mode or option; DeviceError as the mode demands.
    """
    uri.check_options("mode", "seed", "delay_s", "work", "silence_s", "reply_s", "lease_s")
    mode = uri.options.get("mode", "ok")
    for part in mode.split(","):
        key, _, number = part.partition("=")
        if key not in MODES or (number and not number.isdecimal()):
            known = ", ".join(sorted(MODES))
            raise ConfigError(f"unknown fake mode {part!r}", hint=f"one of {known}")
    seed = int(uri.number("seed", 0))
    work = Path(uri.options.get("work") or _resources.board_work_path(name))
    defaults = Timeouts()
    reply_s = uri.number("reply_s", defaults.reply_s)
    timeouts = replace(
        defaults,
        silence_s=uri.number("silence_s", defaults.silence_s),
        reply_s=reply_s,
        start_s=min(defaults.start_s, reply_s + 5.0),
        lease_other_s=uri.number("lease_s", defaults.lease_other_s),
    )
    command = [sys.executable, str(Path(__file__).with_name("_fake_agent.py")), "--work", str(work)]
    command += ["--mode", mode, "--seed", str(seed)]
    command += ["--delay-s", str(uri.number("delay_s", 0.02))]
    return AgentSession(
        LocalTransport(work, command, device_id=name),
        name=name,
        uri=uri.text,
        owner=owner_id(),
        origin="simulated",
        timeouts=timeouts,
    )
