"""Single modules of the agent, on recorded /sys and /proc trees and with seeded numbers."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from agent_harness import SETTINGS
from hypothesis import given
from hypothesis import strategies as st

from hwnas_sdk.core import stats

REPO = Path(__file__).resolve().parents[2]
Modules = Callable[[str], Any]


def tree(root: Path, files: dict[str, str]) -> str:
    """Write a fake root file system; returns its path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return str(root)


def rapl(root: Path, **energies: int) -> str:
    """Two packages with core and DRAM zones, the platform zone, and the second access path."""
    base = "sys/class/powercap"
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    files = {}
    for zone, name in zones.items():
        files[f"{base}/{zone}/name"] = name
        files[f"{base}/{zone}/energy_uj"] = str(energies.get(name.replace("-", "_"), 1000))
        files[f"{base}/{zone}/max_energy_range_uj"] = "262143328850"
    return tree(root, files)


# --- energy -------------------------------------------------------------------------------------


def test_rapl_adds_packages_and_dram_only(agent_module: Modules, tmp_path: Path) -> None:
    root = rapl(tmp_path)
    found = agent_module("power").describe(root)
    assert found["source"] == "rapl"
    assert found["reason"] is None
    assert found["scope"] == "package+dram"
    read_uj = agent_module("power").open_counter(root)
    assert read_uj() == 0
    rapl(tmp_path, package_0=1500, dram=1070, package_1=1001, core=9999, psys=9999)
    assert read_uj() == 500 + 70 + 1
    assert read_uj() == 571


def test_rapl_counters_wrap(agent_module: Modules, tmp_path: Path) -> None:
    root = rapl(tmp_path, package_0=262143328849)
    read_uj = agent_module("power").open_counter(root)
    rapl(tmp_path, package_0=9)
    assert read_uj() == 11, "two steps to the end, one to 0, nine more... minus the start"


