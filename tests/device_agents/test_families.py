"""What the board families read: parsers on the texts boards print, facts on fake file systems."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

Modules = Callable[[str], Any]
RECORDED = Path(__file__).with_name("recorded")


def text_of(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(root)


def program(root: Path, name: str, script: str) -> None:
    """Put a tool below a fake root."""
    path = root / "usr/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script, encoding="utf-8")
    path.chmod(0o755)


def says(root: Path, name: str, answers: dict[str, str]) -> None:
    """A tool that answers to its arguments with recorded texts, and fails on anything else."""
    cases = "".join(
        f'"{arguments}") cat "{RECORDED / file}" ;;\n' for arguments, file in answers.items()
    )
    program(root, name, f'case "$*" in\n{cases}*) exit 64 ;;\nesac\n')


@pytest.fixture
def describe(agent_module: Modules, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """The probe's description, as on an Arm board (x86 is told by the machine alone)."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    return cast("Callable[[str], Any]", agent_module("agent.board").describe)


def refused(parser: Callable[[str], object], text: str) -> bool:
    """Whether a parser says that it does not understand, instead of guessing."""
    try:
        parser(text)
    except ValueError:
        return True
    return False


def test_every_recorded_text_says_where_it_is_from() -> None:
    origins = text_of("ORIGINS.md")
    for path in RECORDED.glob("*.txt"):
        assert f"| `{path.name}` |" in origins


# --- Raspberry Pi -------------------------------------------------------------------------------

PI4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
}
SYSFS = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def pi(agent_module: Modules) -> Any:
    return agent_module("raspberry_pi.board")


def test_throttle_bits_have_names(agent_module: Modules) -> None:
    parse = agent_module("raspberry_pi.parse")
    now, sticky = parse.throttled(text_of("rpi_get_throttled.txt"))
    assert now == ["under_voltage", "throttled"]
    assert sticky == ["under_voltage", "throttled"]
    assert parse.throttled("throttled=0x0") == ([], [])
    assert parse.throttled("80008") == (["soft_temperature_limit"],) * 2
    assert parse.throttled("throttled=0x20002") == (["frequency_capped"],) * 2


@pytest.mark.parametrize("text", ["", "throttled=", "0x0 error", "VCHI initialization failed"])
def test_throttle_text_of_another_form_is_no_number(agent_module: Modules, text: str) -> None:
    assert refused(agent_module("raspberry_pi.parse").throttled, text)


def test_firmware_texts(agent_module: Modules) -> None:
    parse = agent_module("raspberry_pi.parse")
    assert parse.version(text_of("rpi5_version.txt")) == "2024/09/23 (26826259)"
    assert parse.version(text_of("rpi4_version.txt")) == "Oct 17 2023 (30f0c5e4)"
    assert parse.version(text_of("rpi5_bootloader_version.txt")) == "2023/10/18 (8ba17717)"
    assert parse.clock_hz("frequency(48)=1500398464") == 1500398464
    assert parse.temperature_c("temp=62.3'C") == 62.3
    for parser in (parse.version, parse.clock_hz, parse.temperature_c):
        assert refused(parser, text_of("rpi_no_permission.txt"))


