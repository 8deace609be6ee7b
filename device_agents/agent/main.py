"""Command line: ``python hwnas-agent.pyz --work DIR``; requests on stdin, answers on stdout."""

from __future__ import annotations

import argparse
import os
import sys


def main(arguments: list[str]) -> int:
    """Run the supervisor, or (``--worker``) the measuring process it starts."""
    parser = argparse.ArgumentParser(prog="hwnas-agent")
    parser.add_argument("--work", required=True, help="folder for artifacts and journals")
    parser.add_argument(
        "--lease-dir",
        default=os.environ.get("HWNAS_LEASE_DIR") or None,
        help="folder of the board's lease (default: one that all users of the board share)",
    )
    parser.add_argument(
        "--host-timeout",
        type=float,
        metavar="S",
        help="take the host for gone when it sends nothing for S seconds",
    )
    parser.add_argument("--power", help="energy source, e.g. hwmon:rail=VDD_IN (power/__init__.py)")
    parser.add_argument("--sysroot", default="/", help="read /sys and /proc below this (tests)")
    parser.add_argument("--worker", type=int, metavar="PID", help="internal: measure for PID")
    parser.add_argument("--runtime", help="internal: what the worker measures with")
    options = parser.parse_args(arguments)
    if options.power:
        os.environ["HWNAS_POWER"] = options.power  # the worker inherits it
    if options.worker is not None:
        from device_agents.agent import worker

        return worker.main(options.work, options.sysroot, options.worker, options.runtime)
    from device_agents.agent import supervisor
    from device_agents.agent.boardfile import default_folder

    work = os.path.abspath(options.work)
    try:
        for name in ("artifacts", "journal"):
            os.makedirs(os.path.join(work, name), exist_ok=True)
    except OSError as exc:
        sys.stderr.write("hwnas-agent: the work folder cannot be used: %s\n" % exc)
        return 3
    lease_dir = os.path.abspath(options.lease_dir or default_folder(work))
    return supervisor.Supervisor(work, options.sysroot, lease_dir, options.host_timeout).serve()
