"""Command line: ``python hwnas-agent.pyz --work DIR``; requests on stdin, answers on stdout."""

from __future__ import annotations

import argparse
import os
import sys


def main(arguments: list[str]) -> int:
    """Run the supervisor, or (``--worker``) the measuring process it starts."""
    parser = argparse.ArgumentParser(prog="hwnas-agent")
    parser.add_argument("--work", required=True, help="folder for artifacts, journals, the lease")
    parser.add_argument("--sysroot", default="/", help="read /sys and /proc below this (tests)")
    parser.add_argument("--worker", type=int, metavar="PID", help="internal: measure for PID")
    options = parser.parse_args(arguments)
    if options.worker is not None:
        from device_agents.agent import worker

        return worker.main(options.work, options.sysroot, options.worker)
    from device_agents.agent import supervisor

    try:
        for name in ("artifacts", "journal"):
            os.makedirs(os.path.join(options.work, name), exist_ok=True)
    except OSError as exc:
        sys.stderr.write("hwnas-agent: the work folder cannot be used: %s\n" % exc)
        return 3
    return supervisor.Supervisor(os.path.abspath(options.work), options.sysroot).serve()