def test_a_raspberry_pi_is_described(describe: Callable[[str], Any], tmp_path: Path) -> None:
    root = tree(tmp_path, PI4)
    says(
        tmp_path,
        "vcgencmd",
        {"version": "rpi4_version.txt", "bootloader_version": "rpi5_bootloader_version.txt"},
    )
    found = describe(root)
    assert found["family"] == "raspberry_pi"
    assert found["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert found["soc"] == "BCM2711"
    assert found["firmware"] == "Oct 17 2023 (30f0c5e4)"
    assert found["bootloader"] == "2023/10/18 (8ba17717)"


def test_a_firmware_text_that_is_not_understood_is_kept(pi: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, PI4)
    program(tmp_path, "vcgencmd", "echo 'temp=hot'\n")
    found = pi.environment(root)
    assert found["core_temperature_c"] is None
    assert found["core_temperature_c_error"] == "parse_failed"
    assert found["core_temperature_c_raw"] == "temp=hot"


def test_throttle_state_comes_from_the_best_source(pi: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, PI4)
    assert pi.throttle_state(root) is None
    hwmon = "sys/class/hwmon/hwmon1"
    tree(tmp_path, {f"{hwmon}/name": "rpi_volt\n", f"{hwmon}/in0_lcrit_alarm": "1\n"})
    assert pi.throttle_state(root)["now"] == ["under_voltage"]
    tree(tmp_path, {SYSFS: "20000\n"})
    state = pi.throttle_state(root)
    assert (state["now"], state["sticky"]) == ([], ["frequency_capped"])
    assert state["source"] == "sysfs"
    says(tmp_path, "vcgencmd", {"get_throttled": "rpi_get_throttled.txt"})
    state = pi.throttle_state(root)
    assert state["source"] == "vcgencmd"
    assert state["now"] == ["under_voltage", "throttled"]


def test_a_throttle_text_that_is_not_understood_is_kept(pi: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, PI4)
    says(tmp_path, "vcgencmd", {"get_throttled": "rpi_no_permission.txt"})
    state = pi.throttle_state(root)
    assert (state["now"], state["sticky"]) == ([], [])
    assert state["error"] == "parse_failed"
    assert state["raw"] == "VCHI initialization failed"


# --- Jetson -------------------------------------------------------------------------------------

ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": text_of("jetson_nv_tegra_release.txt"),
    "var/lib/dpkg/status": text_of("jetson_dpkg_status.txt"),
}


@pytest.fixture
def jetson(agent_module: Modules) -> Any:
    return agent_module("jetson.board")


def test_nvidia_texts(agent_module: Modules) -> None:
    parse = agent_module("jetson.parse")
    assert parse.l4t(text_of("jetson_nv_tegra_release.txt")) == "35.4.1"
    assert parse.jetpack(text_of("jetson_dpkg_status.txt")) == "5.1.2-b104"
    assert parse.jetpack("Package: other\nVersion: 1\n") is None
    assert parse.nvpmodel(text_of("jetson_nvpmodel_user.txt")) == ("5W", 1)
    assert parse.nvpmodel(text_of("jetson_nvpmodel_xavier.txt")) == ("MODE_15W_6CORE", 2)
    for parser in (parse.l4t, parse.nvpmodel, parse.clocks):
        assert refused(parser, "Error: please run as root\n")
    assert refused(parse.nvpmodel, "NV Power Mode: 5W\n")


def test_clocks_are_locked_when_no_core_has_a_choice(agent_module: Modules) -> None:
    parse = agent_module("jetson.parse")
    locked = parse.clocks(text_of("jetson_clocks_nano.txt"))
    assert locked["locked"], "cores that are off do not count"
    assert locked["gpu_hz"] == 640000000
    assert locked["fan"] == "speed=255"
    free = parse.clocks(text_of("jetson_clocks_orin_nano.txt"))
    assert not free["locked"]
    assert free["governors"] == "schedutil"
    assert free["emc_hz"] == 665600000
    assert free["fan"] == "Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69"


