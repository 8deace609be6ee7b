"""How large the agent is, and how long from starting it to its answer to "hello".

    python tools/time_agent.py [--repeat 20] [--python PATH]... [--json]

Limits (issue 3): 100 KiB, and 0.3 s on the machine itself (not emulated).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hwnas_sdk.devices.agent_build import build_agent

_HELLO = b'{"id": 1, "type": "hello", "protocol": [1, 1], "owner": "time_agent"}\n'


def time_ms(python: str, agent: Path, work: Path, repeat: int) -> tuple[float, float]:
    """Median time to the first answer, and CPU time from start to end, in milliseconds.

    On a busy machine the second says more. The first start only warms the cache.
    """
    taken_ms, cpu_ms = [], []
    command = [python, str(agent), "--work", str(work), "--lease-dir", str(work)]
    for _ in range(repeat + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start_ns = time.perf_counter_ns()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_HELLO)
            process.stdin.flush()
            reply = json.loads(process.stdout.readline())
            taken_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        cpu_ms.append(1e3 * cpu_s)
        if reply["type"] != "hello":
            raise SystemExit(f"{python}: {reply}")
    return statistics.median(taken_ms[1:]), statistics.median(cpu_ms[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20, help="starts per interpreter")
    parser.add_argument("--python", action="append", help="interpreter (again for more)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        agent = build_agent(Path(folder))
        figures = {"size_kib": agent.stat().st_size / 1024}
        for python in options.python or [sys.executable]:
            start_ms, cpu_ms = time_ms(python, agent, Path(folder), options.repeat)
            figures |= {f"start_ms {python}": start_ms, f"cpu_ms {python}": cpu_ms}
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{figure:8.1f}  {name}")


if __name__ == "__main__":
    main()