def test_rapl_that_is_not_readable_names_file_and_fix(
    agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = rapl(tmp_path)
    module = agent_module("power.rapl")
    denied = str(tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj")
    honest = module._read

    def read(path: str) -> str:  # root reads everything, whatever the mode says
        if path == denied:
            raise PermissionError(13, "Permission denied", path)
        return str(honest(path))

    monkeypatch.setattr(module, "_read", read)
    found = agent_module("power").describe(root)
    assert found["reason"] == "sensor_permission"
    assert denied in found["detail"]
    assert "chmod" in found["hint"]
    assert agent_module("power").open_counter(root) is None


def test_without_rapl_there_is_no_sensor(agent_module: Modules, tmp_path: Path) -> None:
    found = agent_module("power").describe(str(tmp_path))
    assert found["source"] is None
    assert found["reason"] == "no_sensor"
    assert "powercap" in found["detail"]
    assert agent_module("power").open_counter(str(tmp_path)) is None


class FakeMeter:
    """Time and energy that pass when somebody sleeps or runs."""

    def __init__(self, idle_mw: float, active_mw: float, run_s: float) -> None:
        self.now_ns = 1_000_000_000
        self.used_uj = 0.0
        self.idle_mw, self.active_mw, self.run_s = idle_mw, active_mw, run_s
        self.random = np.random.default_rng(0)

    def _pass(self, duration_s: float, power_mw: float) -> None:
        self.now_ns += round(duration_s * 1e9)
        self.used_uj += duration_s * 1e3 * power_mw * self.random.normal(1.0, 0.005)

    def sleep(self, duration_s: float) -> None:
        self._pass(duration_s, self.idle_mw)

    def run(self) -> None:
        self._pass(self.run_s, self.active_mw)

    def read_uj(self) -> int:
        return int(self.used_uj)

    def clock_ns(self) -> int:
        return self.now_ns


def energy_of(agent_module: Modules, meter: FakeMeter, after_mw: float | None = None) -> Any:
    energy = agent_module("agent.energy")
    clock = SimpleNamespace(
        monotonic_ns=meter.clock_ns, perf_counter_ns=meter.clock_ns, sleep=meter.sleep
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "time", clock)
        before = energy.idle_power(meter.read_uj, lambda: None)
        windows = energy.active_windows(meter.run, meter.read_uj, lambda: None)
        meter.idle_mw = after_mw or meter.idle_mw
        after = energy.idle_power(meter.read_uj, lambda: None)
    return energy.summarise(windows, before, after, meter.run_s * 1e9)


def test_energy_is_gross_net_and_their_errors(agent_module: Modules) -> None:
    found = energy_of(agent_module, FakeMeter(idle_mw=2000.0, active_mw=5000.0, run_s=0.004))
    assert found["reason"] is None
    assert found["gross_mj"] == pytest.approx(5000.0 * 0.004, rel=0.01)
    assert found["net_mj"] == pytest.approx(3000.0 * 0.004, rel=0.02)
    assert 0.0 < found["gross_se_mj"] < 0.01 * found["gross_mj"]
    assert found["net_se_mj"] >= found["gross_se_mj"]
    assert found["n"] >= 200
    assert found["n_windows"] >= 5
    assert found["window_s"] >= 10.0
    assert found["idle_window_s"] >= 20.0
    assert not found["loop_differs"]


def test_energy_that_cannot_be_trusted_is_none(agent_module: Modules) -> None:
    weak = energy_of(agent_module, FakeMeter(idle_mw=5000.0, active_mw=5005.0, run_s=0.004))
    assert weak["reason"] == "below_sensor_floor"
    assert weak["gross_mj"] is None
    drift = energy_of(agent_module, FakeMeter(2000.0, 9000.0, 0.004), after_mw=2500.0)
    assert drift["reason"] == "idle_drift"
    assert drift["net_mj"] is None
    assert drift["gross_mj"] is not None
    stuck = energy_of(agent_module, FakeMeter(0.0, 0.0, 0.004))
    assert stuck["reason"] == "sensor_stuck"


def test_slow_networks_end_their_energy_loop(agent_module: Modules) -> None:
    found = energy_of(agent_module, FakeMeter(2000.0, 5000.0, run_s=2.0))
    assert found["n"] < 200
    assert found["window_s"] <= 45.0


# --- what the machine is ------------------------------------------------------------------------

BARE = {
    "proc/cpuinfo": "model name\t: Some  CPU @ 2GHz\nflags\t\t: fpu sse2 avx2",
    "proc/meminfo": "MemTotal:       16307480 kB\nMemAvailable:   8000000 kB",
}


def test_machine_kinds(agent_module: Modules, tmp_path: Path) -> None:
    machine, board = agent_module("agent.machine"), agent_module("agent.board")
    bare = tree(tmp_path / "bare", BARE)
    assert machine.kind(bare, "x86_64") == "bare"
    assert board.describe(bare)["soc"] == "Some CPU @ 2GHz"
    assert board.describe(bare)["memory_mib"] == 15925

    flag = {**BARE, "proc/cpuinfo": "flags : fpu hypervisor"}
    assert machine.kind(tree(tmp_path / "flag", flag), "x86_64") == "virtualised"
    dmi = {**BARE, "sys/class/dmi/id/sys_vendor": "QEMU"}
    assert machine.kind(tree(tmp_path / "dmi", dmi), "x86_64") == "virtualised"
    xen = {**BARE, "sys/hypervisor/type": "xen"}
    assert machine.kind(tree(tmp_path / "xen", xen), "x86_64") == "virtualised"

    text = {**BARE, "proc/cpuinfo": "vendor_id\t: GenuineIntel\nflags : hypervisor"}
    assert machine.kind(tree(tmp_path / "qemu", text), "aarch64") == "emulated"
    child = tmp_path / "child"
    tree(child, {**BARE, "proc/77/comm": "python3"})
    (child / "proc/77/exe").symlink_to("/usr/bin/qemu-aarch64-static")
    assert machine.kind(str(child), "aarch64", 77) == "emulated"
    (child / "proc/77/exe").unlink()
    (child / "proc/77/exe").symlink_to("/usr/bin/qemu-system-x86_64")
    assert machine.kind(str(child), "x86_64", 77) == "bare"


def test_environment_of_a_board_that_tells_everything(
    agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, board = agent_module("agent.facts"), agent_module("agent.board")
    monkeypatch.setattr(facts, "allowed_cores", lambda: [0, 1])
    cpu = "sys/devices/system/cpu"
    root = tree(
        tmp_path,
        {
            f"{cpu}/cpu0/cpufreq/scaling_governor": "performance",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "powersave",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1800000",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "1500000",
            f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": "3000000",
            f"{cpu}/intel_pstate/no_turbo": "1",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3",
            f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "4",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": "51500",
            "sys/class/thermal/thermal_zone1/type": "iwlwifi_1",
            "sys/class/thermal/thermal_zone1/temp": "99000",
            "proc/loadavg": "0.50 0.40 0.30 1/100 1234",
            "proc/stat": "cpu 9 9 9 9\ncpu0 10 0 10 80 0 0 0 7\ncpu1 10 0 10 80 0 0 0 5 0 0",
            "proc/pressure/cpu": "some avg10=1.50 avg60=0.00 avg300=0.00 total=1",
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/cpu.max": "150000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        },
    )
    seen = facts.environment(root, str(tmp_path))
    assert seen["governor"] == "performance+powersave"
    assert seen["freq_khz"] == [1800000, 1500000]
    assert seen["freq_max_khz"] == 3000000
    assert seen["boost"] is False
    assert seen["temperature_c"] == 51.5
    assert seen["load1"] == 0.5
    assert seen["steal_s"] == pytest.approx(12 * facts.TICK_NS / 1e9)
    assert seen["pressure_cpu_pct"] == 1.5
    assert seen["cgroup_quota"] == 1.5
    assert board.throttle_count(root, [0]) == 7
    assert board.throttle_count(root, [1]) is None


def test_unreadable_facts_are_none(agent_module: Modules, tmp_path: Path) -> None:
    seen = agent_module("agent.facts").environment(str(tmp_path), str(tmp_path))
    for key in ("governor", "freq_khz", "freq_max_khz", "boost", "temperature_c", "load1"):
        assert seen[key] is None
    assert seen["steal_s"] is None
    assert seen["cgroup_quota"] is None


def test_cores_are_strong_idle_and_separate(agent_module: Modules, tmp_path: Path) -> None:
    quiet = agent_module("agent.quiet")
    cpu = "sys/devices/system/cpu"
    files = {}
    for core in range(6):
        files[f"{cpu}/cpu{core}/cpu_capacity"] = "400" if core < 2 else "1024"
        pair = {2: "2-3", 3: "2-3", 4: "4-5", 5: "4-5"}.get(core, str(core))
        files[f"{cpu}/cpu{core}/topology/thread_siblings_list"] = pair
    root = tree(tmp_path, files)
    allowed = list(range(6))
    assert quiet.pick(1, allowed, root, {5: 0.9, 4: 0.0, 3: 0.5, 2: 0.5}, None) == [4]
    assert quiet.pick(2, allowed, root, {}, None) == [3, 5]
    assert quiet.pick(1, [0, 1], root, {1: 0.8, 0: 0.1}, None) == [0]
    assert quiet.pick(1, allowed, root, {5: 0.0, 3: 0.2}, [3]) == [3], "no jump for little"
    assert quiet.pick(1, allowed, root, {5: 0.0, 3: 0.9}, [3]) == [5]
    assert len(quiet.pick(6, allowed, root, {}, None)) == 6


# --- precision and timing -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def precision(pyz: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pyz))
        from device_agents.agent import precision as module

        yield module


@given(st.lists(st.floats(1e3, 1e9), min_size=2, max_size=25))
def test_board_and_host_see_the_same_interval(precision: Any, medians: list[float]) -> None:
    half = stats.ci_half_width(np.array(medians))
    assert half is not None
    expected = half / statistics.median(medians)
    assert precision.ci_rel(medians) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_stop_rule(precision: Any) -> None:
    settings = {
        **SETTINGS, "min_blocks": 3, "max_blocks": 6, "min_timed_s": 0.0, "max_timed_s": 2.0,
        "ci_rel_target": 0.02,
    }  # fmt: skip
    calm, wild = [100.0, 100.5, 100.2], [100.0, 150.0, 300.0]
    assert precision.stop_reason(settings, calm[:2], 10**9)[0] is None
    reason, width = precision.stop_reason(settings, calm, 10**9)
    assert reason == "precision"
    assert width <= 0.02
    assert precision.stop_reason(settings, wild, 10**9)[0] is None
    assert precision.stop_reason(settings, wild, 2 * 10**9)[0] == "time"
    assert precision.stop_reason(settings, wild * 2, 10**9)[0] == "blocks"
    patient = {**settings, "min_timed_s": 5.0}
    assert precision.stop_reason(patient, calm, 10**9)[0] is None
    fixed = {**settings, "ci_rel_target": 0.0}
    assert precision.stop_reason(fixed, calm, 10**12)[0] is None
    assert precision.stop_reason(fixed, calm * 2, 1)[0] == "blocks"


def test_warm_up_ends_when_groups_agree_or_time_is_up(agent_module: Modules) -> None:
    timing = agent_module("agent.timing")
    clock = [0]
    settings = {**SETTINGS, "warmup_min_runs": 4, "warmup_group_runs": 2, "warmup_rel_tol": 0.02}
    durations: list[int] = []

    def run() -> None:
        clock[0] += durations.pop(0) if durations else 1000

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: clock[0]))
        durations = [5000, 5000, 3000, 3000, 1000, 1000]
        warmed, latency_ns = timing.warm_up(run, settings, 0.0, lambda: None)
        assert warmed == {"runs": 8, "duration_ns": 20_000, "converged": True}
        assert latency_ns == 1000.0
        durations = [10**9 * factor for factor in (1, 2, 4, 8)]
        slow = {**settings, "warmup_max_s": 5.0}
        warmed, latency_ns = timing.warm_up(run, slow, 0.0, lambda: None)
        assert warmed["runs"] == 3
        assert warmed["converged"] is False
        assert latency_ns == 4e9
    settings = {**settings, "max_timed_s": 2.0, "min_timed_s": 0.0, "min_blocks": 5}
    assert timing.n_runs({**settings, "block_min_runs": 10}, 1.2e9) == 1, "a slow network"
    assert timing.n_runs({**settings, "block_min_s": 0.1}, 1e6) == 50, "capped"


def test_outputs_are_compared_relative_to_their_size(agent_module: Modules) -> None:
    matches = agent_module("agent.bench").matches
    assert matches([1.0], None) is None
    assert matches([100.05, 0.001], [100.0, 0.0])
    assert not matches([100.2, 0.0], [100.0, 0.0])
    assert not matches([1.0], [1.0, 2.0])
    assert not matches([None], [1.0])


# --- the memory probe ---------------------------------------------------------------------------

CRASHING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from device_agents.agent import memory

class Runtime:
    class Session:
        def __init__(self, data, **_):
            if data == b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if data == b"refuse":
                raise ValueError("no such operator")
            self.ballast = b"x" * len(data)
        def run(self):
            pass
    @staticmethod
    def failure_of(exc):
        return "model_unsupported", str(exc)

zygote = memory.Zygote(Runtime)
for text in (b"crash", b"refuse", b"y" * (32 * 2**20), b""):
    with open(sys.argv[2], "wb") as stream:
        stream.write(text)
    zygote.request(path=sys.argv[2])
    print(zygote.result())
os.kill(zygote.pid, signal.SIGKILL)
zygote.request(path=sys.argv[2])
print(zygote.result())
"""


def test_a_network_that_crashes_the_runtime_takes_only_the_probe_with_it(
    pyz: Path, tmp_path: Path
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CRASHING, str(pyz), str(tmp_path / "net")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    crash, refusal, large, small, dead = (eval(line) for line in run.stdout.splitlines())
    assert crash == {"signal": 11}
    assert refusal == {"reason": "model_unsupported: no such operator"}
    assert large["peak"] - large["base"] > 60 * 2**20
    assert small["peak"] - small["base"] < 8 * 2**20
    assert "reason" in dead


# --- the package --------------------------------------------------------------------------------


def test_the_reference_lists_every_code(agent_module: Modules) -> None:
    text = (REPO / "device_agents" / "README.md").read_text(encoding="utf-8")
    protocol = agent_module("agent.protocol")
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert set(protocol.ERRORS) | set(protocol.ITEM_ERRORS) <= documented
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (REPO / "device_agents").rglob("*.py")
    )
    raised = set(re.findall(r'(?:RequestError|ModelError)\(\s*"([a-z_]+)"', sources))
    assert raised <= set(protocol.ERRORS) | set(protocol.ITEM_ERRORS)
    for request in re.findall(r"def _do_([a-z]+)", sources):
        assert f"### {request}" in text


def test_the_agent_stays_with_old_syntax_and_the_standard_library() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    if not vermin.exists():
        pytest.skip("vermin is not installed")
    command = [str(vermin), "--quiet", "--violations", "-t=3.8-", "--no-tips", "device_agents"]
    checked = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    for path in (REPO / "device_agents").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"(import|from) (?!__future__)", line):
                name = line.split()[1].split(".")[0]
                assert name == "device_agents" or name in sys.stdlib_module_names, path
