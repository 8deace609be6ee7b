"""Build the agent's zipapp: ``python tools/build_agent.py [FOLDER]`` (default: build)."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from hwnas_sdk.devices.agent_build import build_agent


def main() -> None:
    """Build and say what and where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build"))
    path = build_agent(parser.parse_args().folder)
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
