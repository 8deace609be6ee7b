"""Power sensors on fake file systems: which is taken, what it includes, why it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_families import RECORDED, program, text_of, tree

Modules = Callable[[str], Any]
HWMON = "sys/class/hwmon/hwmon"
ORIN_NANO = {
    f"{HWMON}3/name": "ina3221\n",
    f"{HWMON}3/in1_label": "VDD_IN\n",
    f"{HWMON}3/in1_input": "5000\n",
    f"{HWMON}3/curr1_input": "1200\n",
    f"{HWMON}3/in2_label": "VDD_CPU_GPU_CV\n",
    f"{HWMON}3/in2_input": "4992\n",
    f"{HWMON}3/curr2_input": "400\n",
    f"{HWMON}3/in3_label": "VDD_SOC\n",
    f"{HWMON}3/in3_input": "4992\n",
    f"{HWMON}3/curr3_input": "250\n",
    f"{HWMON}3/in7_label": "sum of shunt voltages\n",
    f"{HWMON}3/in7_input": "8\n",
}
"""After the kernel's documentation of ina3221, with the rails of a Jetson Orin Nano."""


@pytest.fixture
def power(agent_module: Modules, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("HWNAS_POWER", raising=False)
    return agent_module("power")


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Files that cannot be read, also not by root."""
    paths: set[str] = set()
    honest = open

    def guarded(file: Any, *arguments: Any, **options: Any) -> Any:
        if str(file) in paths:
            raise PermissionError(13, "Permission denied", str(file))
        return honest(file, *arguments, **options)

    monkeypatch.setattr("builtins.open", guarded)
    return lambda path: paths.add(str(path))


def test_nothing_is_found_on_an_empty_board(power: Any, tmp_path: Path) -> None:
    found = power.describe(str(tmp_path))
    assert found["reason"] == "no_sensor"
    assert power.open_counter(str(tmp_path)) is None


# --- hwmon --------------------------------------------------------------------------------------


def test_the_whole_module_is_taken_alone(power: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN_NANO)
    found = power.describe(root)
    assert found["source"] == "hwmon:ina3221"
    assert found["scope"] == "whole module (VDD_IN), without the carrier board"
    assert found["reason"] is None
    assert "VDD_SOC" in found["detail"]
    assert power.open_power(root)() == 5000 * 1200, "its parts are not added to it"


def test_rails_are_added_when_the_user_says_so(power: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN_NANO)
    choice = "hwmon:rail=VDD_CPU_GPU_CV+VDD_SOC"
    assert power.describe(root, choice)["scope"] == "what is behind VDD_CPU_GPU_CV+VDD_SOC"
    assert power.open_power(root, choice)() == 4992 * 400 + 4992 * 250
    found = power.describe(root, "hwmon:rail=VDD_CPU")
    assert found["reason"] == "bad_option"
    assert "VDD_CPU_GPU_CV" in found["detail"]


def test_rails_without_a_known_whole_are_not_guessed(power: Any, tmp_path: Path) -> None:
    labels = {"VDD_IN": "VIN_SYS_5V0", "VDD_SOC": "NC"}  # as on an AGX Orin
    files = {name: labels.get(text.strip(), text) for name, text in ORIN_NANO.items()}
    found = power.describe(tree(tmp_path, files))
    assert found["reason"] == "rail_unknown"
    assert found["detail"].endswith("VIN_SYS_5V0, VDD_CPU_GPU_CV")
    assert "hwmon:rail=" in found["hint"]


def test_a_single_ina226_is_what_is_behind_it(power: Any, tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            f"{HWMON}0/name": "cpu_thermal\n",
            f"{HWMON}0/temp1_input": "45000\n",
            f"{HWMON}1/name": "ina226\n",
            f"{HWMON}1/in0_input": "3\n",
            f"{HWMON}1/in1_input": "5100\n",
            f"{HWMON}1/curr1_input": "600\n",
            f"{HWMON}1/power1_input": "3062500\n",
            f"{HWMON}1/update_interval": "140\n",
        },
    )
    found = power.describe(root)
    assert found["source"] == "hwmon:ina226"
    assert found["scope"] == "what is behind ina226"
    assert found["period_s"] == 0.14, "polled no faster than it converts"
    assert power.open_power(root)() == 3062500.0


def test_jetpack_4_shows_rails_as_iio(power: Any, tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    names = ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")
    files = {f"{folder}/rail_name_{index}": f"{name}\n" for index, name in enumerate(names)}
    files |= {f"{folder}/in_power{index}_input": f"{1900 - index}\n" for index in range(3)}
    root = tree(tmp_path, files)
    assert power.describe(root)["scope"].startswith("whole module (POM_5V_IN)")
    assert power.open_power(root)() == 1900e3


def test_a_sensor_that_may_not_be_read_is_not_replaced(
    power: Any, tmp_path: Path, forbidden: Callable[[Path], None]
) -> None:
    root = tree(tmp_path, {**ORIN_NANO, **BATTERY})
    path = tmp_path / f"{HWMON}3/curr1_input"
    forbidden(path)
    found = power.describe(root)
    assert found["reason"] == "sensor_permission"
    assert str(path) in found["detail"]
    assert "chmod" in found["hint"]
    assert power.open_counter(root) is None


def test_a_sensor_that_says_something_else_has_no_power(power: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, {**ORIN_NANO, f"{HWMON}3/curr1_input": "1200 mA\n"})
    found = power.describe(root)
    assert found["reason"] == "parse_failed"
    assert "1200 mA" in found["detail"]


# --- batteries and phones -----------------------------------------------------------------------

SUPPLY = "sys/class/power_supply/"
BATTERY = {
    f"{SUPPLY}battery/type": "Battery\n",
    f"{SUPPLY}battery/status": "Discharging\n",
    f"{SUPPLY}battery/current_now": "-350000\n",
    f"{SUPPLY}battery/voltage_now": "4000000\n",
    f"{SUPPLY}usb/type": "USB\n",
    f"{SUPPLY}usb/online": "0\n",
}


def test_a_battery_is_the_whole_device(power: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, BATTERY)
    found = power.describe(root)
    assert found["source"] == "battery"
    assert found["scope"].startswith("whole device")
    assert power.open_power(root)() == pytest.approx(1.4e6), "the sign is not agreed on"


@pytest.mark.parametrize(
    "change", [{f"{SUPPLY}battery/status": "Full\n"}, {f"{SUPPLY}usb/online": "1\n"}]
)
def test_a_charging_battery_says_nothing(
    power: Any, agent_module: Modules, tmp_path: Path, change: dict[str, str]
) -> None:
    root = tree(tmp_path, BATTERY)
    read_uw = power.open_power(root)
    tree(tmp_path, change)
    assert power.describe(root)["reason"] == "charging"
    with pytest.raises(agent_module("power.meter").SensorError) as caught:
        read_uw()
    assert caught.value.code == "charging"


def test_a_current_in_another_unit_is_refused(power: Any, tmp_path: Path) -> None:
    found = power.describe(tree(tmp_path, {**BATTERY, f"{SUPPLY}battery/current_now": "350\n"}))
    assert found["reason"] == "sensor_failed"
    assert "too little for microamperes" in found["detail"]


ODPM = {
    "sys/bus/iio/devices/iio:device0/energy_value": text_of("android_odpm_energy_value.txt"),
    **BATTERY,
}


def test_odpm_counts_the_processor_rails(power: Any, agent_module: Modules, tmp_path: Path) -> None:
    root = tree(tmp_path, ODPM)
    found = power.describe(root)
    assert found["source"] == "odpm"
    assert found["scope"] == "rails S2M_VDD_CPUCL2+S3M_VDD_CPUCL1+S4M_VDD_CPUCL0"
    read_uj = power.open_counter(root)
    assert read_uj() == 0
    path = tmp_path / "sys/bus/iio/devices/iio:device0/energy_value"
    text = path.read_text()
    path.write_text(text.replace("30203502", "30204502").replace("21091363", "99999999"))
    assert read_uj() == 1000
    path.write_text(text)
    assert read_uj() == 1000
    assert read_uj.fault == ("sensor_failed", "the rails' counters went backwards")
    with pytest.raises(agent_module("power.meter").SensorError, match="energy_value"):
        agent_module("power.odpm").parse("t=1\nCH0 S1M 12\n")


def test_odpm_needs_root_and_no_cable(
    power: Any, tmp_path: Path, forbidden: Callable[[Path], None]
) -> None:
    root = tree(tmp_path, {**ODPM, f"{SUPPLY}usb/online": "1\n"})
    assert power.describe(root)["reason"] == "charging"
    tree(tmp_path, BATTERY)
    forbidden(tmp_path / "sys/bus/iio/devices/iio:device0/energy_value")
    found = power.describe(root)
    assert found["reason"] == "sensor_permission"
    assert "battery" in found["hint"]
    assert power.describe(root, "battery")["reason"] is None, "by choice, never by itself"
    assert power.describe(root, "odpm:rail=GPU")["reason"] == "sensor_permission"


# --- Raspberry Pi 5 -----------------------------------------------------------------------------


def test_the_pmic_adds_currents_with_their_voltages(agent_module: Modules) -> None:
    pmic, error = agent_module("power.pmic"), agent_module("power.meter").SensorError
    text = text_of("rpi5_pmic_read_adc.txt")
    by_hand = 0.091 * 3.7 + 0.085 * 3.31 + 0.18 * 1.805 + 0.22 * 1.105 + 0.06 * 0.6
    by_hand += 0.175 * 1.11 + 0.375 * 0.8 + 6.2 * 0.86 + 0.024 * 5.08
    assert pmic.parse_w(text) == pytest.approx(by_hand, abs=0.005)  # three rails of microamperes
    lines = text.splitlines(keepends=True)
    for broken in ("", "".join(lines[1:]), text.replace("0.37500000A", "oops"), text + "error\n"):
        with pytest.raises(error, match="pmic_read_adc"):
            pmic.parse_w(broken)


def test_a_pi_5_has_internal_rails_only(power: Any, tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"})
    found = power.describe(root)
    assert found["reason"] == "sensor_permission"
    assert "video" in found["hint"]
    program(tmp_path, "vcgencmd", f'cat "{RECORDED}/rpi5_pmic_read_adc.txt"\n')
    found = power.describe(root)
    assert found["source"] == "pmic"
    assert "internal rails only" in found["scope"]
    assert power.open_power(root)() == pytest.approx(6.88e6, rel=0.05)


# --- INA2xx on I2C ------------------------------------------------------------------------------


def test_registers_are_what_the_datasheets_say(agent_module: Modules) -> None:
    ina = agent_module("power.ina2xx_i2c")
    # INA219, SBOS448 table 8: a 20 mV shunt voltage is 0x07D0, 12 V is 0x5D98 >> 3 = 2995 x 4 mV.
    assert ina.power_uw("ina219", 0x07D0, 2995 << 3, 0.1) == pytest.approx(0.2 * 11.98 * 1e6)
    # INA226, SBOS547 7.5.1: 10 A over 2 mOhm is 0x1F40, 11.98 V is 0x2570.
    assert ina.power_uw("ina226", 0x1F40, 0x2570, 0.002) == pytest.approx(119.8e6)
    # INA260, SBOS656: 10 A is 0x1F40 (1.25 mA), 11.98 V is 0x2570.
    assert ina.power_uw("ina260", 0x1F40, 0x2570, 0.002) == pytest.approx(119.8e6)
    assert ina.power_uw("ina226", 0x10000 - 400, 4000, 0.1) == pytest.approx(-0.01 * 5.0 * 1e6)
    assert ina.configuration("ina219", 1) == 0x3C47
    assert ina.configuration("ina219", 128) == 0x3FFF
    assert ina.configuration("ina226", 1) == 0x4127, "its reset value"
    assert ina.configuration("ina260", 1) == 0x6127, "its reset value"
    error = agent_module("power.meter").SensorError
    for shunt, bus in ((0x7FFF, 8), (0x8000, 8), (100, 9)):
        with pytest.raises(error, match=r"overflow|range"):
            ina.power_uw("ina219", shunt, bus, 0.1)


def test_power_survives_the_registers(agent_module: Modules) -> None:
    ina = agent_module("power.ina2xx_i2c")
    chips = st.sampled_from(["ina219", "ina226", "ina260"])

    @given(chips, st.floats(-1.0, 3.0), st.floats(0.0, 16.0))
    def survives(chip: str, amperes: float, volts: float) -> None:
        lsb_a = {"ina219": 10e-6 / 0.02, "ina226": 2.5e-6 / 0.02, "ina260": 1.25e-3}[chip]
        lsb_v = 4e-3 if chip == "ina219" else 1.25e-3
        bus = round(volts / lsb_v) << (3 if chip == "ina219" else 0)
        found = ina.power_uw(chip, round(amperes / lsb_a) & 0xFFFF, bus, 0.02)
        tolerance = lsb_a * volts + lsb_v * abs(amperes) + lsb_a * lsb_v
        assert found == pytest.approx(amperes * volts * 1e6, abs=tolerance * 1e6)

    survives()


class FakeBus:
    """An INA226 as the bus shows it. The real one is `ina2xx_i2c.Bus` on /dev/i2c-N."""

    def __init__(self, path: str, address: int) -> None:
        if address != 0x40:
            raise OSError(121, "Remote I/O error", path)
        self.registers = {0: 0x4127, 1: 2000, 2: 4000, 0xFE: 0x5449, 0xFF: 0x2260}

    def read(self, register: int) -> int:
        return self.registers[register]

    def write(self, register: int, value: int) -> None:
        self.registers[register] = value


def test_a_chip_is_used_only_where_the_user_says(
    power: Any, agent_module: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    monkeypatch.setattr(agent_module("power.ina2xx_i2c"), "Bus", FakeBus)
    choice = "ina226:bus=1,addr=0x40,shunt_ohm=0.1,samples=64"
    found = power.describe(root, choice)
    assert found["reason"] is None
    assert found["scope"] == "what is behind the ina226 at /dev/i2c-1 address 0x40"
    assert "64 samples averaged, 140.8 ms" in found["detail"]
    assert found["period_s"] == pytest.approx(0.1408)
    assert power.open_power(root, choice)() == pytest.approx(0.05 * 5.0 * 1e6)
    for wrong, word in (
        ("ina226", "bus=1"),
        ("ina226:bus=1,addr=0x40", "shunt_ohm"),
        ("ina226:bus=1,addr=0x40,shunt_ohm=0.1,samples=3", "samples=3"),
        ("ina226:bus=1,addr=forty,shunt_ohm=0.1", "no number"),
        ("ina260:bus=1,addr=0x40", "no ina260"),
        ("wattmeter", "wattmeter"),
    ):
        refused = power.describe(root, wrong)
        assert refused["reason"] == "bad_option"
        assert word in refused["detail"]
        assert power.open_counter(root, wrong) is None
    assert power.describe(root, choice.replace("0x40", "0x41"))["reason"] == "sensor_failed"


def test_a_bus_that_is_not_there_says_so(power: Any, tmp_path: Path) -> None:
    found = power.describe(str(tmp_path), "ina260:bus=7,addr=0x40")
    assert found["reason"] == "sensor_failed"
    assert os.fspath(tmp_path / "dev/i2c-7") in found["detail"]


def test_the_environment_chooses(
    power: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, {**ORIN_NANO, **BATTERY})
    monkeypatch.setenv("HWNAS_POWER", "battery")
    assert power.describe(root)["source"] == "battery"
    monkeypatch.setenv("HWNAS_POWER", "none")
    assert power.describe(root)["reason"] == "no_sensor"
