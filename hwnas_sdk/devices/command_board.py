"""What a board without Python is, and how it is: asked with a plain `sh` script.

Works on Android (toybox, mksh) and on any Linux with busybox or coreutils. The script prints one
fact per line; what a board lacks is simply not printed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hwnas_sdk.core.types import DeviceSpec, MachineKind
from hwnas_sdk.devices.command_conditions import AndroidConditions, read_conditions
from hwnas_sdk.devices.command_energy import SCOPE

TOOLS: Final = ("timeout", "setsid", "taskset", "nice", "flock", "sha256sum", "dumpsys")

_PROPERTIES: Final = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.model",
    "ro.board.platform",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.build.id",
    "ro.serialno",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)

PROBE_SCRIPT: Final = (
    r"""
# Reads with the shell itself: starting a program for each of hundreds of files takes seconds.
get() { v=; read -r v 2>/dev/null < "$1"; v=${v:--}; }
echo "machine $(uname -m)"; echo "kernel $(uname -r)"; echo "uid $(id -u)"
get /proc/sys/kernel/random/boot_id; echo "boot $v"
get /etc/machine-id; echo "machine_id $v"
echo "model $(tr -d '\000' < /proc/device-tree/model 2>/dev/null)"
echo "os $(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
while read -r k x _; do
  case $k in MemTotal:) echo "memory_kb $x";; MemAvailable:) echo "available_kb $x";; esac
done < /proc/meminfo
while read -r k x; do
  case $k in Cpus_allowed_list:) echo "allowed $x";; esac
done < /proc/self/status
get /proc/loadavg; echo "load $v"
echo "disk_kb $(df -k . 2>/dev/null | tail -n 1)"
grep -m 1 -E '^(model name|Hardware|Model)' /proc/cpuinfo | sed 's/^[^:]*: */cpu_name /'
grep -m 1 '^vendor_id' /proc/cpuinfo | sed 's/.*/vendor_id 1/'
grep -m 1 -o '^flags.* hypervisor' /proc/cpuinfo | sed 's/.*/hypervisor 1/'
sleep 1 </dev/null >/dev/null 2>&1 & echo "child $(readlink /proc/$!/exe 2>/dev/null)"
for d in /sys/devices/system/cpu/cpu[0-9]*; do
  get $d/online; [ "$v" = - ] && v=1; l="core ${d##*cpu} $v"
  for f in cpu_capacity cpufreq/cpuinfo_max_freq cpufreq/scaling_cur_freq cpufreq/scaling_governor
  do get $d/$f; l="$l $v"; done
  echo "$l"
done
for z in /sys/class/thermal/thermal_zone*; do
  get $z/type; k=$v; get $z/temp; [ "$v" != - ] && echo "zone $k $v"
