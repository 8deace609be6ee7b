"""Names of processor cores: what /proc/cpuinfo of Arm and RISC-V leaves as numbers."""

from __future__ import annotations

import re

_PARTS = {
    (0x41, 0xC05): "Cortex-A5",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC08): "Cortex-A8",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x804): "Kryo 4xx Gold",
    (0x51, 0x805): "Kryo 4xx Silver",
}  # type: dict[tuple[int, int], str]
"""(implementer, part) of the MIDR register. Source: Linux, arch/arm64/include/asm/cputype.h."""


def cores(cpuinfo: str) -> str | None:
    """For example "4x Cortex-A53 + 2x Cortex-A72"; None for a text without such lines."""
    names = []
    for block in re.split(r"\n\s*\n", cpuinfo):
        fields = dict(re.findall(r"^([\w ]+?)\s*: *(.*)$", block, re.MULTILINE))
        if "CPU implementer" in fields and "CPU part" in fields:
            try:
                key = int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
            except ValueError:
                continue
            names.append(_PARTS.get(key, "Arm 0x%02x/0x%03x" % key))
        elif fields.get("uarch"):
            names.append(fields["uarch"])
    counts = ["%dx %s" % (names.count(name), name) for name in dict.fromkeys(names)]
    return " + ".join(counts) or None
