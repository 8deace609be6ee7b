"""The energy windows end to end: real agent, real network, a counter that really counts."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from agent_harness import SETTINGS, Agent, conv_net, of


@pytest.mark.alone
@pytest.mark.slow
def test_energy_windows_of_a_real_job(start: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    zone = root / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("9999999\n")  # wraps every second or so
    counter = zone / "energy_uj"
    counter.write_text("0\n")
    over = threading.Event()
    power_w = [4.0]

    def count() -> None:
        last_s, total_uj = time.monotonic(), 0.0
        while not over.wait(0.005):
            now_s = time.monotonic()
            total_uj += (now_s - last_s) * power_w[0] * 1e6
            last_s = now_s
            scratch = zone / "scratch"
            scratch.write_text(f"{int(total_uj) % 10_000_000}\n")
            scratch.replace(counter)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        agent: Agent = start("--sysroot", str(root))
        assert agent.ask("probe")["power"]["source"] == "rapl"
        agent.take_lease()
        settings = {**SETTINGS, "energy": True}
        agent.measure("energy", [agent.put(conv_net(32, 32))], settings=settings)
        agent.follow("energy", lambda event: event["event"] == "block" and event["block"] == 2)
        time.sleep(10.3)  # the idle window
        power_w[0] = 9.0
        time.sleep(9.5)
        power_w[0] = 4.0
        events = agent.follow("energy")
    finally:
        over.set()
        thread.join()
    energy = of(events, "finished")[0]["energy"]
    assert energy["sensor"] == "rapl"
    assert energy["scope"] == "package"
    assert energy["reason"] in {None, "idle_drift"}, energy
    assert energy["idle_before_mw"] == pytest.approx(4000.0, rel=0.1)
    assert energy["active_mw"] == pytest.approx(9000.0, rel=0.15)
    per_run_mj = energy["active_mw"] * energy["loop_ms"] / 1e3
    assert energy["gross_mj"] == pytest.approx(per_run_mj, rel=0.01)
    assert energy["n"] >= 200
    assert energy["window_s"] >= 10.0


@pytest.mark.alone
@pytest.mark.slow
def test_energy_of_a_sensor_that_tells_power(start: Any, tmp_path: Path) -> None:
    """A module that draws 5 W while its worker computes, 2 W otherwise."""
    folder = tmp_path / "root/sys/class/hwmon/hwmon0"
    folder.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000")):
        (folder / name).write_text(f"{text}\n")
    current = folder / "curr1_input"
    current.write_text("400\n")
    over = threading.Event()
    worker = [0]
    noise = random.Random(0)

    def live() -> None:
        last_ticks, busy_s = 0, 0.0
        while not over.wait(0.005):
            if worker[0]:
                stat = Path(f"/proc/{worker[0]}/stat").read_text().rpartition(")")[2].split()
                ticks = int(stat[11]) + int(stat[12])
                if ticks > last_ticks:  # one of ten milliseconds, so it is seen with some delay
                    last_ticks, busy_s = ticks, time.monotonic()
            power_mw = 5000.0 if time.monotonic() - busy_s < 0.15 else 2000.0
            scratch = folder / "scratch"
            scratch.write_text(f"{round(power_mw * noise.gauss(1.0, 0.005) / 5.0)}\n")
            scratch.replace(current)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        agent: Agent = start("--sysroot", str(tmp_path / "root"))
        assert agent.ask("probe")["power"]["source"] == "hwmon:ina3221"
        agent.take_lease()
        worker[0] = agent.worker_pid()
        settings = {**SETTINGS, "energy": True}
        nets = [agent.put(conv_net(32, 32))]
        events = agent.run("energy", nets, settings=settings, deadline_s=150.0)
    finally:
        over.set()
        thread.join()
    energy = of(events, "finished")[0]["energy"]
    assert energy["sensor"] == "hwmon:ina3221"
    assert energy["scope"].startswith("whole module (VDD_IN)")
    # A busy machine may delay the poller; then it says so.
    assert energy["reason"] in {None, "idle_drift", "sensor_gap"}, energy
    assert energy["idle_before_mw"] == pytest.approx(2000.0, rel=0.05)
    assert energy["active_mw"] == pytest.approx(5000.0, rel=0.05)
    assert energy["n_updates"] >= 100
    assert energy["window_s"] >= 10.0
    assert energy["poll_cpu_share"] < 0.2
    if energy["reason"] != "sensor_gap":
        per_run_mj = 5000.0 * energy["loop_ms"] / 1e3
        assert energy["gross_mj"] == pytest.approx(per_run_mj, rel=0.05)