done
for s in $HWNAS_SYSROOT/sys/class/power_supply/*; do
  get $s/type; [ "$v" = - ] && continue
  l="supply $s $v"; get $s/online; l="$l $v"; r=0
  for f in current_now voltage_now; do get $s/$f; [ "$v" != - ] && r=$((r + 1)); done
  get $s/status; echo "$l $r $v"
done
for t in """
    + " ".join(TOOLS)
    + r"""; do command -v $t >/dev/null 2>&1 && echo "tool $t"; done
if command -v getprop >/dev/null 2>&1; then
  for p in """
    + " ".join(_PROPERTIES)
    + r"""; do echo "prop $p $(getprop $p)"; done
fi
"""
)

_CPU_ZONE: Final = re.compile(r"cpu|soc|pkg|core|cluster|big|little", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Core:
    """One processor core; None where the board does not say."""

    number: int
    online: bool
    capacity: int | None
    max_khz: int | None
    now_khz: int | None
    governor: str | None


@dataclass(frozen=True, slots=True)
class Supply:
    """One entry of ``/sys/class/power_supply``."""

    path: str
    kind: str
    online: bool
    readable: bool
    status: str


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """What the probe script printed."""

    values: Mapping[str, str]
    properties: Mapping[str, str]
    cores: Sequence[Core]
    zones: Sequence[tuple[str, float]]
    tools: frozenset[str]
    conditions: AndroidConditions | None = field(default=None)
    supplies: Sequence[Supply] = ()

    @property
    def gauge(self) -> str | None:
        """Folder of the battery whose current and voltage can be read."""
        readable = (one.path for one in self.supplies if one.kind == "Battery" and one.readable)
        return next(readable, None)

    @property
    def charging(self) -> bool:
        """Whether anything but the battery supplies the board."""
        if self.conditions is not None and self.conditions.charging:
            return True
        return any(
            one.status not in {"Discharging", "-"} if one.kind == "Battery" else one.online
            for one in self.supplies
        )

    @property
    def power(self) -> dict[str, Any]:
        """Which sensor there is, or why none."""
        if self.gauge is None or self.charging:
            reason = "charging" if self.charging else "no_sensor"
            return {"source": None, "reason": reason}
        return {"source": "battery", "reason": None, "scope": SCOPE, "detail": self.gauge}

    @property
    def is_android(self) -> bool:
        """Whether it is Android (its properties answer)."""
        return bool(self.properties.get("ro.build.version.release"))

    @property
    def is_root(self) -> bool:
        """Whether commands run as root."""
        return self.values.get("uid") == "0"

    @property
    def machine(self) -> MachineKind:
        """Whether it is a real processor; the same rules as the agent's."""
        arch = self.values.get("machine", "")
        is_x86 = arch in {"x86_64", "amd64", "i386", "i586", "i686"}
        foreign = not is_x86 and "vendor_id" in self.values
        program = self.values.get("child", "").rsplit("/", 1)[-1]
        if foreign or (program.startswith("qemu-") and not program.startswith("qemu-system")):
            return "emulated"
        if "1" in {self.properties.get("ro.kernel.qemu"), self.properties.get("ro.boot.qemu")}:
            return "emulated"
        return "virtualised" if self.values.get("hypervisor") == "1" else "bare"


def parse_probe(text: str, *, dumps: Mapping[str, str]) -> BoardFacts:
    """Read what `PROBE_SCRIPT` printed, and the Android `dumps` beside it."""
    values: dict[str, str] = {}
    properties: dict[str, str] = {}
    cores: list[Core] = []
    zones: list[tuple[str, float]] = []
    tools: set[str] = set()
    supplies: list[Supply] = []
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        words = rest.split()
        if key == "prop" and len(words) >= 2:
            properties[words[0]] = " ".join(words[1:])
        elif key == "core" and len(words) == 6:
            cores.append(_core(words))
        elif key == "zone" and len(words) == 2 and _integer(words[1]) is not None:
            zones.append((words[0], float(words[1]) / 1e3))
        elif key == "supply" and len(words) >= 4:
            path, kind, online, readable = words[:4]
            supplies.append(Supply(path, kind, online == "1", readable == "2", " ".join(words[4:])))
        elif key == "tool" and words:
            tools.add(words[0])
        elif rest.strip() not in {"", "-"}:
            values[key] = rest.strip()
    conditions = read_conditions(dumps) if properties.get("ro.build.version.release") else None
    cores.sort(key=lambda core: core.number)
    return BoardFacts(values, properties, cores, zones, frozenset(tools), conditions, supplies)


def big_cores(facts: BoardFacts) -> tuple[int, ...]:
    """Online cores of the highest capacity (or clock), those this user may run on."""
    allowed = _core_list(facts.values.get("allowed", ""))
    usable = [
        core for core in facts.cores if core.online and (not allowed or core.number in allowed)
    ]
    for key in ("capacity", "max_khz"):
        known = {core.number: getattr(core, key) for core in usable}
        if usable and all(known.values()):
            best = max(known.values())
            return tuple(number for number, value in known.items() if value == best)
    return tuple(core.number for core in usable)


def mask_of(cores: Sequence[int]) -> str:
    """`taskset` mask of `cores`, hexadecimal without prefix (as toybox wants it)."""
    return f"{sum(1 << core for core in cores):x}"


def cores_of_mask(mask: str) -> tuple[int, ...]:
    """Cores of a hexadecimal mask. Raises: ValueError when it is none."""
    bits = int(mask, 16)
    if bits <= 0:
        raise ValueError(mask)
    return tuple(number for number in range(bits.bit_length()) if bits >> number & 1)


def spec_of(
    facts: BoardFacts, *, name: str, uri: str, runtimes: Mapping[str, Any], power: Mapping[str, Any]
) -> DeviceSpec:
    """Return what the board is."""
    device = _device(facts)
    return DeviceSpec(
        id=f"{name}@{device['fingerprint'][:8]}",
        name=name,
        uri=uri,
        family=device["family"],
        soc=device["soc"],
        cores=device["cores"],
        memory_mib=device["memory_mib"],
        machine=facts.machine,
        runtimes={key: str(value["version"]) for key, value in runtimes.items()},
        power_source=power.get("source"),
        power_reason=power.get("reason"),
        details={
            "device": device,
            "runtimes": dict(runtimes),
            "power": dict(power),
            "quiet": quiet_of(facts),
        },
    )


def _device(facts: BoardFacts) -> dict[str, Any]:
    properties, values = facts.properties, facts.values
    maker, model = properties.get("ro.product.manufacturer"), properties.get("ro.product.model")
    soc = (
        properties.get("ro.soc.model")
        or properties.get("ro.board.platform")
        or values.get("cpu_name")
        or values.get("model")
        or values.get("machine", "unknown")
    )
    identity = properties.get("ro.serialno") or values.get("machine_id") or values.get("boot", "")
    digest = hashlib.sha256("\n".join([identity, soc, str(len(facts.cores))]).encode())
    release = properties.get("ro.build.version.release")
    named = " ".join(part for part in (maker, model) if part)
    return {
        "family": "android" if facts.is_android else "linux",
        "model": named or values.get("model"),
        "soc": soc,
        "arch": values.get("machine", ""),
        "cores": max(len(facts.cores), 1),
        "memory_mib": (_integer(values.get("memory_kb", "")) or 0) // 1024,
        "machine": facts.machine,
        "os": f"Android {release}" if release else values.get("os"),
        "os_build": properties.get("ro.build.id"),
        "kernel": values.get("kernel"),
        "fingerprint": digest.hexdigest()[:16],
    }


def quiet_of(facts: BoardFacts) -> dict[str, bool]:
    """What may be set on this board."""
    return {
        "nice": facts.is_root and "nice" in facts.tools,
        "affinity": "taskset" in facts.tools,
        "governor": False,
    }


def environment_of(facts: BoardFacts, cores: Sequence[int]) -> dict[str, Any]:
    """How the board is now, by the names the agent uses; `cores` are those that measure."""
    used = [core for core in facts.cores if not cores or core.number in cores]
    governors = sorted({core.governor for core in used if core.governor})
    hot = [value for kind, value in facts.zones if _CPU_ZONE.search(kind) and 0.0 < value < 150.0]
    conditions = facts.conditions
    temperature_c = conditions.cpu_c if conditions is not None else None
    if temperature_c is None and hot:
        temperature_c = max(hot)
    disk = facts.values.get("disk_kb", "").split()
    available_kb = _integer(facts.values.get("available_kb", ""))
    load = facts.values.get("load", "").split()
    environment: dict[str, Any] = {
        "governor": "+".join(governors) or None,
        "freq_khz": [core.now_khz for core in used],
        "freq_max_khz": max((core.max_khz or 0 for core in used), default=0) or None,
        "temperature_c": temperature_c,
        "load1": float(load[0]) if load else None,
        "allowed_cores": [core.number for core in used],
        "memory_available_mib": None if available_kb is None else available_kb // 1024,
        # "filesystem 1K-blocks used available ...": the fourth, also where the line was wrapped.
        "disk_free_mib": (_integer(disk[-3]) or 0) // 1024 if len(disk) >= 5 else None,
    }
    if conditions is not None:
        environment["android"] = conditions.to_json()
    return environment


def _core(words: Sequence[str]) -> Core:
    number, online, capacity, max_khz, now_khz, governor = words
    return Core(
        int(number),
        online == "1",
        _integer(capacity),
        _integer(max_khz),
        _integer(now_khz),
        None if governor == "-" else governor,
    )


def _core_list(text: str) -> set[int]:
    """Numbers of a list like "0-3,6"."""
    numbers: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit():
            numbers.update(range(int(low), int(high if high.isdigit() else low) + 1))
    return numbers


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
