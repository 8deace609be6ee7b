"""Energy from a sensor that tells power: a child process polls it, the meter integrates.

A process of its own, on other cores than the measured network's: a thread would share its
interpreter. It stamps each reading with the board's monotonic clock and ends with its parent. Its
output is one line per reading: time in ns, microwatts, its own processor time in ns; or ``! code
sentence``. Its input is the seconds between readings, whenever they change.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from device_agents import power
from device_agents.agent import process
from device_agents.power.meter import Marks, Meter, SensorError

GAP_PERIODS = 5.0
_REPEAT = 0.8
"""An equal reading sooner than this share of a period is the same one, read twice."""
_START_S = 20.0
_OVERHEAD_S = 3.0
_SLOWER = 4.0


class Integrator:
    """Trapezoids over readings, on their own time stamps.

    Attributes:
        period_s: time between fresh readings.
        updates, changes, gaps, power_sum_uw: see `Marks`.
        last_ns: when the last reading was taken; None before the first.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.updates = self.changes = self.gaps = 0
        self.power_sum_uw = 0.0
        self.last_ns = None  # type: int | None
        self._last_uw = self._total_uj = 0.0
        self._seen_ns = 0

    def add(self, t_ns: int, power_uw: float) -> None:
        """Take one reading."""
        if self.last_ns is not None:
            seen_s, fresh_s = (t_ns - self._seen_ns) / 1e9, (t_ns - self.last_ns) / 1e9
            self.gaps += seen_s > GAP_PERIODS * self.period_s
            self._seen_ns = t_ns
            if power_uw == self._last_uw and fresh_s < _REPEAT * self.period_s:
                return
            self._total_uj += (power_uw + self._last_uw) / 2.0 * fresh_s
            self.changes += power_uw not in (0.0, self._last_uw)
        self.updates += 1
        self.power_sum_uw += power_uw
        self.last_ns = self._seen_ns = t_ns
        self._last_uw = power_uw

    def energy_uj(self, now_ns: int) -> float:
        """Microjoules since the first reading; since the last one its power is taken to go on."""
        if self.last_ns is None:
            return 0.0
        return self._total_uj + self._last_uw * max(0, now_ns - self.last_ns) / 1e9


class SampledMeter(Meter):
    """A meter over a power sensor; `power.open_counter` makes it."""

    def __init__(self, root: str, choice: str, found: dict[str, Any]) -> None:
        super().__init__(lambda: int, found)  # `_read` is ours: no reference to ourselves
        self.settle_s = 3.0 * self.period_s
        self._readings = Integrator(self.period_s)
        self._conversion = found["detail"]
        self._cpu_ns = self._late_ns = 0
        self._first_ns = 0
        self._overhead_mw = None  # type: float | None
        self._has_overhead = False
        self._rest = b""
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = "import sys; sys.path.insert(0, %r); from device_agents.power import sampled; "
        code += "sampled.poll(%r, %r, %d)"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code % (package, root, choice, os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._poll_every(self.period_s)
        with self._noting_faults():
            self._wait_for_first()

    def marks(self) -> Marks:
        """What has been seen so far."""
        self()
        seen = self._readings
        return Marks(seen.updates, seen.changes, seen.gaps, seen.power_sum_uw)

    def facts(self) -> dict[str, Any]:
        """What a record keeps: period, how the sensor converts, what polling it costs."""
        lasted_ns = max(1, self._late_ns - self._first_ns)
        return {
            "period_s": self.period_s,
            "conversion": self._conversion,
            "poll_cpu_share": self._cpu_ns / lasted_ns,
            "poll_overhead_mw": self._overhead_mw,
        }

    def measure_overhead(self) -> None:
        """Compare idle power with polling at its rate and at a quarter of it, once."""
        if self._has_overhead or self.period_s * _SLOWER > _OVERHEAD_S / 8.0:
            return
        self._has_overhead = True
        powers_mw = []
        for factor in (_SLOWER, 1.0):
            self._poll_every(self.period_s * factor)
            self._readings.period_s = self.period_s * factor
            time.sleep(self.settle_s * factor)
            before_uj, before_ns = self(), time.monotonic_ns()
            time.sleep(_OVERHEAD_S)
            powers_mw.append((self() - before_uj) * 1e6 / (time.monotonic_ns() - before_ns))
        # Three quarters of the readings are the difference.
        self._overhead_mw = (powers_mw[1] - powers_mw[0]) * _SLOWER / (_SLOWER - 1.0)

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def __del__(self) -> None:
        if hasattr(self, "_child"):
            self.close()

    # --- the pipe -----------------------------------------------------------------------------

    def _poll_every(self, period_s: float) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(b"%.6f\n" % period_s)
        self._child.stdin.flush()

    def _wait_for_first(self) -> None:
        end_s = time.monotonic() + _START_S
        while self._readings.last_ns is None:
            if time.monotonic() > end_s:
                raise SensorError("sensor_failed", "no reading within %d s" % _START_S)
            self._drain(0.1)
        self._first_ns = self._readings.last_ns

    def _read(self) -> int:
        self._drain(0.0)
        return int(self._readings.energy_uj(time.monotonic_ns()))

    def _drain(self, timeout_s: float) -> None:
        assert self._child.stdout is not None
        fd = self._child.stdout.fileno()
        while select.select([fd], [], [], timeout_s)[0]:
            data = os.read(fd, 65536)
            if not data:
                raise SensorError("sensor_failed", "the process that polls the sensor ended")
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                self._take(line)
            timeout_s = 0.0

    def _take(self, line: bytes) -> None:
        if line.startswith(b"!"):
            _, code, text = line.decode("utf-8", "replace").split(" ", 2)
            raise SensorError(code, text)
        t_ns, power_uw, cpu_ns = line.split()
        self._readings.add(int(t_ns), float(power_uw))
        self._cpu_ns, self._late_ns = int(cpu_ns), int(t_ns)


def poll(root: str, choice: str, parent_pid: int) -> None:
    """Run the child: read the sensor until the input ends."""
    process.die_with_parent(parent_pid)
    _leave_the_cores()
    try:
        read_uw = power.open_power(root, choice)
        period_s = 0.0
        next_s = None  # type: float | None
        cpu_ns = time.process_time_ns()  # starting up is not polling
        while True:
            wait_s = None if next_s is None else max(0.0, next_s - time.monotonic())
            if select.select([0], [], [], wait_s)[0] or next_s is None:
                words = os.read(0, 256).split()
                if not words:
                    return
                period_s, next_s = float(words[-1]), time.monotonic()
                continue
            begin_ns = time.monotonic_ns()
            power_uw = read_uw()
            middle_ns = (begin_ns + time.monotonic_ns()) // 2
            os.write(1, b"%d %.3f %d\n" % (middle_ns, power_uw, time.process_time_ns() - cpu_ns))
            # Not sooner than the sensor converts, also after a late one.
            next_s = max(next_s + period_s, time.monotonic() + _REPEAT * period_s)
    except BrokenPipeError:
        return
    except (OSError, SensorError) as exc:
        code = getattr(exc, "code", "sensor_failed")
        os.write(1, ("! %s %s\n" % (code, " ".join(str(exc).split()))).encode("utf-8"))


def _leave_the_cores() -> None:
    """Run on the cores our parent does not measure on, at normal priority."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
        if others:
            os.sched_setaffinity(0, others)
