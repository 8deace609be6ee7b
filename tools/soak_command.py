"""The `hwnas` command as the soak test gives it on emulated boards, with two differences.

A tiny network is the sentinel (SOAK_SENTINEL names the file): the standard one takes 2 ms on a real
processor and 1 s under emulation; beside the soak test's tiny networks nearly all of a job would be
spent on it. And what only says that the machine was not quiet does not make a measurement invalid:
two emulated boards and their hosts on a few shared cores never are, and taking nearly everything
three times tests nothing new. Everything else is the real command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING, UNSTEADY
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.user_model import import_onnx
from hwnas_sdk.workflows import lab


def tiny_sentinel(session: DeviceSession, cache: ArtifactCache) -> Artifact | None:
    """Stands in for `workflows.measure.standard_sentinel`."""
    if not session.needs_artifacts:
        return None
    return import_onnx(Path(os.environ["SOAK_SENTINEL"]), cache=cache)


if __name__ == "__main__":
    assert callable(lab.standard_sentinel)
    lab.standard_sentinel = tiny_sentinel
    for flag in UNSTEADY:
        INFORMATIVE[flag] = INVALIDATING.pop(flag)
    sys.exit(main())
