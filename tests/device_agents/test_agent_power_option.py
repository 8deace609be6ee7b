"""The user's choice of an energy sensor reaches the agent and its worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agent_harness import Agent

from hwnas_sdk.devices.drivers.ssh import open_transport
from hwnas_sdk.devices.uri import DeviceUri


@pytest.mark.parametrize(
    ("choice", "reason", "detail"),
    [
        ("ina3221", "bad_option", "no power source is called ina3221"),
        ("ina226", "bad_option", "say where the chip is"),
        ("none", "no_sensor", ""),
    ],
)
def test_the_probe_answers_for_the_chosen_sensor(
    start: Callable[..., Agent], choice: str, reason: str, detail: str
) -> None:
    power = start("--power", choice).ask("probe")["power"]
    assert power["reason"] == reason
    assert detail in power["detail"]


def test_the_uri_says_which_sensor() -> None:
    text = "ssh://pi@pi4.local?power=ina226:bus=1,addr=0x40,shunt_ohm=0.1"
    transport = open_transport(DeviceUri.parse(text), name="pi4")
    assert transport._agent_options == ("--power", "ina226:bus=1,addr=0x40,shunt_ohm=0.1")
    plain = open_transport(DeviceUri.parse("ssh://pi@pi4.local"), name="pi4")
    assert plain._agent_options == ()
