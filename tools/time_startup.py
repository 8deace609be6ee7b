"""How long `hwnas --help` and `import hwnas_sdk` take, whole process, median of many.

    python tools/time_startup.py [--repeat 20] [--json]

Limits (issue 2): 300 ms each, without torch. No test asserts these times; machines differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python_ms": ["-c", "pass"],
    "import_hwnas_sdk_ms": ["-c", "import hwnas_sdk"],
    "hwnas_help_ms": ["-m", "hwnas_sdk.cli.main", "--help"],
}


def time_ms(arguments: list[str], repeat: int) -> float:
    """Median wall time of a process in milliseconds; the first run only warms the disk cache."""
    taken_ms = []
    for _ in range(repeat + 1):
        start_ns = time.perf_counter_ns()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return statistics.median(taken_ms[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20, help="processes per figure")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    figures = {name: time_ms(arguments, options.repeat) for name, arguments in COMMANDS.items()}
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure_ms in figures.items():
            print(f"{name:22} {figure_ms:7.1f}")


if __name__ == "__main__":
    main()