def test_a_jetson_is_described(describe: Callable[[str], Any], jetson: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    found = describe(root)
    assert found["family"] == "jetson"
    assert found["soc"] == "tegra234"
    assert found["l4t"] == "35.4.1"
    assert found["jetpack"] == "5.1.2-b104"
    says(tmp_path, "nvpmodel", {"-q": "jetson_nvpmodel_user.txt"})
    says(tmp_path, "jetson_clocks", {"--show": "jetson_clocks_orin_nano.txt"})
    facts = jetson.environment(root)
    assert (facts["power_mode"], facts["power_mode_id"]) == ("5W", 1)
    assert facts["clocks_locked"] is False
    says(tmp_path, "jetson_clocks", {"--show": "rpi_no_permission.txt"})
    facts = jetson.environment(root)
    assert facts["clocks_error"] == "parse_failed"
    assert "clocks_locked" not in facts


def test_jetson_throttling(jetson: Any, tmp_path: Path) -> None:
    thermal = "sys/class/thermal/cooling_device"
    root = tree(
        tmp_path,
        {
            **ORIN,
            f"{thermal}0/type": "pwm-fan\n",
            f"{thermal}0/cur_state": "3\n",
            f"{thermal}1/type": "cpu-throttle-alert\n",
            f"{thermal}1/cur_state": "0\n",
            "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
            "sys/class/hwmon/hwmon2/oc3_event_cnt": "0\n",
        },
    )
    assert jetson.throttle_count(root, [0]) == 0
    state = jetson.throttle_state(root)
    assert (state["now"], state["sticky"]) == ([], []), "a fan is no throttling"
    tree(tmp_path, {f"{thermal}1/cur_state": "1\n", "sys/class/hwmon/hwmon2/oc3_event_cnt": "2\n"})
    assert jetson.throttle_count(root, [0]) == 2
    state = jetson.throttle_state(root)
    assert state["now"] == ["cpu-throttle-alert"]
    assert state["sticky"] == ["over_current"]
    assert "oc3_event_cnt=2" in state["raw"]
    assert jetson.throttle_count(tree(tmp_path / "bare", ORIN), [0]) is None


CLOCKS_TOOL = """
state=%s/clocks_state
case "$1" in
--store) [ -e "$2" ] && exit 1; cp "$state" "$2" ;;
--restore) cp "$2" "$state" ;;
"") echo max > "$state" ;;
esac
"""


def test_jetson_clocks_and_fan_are_restored_by_their_name_and_text(
    jetson: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fan = "sys/class/hwmon/hwmon0"
    root = tree(tmp_path, {**ORIN, f"{fan}/name": "pwmfan\n", f"{fan}/pwm1": "69\n"})
    state = tmp_path / "clocks_state"
    state.write_text("cpu0/min_freq:729600\ncpu0/max_freq:1510400\n")
    program(tmp_path, "jetson_clocks", CLOCKS_TOOL % tmp_path)
    before = {}
    for action in jetson.quiet_actions(root):
        before[action.name] = action.read()
        action.write(action.quiet)
    assert state.read_text() == "max\n"
    assert (tmp_path / fan / "pwm1").read_text() == "255"
    assert before["jetson_clocks"].startswith("cpu0/min_freq:729600")
    for action in reversed(jetson.quiet_actions(root)):  # as another process would
        action.write(before[action.name])
    assert state.read_text() == "cpu0/min_freq:729600\ncpu0/max_freq:1510400\n"
    assert (tmp_path / fan / "pwm1").read_text() == "69"


def test_jetson_clocks_are_left_alone_without_root(
    jetson: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    root = tree(tmp_path, ORIN)
    program(tmp_path, "jetson_clocks", CLOCKS_TOOL % tmp_path)
    (clocks,) = jetson.quiet_actions(root)
    assert clocks.read() is None
    program(tmp_path, "jetson_clocks", "exit 1\n")
    with pytest.raises(OSError, match="jetson_clocks"):
        clocks.write(clocks.quiet)


# --- Android ------------------------------------------------------------------------------------


@pytest.fixture
def phone(agent_module: Modules, tmp_path: Path) -> tuple[Any, str]:
    """A phone whose adb shell user may ask everything."""
    root = tree(tmp_path, {"system/bin/getprop": ""})
    says(tmp_path, "getprop", {"": "android_getprop.txt"})
    answers = {
        "thermalservice": "android_thermalservice.txt",
        "battery": "android_battery_usb.txt",
        "power": "android_power.txt",
    }
    says(tmp_path, "dumpsys", answers)
    return agent_module("android.board"), root


def test_android_texts(agent_module: Modules) -> None:
    parse = agent_module("android.parse")
    assert parse.thermal_status(text_of("android_thermalservice.txt")) == "none"
    hot = text_of("android_thermalservice.txt").replace("Thermal Status: 0", "Thermal Status: 3")
    assert parse.thermal_status(hot) == "severe"
    plugged = parse.battery(text_of("android_battery_usb.txt"))
    assert plugged == {"level_pct": 100, "charging": True, "temperature_c": 27.4}
    running = parse.battery(text_of("android_battery_discharging.txt"))
    assert running == {"level_pct": 67, "charging": False, "temperature_c": 33.7}
    assert parse.wakefulness(text_of("android_power.txt")) == "Asleep"
    properties = parse.properties(text_of("android_getprop.txt"))
    assert properties["ro.product.model"] == "Pixel 6"
    assert properties["ro.build.description"] == "oriole-user 14\nrelease-keys"
    denied = text_of("android_permission_denial.txt")
    for parser in (parse.thermal_status, parse.battery, parse.wakefulness, parse.properties):
        assert refused(parser, denied)


def test_a_phone_is_described(describe: Callable[[str], Any], phone: Any, tmp_path: Path) -> None:
    android, root = phone
    cpu = "sys/devices/system/cpu/cpu%d/cpu_capacity"
    tree(tmp_path, {cpu % 0: "160\n", cpu % 1: "1024\n"})
    found = describe(root)
    assert found["family"] == "android"
    assert found["model"] == "Google Pixel 6"
    assert found["soc"] == "Google GS101"
    assert found["os"] == "Android 14"
    assert found["sdk"] == 34
    assert found["big_cores"] == [1]
    facts = android.environment(root)
    assert facts["thermal_status"] == "none"
    assert facts["battery_charging"] is True
    assert facts["battery_level_pct"] == 100
    assert facts["screen"] == "Asleep"
    assert android.throttle_state(root)["now"] == []


def test_what_termux_may_not_ask_is_said_not_faked(phone: Any, tmp_path: Path) -> None:
    android, root = phone
    program(tmp_path, "dumpsys", f'cat "{RECORDED / "android_permission_denial.txt"}"\n')
    facts = android.environment(root)
    assert facts["thermal_status"] is None
    assert "battery_charging" not in facts
    assert facts["dumpsys_battery_error"].startswith("permission")
    assert android.throttle_state(root)["error"] == "permission"
    program(tmp_path, "dumpsys", "echo Thermal Status: hot\n")
    assert android.throttle_state(root)["error"] == "parse_failed"
    program(tmp_path, "dumpsys", "exit 255\n")
    assert android.throttle_state(root) is None


def test_a_warm_phone_throttles(phone: Any, tmp_path: Path) -> None:
    android, root = phone
    program(tmp_path, "dumpsys", "echo 'Thermal Status: 2'\n")
    assert android.throttle_state(root)["now"] == ["thermal_moderate"]


# --- everything else ----------------------------------------------------------------------------


def test_cores_have_names(agent_module: Modules) -> None:
    cores = agent_module("linux.parse").cores
    assert cores(text_of("linux_cpuinfo_rk3399.txt")) == "1x Cortex-A53 + 1x Cortex-A72"
    assert cores(text_of("linux_cpuinfo_visionfive2.txt")) == "2x sifive,u74-mc"
    assert cores("CPU implementer : 0x48\nCPU part : 0xd01\n") == "1x Arm 0x48/0xd01"
    assert cores("model name : Some CPU\n") is None


def test_a_board_nobody_knows_is_described(agent_module: Modules, tmp_path: Path) -> None:
    linux = agent_module("linux.board")
    assert linux.matches(str(tmp_path))
    root = tree(
        tmp_path,
        {
            "proc/device-tree/model": "Radxa ROCK 4C+\0",
            "proc/cpuinfo": text_of("linux_cpuinfo_rk3399.txt"),
            "sys/devices/soc0/family": "Rockchip\n",
            "sys/devices/soc0/soc_id": "RK3399\n",
        },
    )
    found = linux.describe(root)
    assert found["model"] == "Radxa ROCK 4C+"
    assert found["soc"] == "Rockchip RK3399 (1x Cortex-A53 + 1x Cortex-A72)"
    assert found["family"] == platform.machine()
    assert "soc" not in linux.describe(str(tmp_path / "nothing"))


def test_no_parser_answers_to_noise(agent_module: Modules) -> None:
    parsers = [
        getattr(agent_module(f"{family}.parse"), name)
        for family, names in {
            "raspberry_pi": ("throttled", "clock_hz", "temperature_c", "version"),
            "jetson": ("l4t", "nvpmodel", "clocks"),
            "android": ("properties", "thermal_status", "battery", "wakefulness"),
        }.items()
        for name in names
    ]

    @given(st.text(alphabet=" \n:=()[]'%#xyz", max_size=60))
    def refuses(noise: str) -> None:
        for parser in parsers:
            assert refused(parser, noise)

    refuses()
