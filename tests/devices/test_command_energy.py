"""Energy from the gauge of a board without Python."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from command_rig import Rig, records_of
from local_board import LocalShell

from hwnas_sdk.testing.device import TINY


def test_energy_is_not_guessed(rig: Rig) -> None:
    with rig.open() as session:
        job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
        (item,) = session.measure(job).items
    assert item.energy_mj is None
    assert item.energy_reason == "no_sensor"


def _battery(rig: Rig, *, status: str = "Discharging", supply: str = "0") -> Path:
    """A gauge that a thread keeps moving; returns the folder that stands for the file system."""
    root = rig.folder / "root"
    gauge = root / "sys/class/power_supply/battery"
    plug = root / "sys/class/power_supply/usb"
    for folder, texts in (
        (gauge, {"type": "Battery", "status": status, "current_now": "-300000"}),
        (plug, {"type": "USB", "online": supply}),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n")
    (gauge / "voltage_now").write_text("4000000\n")
    return root


class _Phone(LocalShell):
    """A shell with another /sys/class/power_supply."""

    root = Path("/")

    def run(self, command, **options):
        self.environ["HWNAS_SYSROOT"] = str(self.root)
        return super().run(command, **options)


@pytest.mark.parametrize(("status", "supply"), [("Charging", "0"), ("Discharging", "1")])
def test_energy_is_refused_while_charging(rig: Rig, monkeypatch, status, supply) -> None:
    monkeypatch.setattr(_Phone, "root", _battery(rig, status=status, supply=supply))
    monkeypatch.setattr("command_rig.LocalShell", _Phone)
    with rig.open() as session:
        assert session.spec.power_reason == "charging"
        job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
        (item,) = session.measure(job).items
    assert (item.energy_mj, item.energy_reason) == (None, "charging")


@pytest.mark.slow
def test_energy_from_the_battery(rig: Rig, monkeypatch) -> None:
    """300 mA idle and 500 mA while the runner runs, 4 V: 1.2 W and 2.0 W."""
    root = _battery(rig)
    current = root / "sys/class/power_supply/battery/current_now"
    monkeypatch.setattr(_Phone, "root", root)
    monkeypatch.setattr("command_rig.LocalShell", _Phone)
    monkeypatch.setattr("hwnas_sdk.devices.command_files.IDLE_S", 3)
    monkeypatch.setattr("hwnas_sdk.devices.command_energy.ACTIVE_S", 6.0)
    over = threading.Event()

    def load() -> None:
        number = 0
        while not over.wait(0.1):
            number += 1
            runner = rig.work / "lease.d" / "runner"
            busy = runner.exists() and runner.read_text().strip()
            scratch = root / "now"
            scratch.write_text(f"{-(500_000 if busy else 300_000) + 500 * (number % 7)}\n")
            scratch.replace(current)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        with rig.open() as session:
            assert session.spec.power_source == "battery"
            job = rig.job("e", rig.item("a"), sentinel=None, settings=replace(TINY, energy=True))
            result = session.measure(job)
            record = records_of(session, job, result)["a"]
            assert session.recover(job).items == result.items
    finally:
        over.set()
        thread.join()
    energy = record.details["energy"]
    assert energy["reason"] is None
    assert energy["idle_before_mw"] == pytest.approx(1200.0, rel=0.05)
    assert energy["active_mw"] == pytest.approx(2000.0, rel=0.05)
    assert record.energy_mj == pytest.approx(2.0 * energy["loop_ms"], rel=0.05)
    assert record.energy_net_mj == pytest.approx(0.8 * energy["loop_ms"], rel=0.1)
    assert len(result.items[0].blocks) == TINY.max_blocks
