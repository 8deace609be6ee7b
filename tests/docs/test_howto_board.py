"""The worked examples of docs/howto-board.md, taken from the page and run."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto-board.md").read_text(encoding="utf-8")

# Stands for the vendor's program; it really runs the network, on this machine.
VENDOR_TOOL = """#!{python}
import sys, time
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {{i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}}
session.run(None, feed)
for _ in range(int(sys.argv[2])):
    start = time.perf_counter_ns()
    session.run(None, feed)
    print((time.perf_counter_ns() - start) / 1e6)
"""


def example(name: str) -> str:
    found = re.search(rf"<!-- {name}: .*?-->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, name
    return found.group(1)


@pytest.fixture
def orange_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file tree like the board's, and the family of the page among the others."""
    from device_agents.agent import board

    files = {
        "proc/device-tree/compatible": "xunlong,orangepi-5\0rockchip,rk3588\0",
        "proc/device-tree/model": "Orange Pi 5\0",
        "etc/orangepi-release": "Orange Pi 1.1.8 Bookworm\n",
        "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0\n",
        "sys/class/thermal/cooling_device0/stats/total_trans": "3\n",
        "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device1/stats/total_trans": "40\n",
        "sys/class/hwmon/hwmon8/pwm1": "90\n",
    }
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    package = types.ModuleType("device_agents.orangepi")
    module = types.ModuleType("device_agents.orangepi.board")
    exec(compile(example("family"), "howto-board.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    families = ("orangepi", *board.FAMILIES)
    monkeypatch.setattr(board, "FAMILIES", families)
    yield str(root)
    board._found.pop(str(root), None)


def test_the_family_of_the_page_is_found_and_described(orange_pi: str) -> None:
    from device_agents.agent import board

    device = board.describe(orange_pi)
    assert device["family"] == "orangepi"
    assert device["model"] == "Orange Pi 5"
    assert device["firmware"] == "Orange Pi 1.1.8 Bookworm"
    assert board.throttle_count(orange_pi, [0]) == 3


def test_the_family_of_the_page_makes_quiet_and_puts_back(orange_pi: str) -> None:
    from device_agents.agent import board

    (fan,) = board.quiet_actions(orange_pi)
    before = fan.read()
    assert before == "90"
    fan.write(fan.quiet)
    assert fan.read() == "255"
    fan.write(before)
    assert fan.read() == "90"


def test_the_family_of_the_page_runs_on_old_interpreters(tmp_path: Path) -> None:
    path = tmp_path / "board.py"
    path.write_text(example("family"), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("vermin")), "--quiet", "--violations", "-t=3.8-",
         "--no-tips", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture
def vendor_tool(tmp_path: Path) -> Path:
    path = tmp_path / "vendor-bench"
    path.write_text(VENDOR_TOOL.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def quick_tool(tmp_path: Path) -> Path:
    """Prints times at once; nothing is run."""
    path = tmp_path / "quick-bench"
    path.write_text("#!/bin/sh\ni=0\nwhile [ $i -lt $2 ]; do echo 1.2$i; i=$((i + 1)); done\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's driver as the module it says it is."""
    package = tmp_path / "package" / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text(example("driver"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    yield importlib.import_module("mypackage.tool")
    for name in ("mypackage", "mypackage.tool"):
        sys.modules.pop(name, None)


def test_the_driver_of_the_page_measures(
    driver: Any, quick_tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole stack: store, records and flags."""
    from hwnas_sdk.devices import inventory
    from hwnas_sdk.workflows.lab import Lab

    monkeypatch.setattr(inventory, "find_driver", lambda _uri: driver.open_tool)
    with Lab.open() as lab:
        (record,) = lab.measure(["#6111"], on=lab.device(f"tool://{quick_tool}"))
        assert record.status == "valid"
        assert {"output_unchecked", "drift_unchecked"} <= set(record.flags)
        assert record.latency_ms == pytest.approx(1.245)
        assert record.n_samples == 50
        assert len(lab.store.samples_ns(record)) == 5


def test_the_driver_of_the_page_says_what_is_missing(driver: Any) -> None:
    from hwnas_sdk.core.errors import DeviceError
    from hwnas_sdk.devices.uri import DeviceUri

    with pytest.raises(DeviceError, match="no program") as caught:
        driver.open_tool(DeviceUri.parse("tool:///nowhere"), name="myboard")
    assert caught.value.code == "runner_missing"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_driver_of_the_page_passes_the_conformance_suite(
    driver: Any, vendor_tool: Path, tmp_path: Path
) -> None:
    """In a process of its own, as a reader would run it."""
    folder = tmp_path / "package"
    (folder / "conftest.py").write_text(
        "import pathlib, pytest\n"
        f"@pytest.fixture\ndef vendor_tool(): return pathlib.Path({str(vendor_tool)!r})\n"
    )
    (folder / "test_tool.py").write_text(example("conformance"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider",
         "-W", "error", str(folder)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "9 passed" in done.stdout
