"""INA219, INA226 and INA260 straight on the I2C bus, for a module wired to the board's supply.

``ina226:bus=1,addr=0x40,shunt_ohm=0.1,samples=16``: `bus` is N of /dev/i2c-N, `shunt_ohm` is not
asked for with an INA260 (it has its own), `samples` is what the chip averages. No other address is
touched.
Power is shunt voltage / resistance x bus voltage; the chips' calibration register is not used.
Registers and conversion times: TI's datasheets SBOS448 (INA219), SBOS547 (INA226), SBOS656
(INA260).
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Any, Callable

from device_agents import power

_I2C_SLAVE = 0x0703
_AVERAGES = {
    "ina219": (1, 2, 4, 8, 16, 32, 64, 128),
    "ina226": (1, 4, 16, 64, 128, 256, 512, 1024),
    "ina260": (1, 4, 16, 64, 128, 256, 512, 1024),
}
_CONVERSION_S = {"ina219": 532e-6, "ina226": 1.1e-3, "ina260": 1.1e-3}
"""Of one sample of one channel as `configuration` sets it; shunt and bus are sampled in turn."""
_DIE = {"ina226": 0x2260, "ina260": 0x2270}


def configuration(chip: str, samples: int) -> int:
    """The configuration register: continuous, shunt and bus, `samples` averaged (0 = one)."""
    index = _AVERAGES[chip].index(samples)
    if chip == "ina219":
        adc = 0x8 | index  # 12 bit; 32 V and 320 mV full scale
        return 0x3800 | adc << 7 | adc << 3 | 7
    fixed = 0x4000 if chip == "ina226" else 0x6000
    return fixed | index << 9 | 4 << 6 | 4 << 3 | 7


def power_uw(chip: str, shunt: int, bus: int, shunt_ohm: float) -> float:
    """Microwatts from the two registers (as unsigned 16 bit).

    Raises: SensorError "sensor_overflow" when the current is beyond the chip's range.
    """
    signed = shunt - 0x10000 if shunt & 0x8000 else shunt
    if chip == "ina219":
        if bus & 1:
            raise power.SensorError("sensor_overflow", "the INA219 reports an overflow")
        volts = (bus >> 3) * 4e-3
        amperes = signed * 10e-6 / shunt_ohm
    else:
        volts = bus * 1.25e-3
        amperes = signed * (1.25e-3 if chip == "ina260" else 2.5e-6 / shunt_ohm)
    if signed in (0x7FFF, -0x8000):
        raise power.SensorError("sensor_overflow", "the current is beyond the %s's range" % chip)
    return volts * amperes * 1e6


class Bus:
    """One chip on one bus."""

    def __init__(self, path: str, address: int) -> None:
        """Raises: OSError (EBUSY: a kernel driver has the chip, use hwmon)."""
        self._fd = os.open(path, os.O_RDWR)
        fcntl.ioctl(self._fd, _I2C_SLAVE, address)

    def read(self, register: int) -> int:
        """Value of a 16-bit register. Raises: OSError."""
        os.write(self._fd, bytes([register]))
        return int(struct.unpack(">H", os.read(self._fd, 2))[0])

    def write(self, register: int, value: int) -> None:
        """Raises: OSError."""
        os.write(self._fd, struct.pack(">BH", register, value))


def _settings(options: dict[str, str]) -> tuple[str, int, int, float, int]:
    chip = options["chip"]
    if "bus" not in options or "addr" not in options:
        text = "say where the chip is: %s:bus=1,addr=0x40,shunt_ohm=0.1" % chip
        raise power.SensorError("bad_option", text)
    shunt_ohm = power.number(options, "shunt_ohm", 0.0 if chip != "ina260" else 0.002)
    samples = power.number(options, "samples", 16)
    if shunt_ohm <= 0.0:
        raise power.SensorError("bad_option", "shunt_ohm is needed: it is printed on the resistor")
    if samples not in _AVERAGES[chip]:
        text = "samples=%d: the %s has %s" % (samples, chip, _AVERAGES[chip])
        raise power.SensorError("bad_option", text)
    bus, address = power.number(options, "bus", 0), power.number(options, "addr", 0)
    return chip, bus, address, shunt_ohm, samples


def describe(root: str, options: dict[str, str]) -> dict[str, Any]:
    """Set the chip up and return how it converts."""
    chip, bus, address, shunt_ohm, samples = _settings(options)
    try:
        _open(root, options)
    except (OSError, power.SensorError) as exc:
        fix = "sudo usermod -aG i2c $USER and log in again, or run the agent as root"
        return power.unreadable(chip, exc, fix)
    period_s = 2 * samples * _CONVERSION_S[chip]
    return power.answer(
        source=chip,
        scope="what is behind the %s at /dev/i2c-%d address 0x%02x" % (chip, bus, address),
        reason=None,
        detail="shunt %g ohm, %d samples averaged, %.1f ms" % (shunt_ohm, samples, period_s * 1e3),
        period_s=max(period_s, 0.005),
    )


def _open(root: str, options: dict[str, str]) -> Bus:
    chip, bus, address, _, samples = _settings(options)
    device = Bus(os.path.join(root, "dev/i2c-%d" % bus), address)
    if chip in _DIE and device.read(0xFF) & 0xFFF0 != _DIE[chip]:
        text = "the chip at 0x%02x is no %s: its id is 0x%04x" % (address, chip, device.read(0xFF))
        raise power.SensorError("bad_option", text)
    device.write(0, configuration(chip, samples))
    if device.read(0) != configuration(chip, samples):
        text = "the chip at 0x%02x does not keep its configuration: not an %s?" % (address, chip)
        raise power.SensorError("bad_option", text)
    return device


def open_power(root: str, options: dict[str, str]) -> Callable[[], float]:
    """Return a function that returns microwatts."""
    chip, _, _, shunt_ohm, _ = _settings(options)
    device = _open(root, options)
    return lambda: power_uw(chip, device.read(1), device.read(2), shunt_ohm)
