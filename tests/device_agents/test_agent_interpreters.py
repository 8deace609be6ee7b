"""The zipapp on every interpreter that is to be had: protocol, journal and an honest failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_harness import Agent, conv_net, of

MINORS = range(8, 16)
LIGHT = conv_net(4)


def interpreters() -> dict[str, str]:
    """Version (3.8, 3.9, ...) -> path, one of each: ours, on PATH, of pyenv and of uv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    candidates = [sys.executable]
    for minor in MINORS:
        found = shutil.which(f"python3.{minor}")
        candidates += [found] if found else []
        candidates += [str(path) for path in sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python"))]
        candidates += [str(path) for path in sorted(uv.glob(f"cpython-3.{minor}.*/bin/python3"))]
    candidates += [str(path) for path in (Path("/usr/bin/python3"), Path("/usr/local/bin/python3"))]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    by_version: dict[str, str] = {}
    for path in candidates:
        if not Path(path).exists():
            continue
        done = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
        if done.returncode == 0 and re.fullmatch(r"3\.\d+", done.stdout.strip()):
            version = done.stdout.strip()
            if int(version[2:]) in MINORS:
                by_version.setdefault(version, path)
    return by_version


FOUND = interpreters()


def test_there_are_several() -> None:
    if len(FOUND) < 2:
        pytest.skip(f"only Python {', '.join(FOUND)} here (pyenv or uv can provide others)")
    assert "3.8" in FOUND or len(FOUND) >= 2


@pytest.mark.parametrize("version", sorted(FOUND, key=lambda text: int(text[2:])))
def test_the_agent_runs_on(start: Any, version: str) -> None:
    agent: Agent = start("--host-timeout", "120", python=FOUND[version])
    hello = agent.ask("hello", protocol=[1, 1], owner="tests")
    assert hello["python"].startswith(version + ".")
    assert agent.ask("ping")["type"] == "pong"
    probe = agent.ask("probe")
    assert probe["device"]["cores"] >= 1
    assert probe["environment"]["disk_free_mib"] > 0
    assert set(probe["runtimes"]) == {"ort", "tvm"}
    has_runtime = "version" in probe["runtimes"]["ort"]

    agent.take_lease()
    options = {"runtime": "ort", "threads": 1, "governor": "performance"}
    events = agent.run("job", [agent.put(LIGHT)], options=options)
    assert events[-1]["event"] == "job_done"
    if has_runtime:
        assert of(events, "finished")
    else:
        assert of(events, "failed")[0]["code"] == "runtime_missing"
    assert agent.fetch("job")[0] == events
    assert agent.ask("clean", lease=agent.lease, keep=[], journals=True)["files"] == 2
    assert agent.ask("bye")["type"] == "bye"
    assert agent.process.wait(10.0) == 0
    assert "Traceback" not in agent.stderr()
    assert "Warning" not in agent.stderr()
