"""`hwnas doctor`: each finding on made-up machines, and the whole command on this one."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from hwnas_sdk.cli import checks, checks_machine
from hwnas_sdk.cli.checks import Check, worst_exit_code
from hwnas_sdk.cli.main import main


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    return path


def test_this_python_and_its_packages_are_fine() -> None:
    assert checks.check_python().ok
    found = checks.check_packages()
    assert found.ok, found
    assert "onnxruntime" in found.detail


def test_a_missing_or_old_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checks.metadata,
        "requires",
        lambda name: ["no-such-package>=1", "click>=999", 'torch>=2; extra == "torch"'],
    )
    found = checks.check_packages()
    assert not found.ok
    assert "no-such-package (not installed)" in found.detail
    assert "click" in found.detail
    assert "torch" not in found.detail
    assert "pip install" in found.fix


def test_a_runtime_that_crashes_does_not_take_us_along() -> None:
    found = checks.check_import("runtime", "import os; os.kill(os.getpid(), 11)", fix="reinstall")
    assert not found.ok
    assert found.exit_code == 3
    assert "-11" in found.detail
    found = checks.check_import("runtime", "import no_such_module", fix="reinstall")
    assert "no_such_module" in found.detail
    assert "Traceback" not in found.detail


def test_a_store_that_is_not_there_is_fine(tmp_path: Path) -> None:
    assert checks.check_store(tmp_path / "store.sqlite").ok
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    found = checks.check_store(path)
    assert not found.ok
    assert found.exit_code == 6
    assert found.fix


def test_a_foreign_database_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    assert not checks.check_store(path).ok


def test_a_cache_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    assert checks.check_cache(tmp_path / "artifacts").ok
    blocked = _write(tmp_path / "file", "x") / "artifacts"
    found = checks.check_cache(blocked)
    assert not found.ok
    assert found.exit_code == 6
    assert "HWNAS_HOME" in found.fix


def test_a_full_disk_is_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOW_DISK_GIB", 1e9)
    found = checks.check_cache(tmp_path)
    assert not found.ok
    assert found.exit_code == 0
    assert "free some" in found.fix


def test_the_agent_builds() -> None:
    found = checks.check_agent()
    assert found.ok, found
    assert ".pyz" in found.detail


@pytest.mark.parametrize(
    ("governors", "level", "word"),
    [
        ([], "ok", "not visible"),
        (["performance", "performance"], "ok", "performance on 2 cores"),
        (["performance", "powersave"], "note", "powersave on 1 cores"),
    ],
)
def test_governor(governors: list[str], level: str, word: str, tmp_path: Path) -> None:
    for i, governor in enumerate(governors):
        _write(tmp_path / f"devices/system/cpu/cpu{i}/cpufreq/scaling_governor", governor)
    found = checks_machine.check_governor(tmp_path)
    assert found.ok is (level == "ok")
    assert word in found.detail
    assert bool(found.fix) is (level == "note")


def test_virtualisation(tmp_path: Path) -> None:
    _write(tmp_path / "bare/cpuinfo", "flags\t\t: fpu vme")
    assert checks_machine.check_virtualisation(tmp_path / "bare", tmp_path).ok
    _write(tmp_path / "guest/cpuinfo", "flags\t\t: fpu vme hypervisor lahf_lm")
    _write(tmp_path / "class/dmi/id/sys_vendor", "QEMU")
    found = checks_machine.check_virtualisation(tmp_path / "guest", tmp_path)
    assert not found.ok
    assert found.exit_code == 0
    assert "QEMU" in found.detail


def test_power(tmp_path: Path) -> None:
    found = checks_machine.check_power(tmp_path)
    assert not found.ok
    assert found.detail.startswith("no_sensor")
    counter = _write(tmp_path / "class/powercap/intel-rapl:0/energy_uj", "12345")
    _write(tmp_path / "class/powercap/intel-rapl:0/name", "package-0")
    found = checks_machine.check_power(tmp_path)
    assert found.ok
    assert "package-0" in found.detail
    counter.unlink()
    counter.mkdir()  # a counter that exists and cannot be read, for root too
    found = checks_machine.check_power(tmp_path)
    assert not found.ok
    assert found.detail.startswith("sensor_permission")
    assert str(counter) in found.detail
    assert "chmod" in found.fix


def test_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "devices/system/clocksource/clocksource0/current_clocksource"
    _write(source, "tsc")
    assert checks_machine.check_clock(tmp_path).ok
    _write(source, "acpi_pm")
    found = checks_machine.check_clock(tmp_path)
    assert not found.ok
    assert "acpi_pm" in found.detail
    assert "clocksource=tsc" in found.fix
    monkeypatch.setattr(
        checks_machine, "_OLDEST", checks_machine.datetime(9999, 1, 1, tzinfo=checks_machine.UTC)
    )
    assert "timedatectl" in checks_machine.check_clock(tmp_path).fix


def test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert checks_machine.check_load().ok
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert not checks_machine.check_load().ok


def test_priority_says_how_to_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks_machine.check_priority()
    assert found.ok or "limits.conf" in found.fix
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "nice_denied" in checks_machine.check_priority().detail


def _check(*, ok: bool, exit_code: int) -> Check:
    return Check(name="x", ok=ok, detail="", exit_code=exit_code)


def test_the_exit_code_is_the_boards_first() -> None:
    assert worst_exit_code([]) == 0
    assert worst_exit_code([_check(ok=True, exit_code=6), _check(ok=False, exit_code=0)]) == 0
    assert worst_exit_code([_check(ok=False, exit_code=6), _check(ok=False, exit_code=3)]) == 6
    assert worst_exit_code([_check(ok=False, exit_code=6), _check(ok=False, exit_code=4)]) == 4


def test_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["checks"]
    assert all(set(finding) >= {"name", "ok", "detail", "fix"} for finding in findings)
    names = [finding["name"] for finding in findings]
    assert names[:7] == ["python", "packages", "store", "cache", "agent", "runtime", "report"]
    assert "power sensor" in names
    assert "board local" in names
    for finding in findings:
        assert finding["ok"] or finding["fix"], finding
        assert finding["ok"] or finding["level"] == "note", finding


def test_a_bad_board_or_a_broken_check_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Check:
        raise RuntimeError("the kernel is on fire")

    monkeypatch.setattr(checks_machine, "check_load", broken)
    fine = Check(name="runtime", ok=True, detail="as the test wants it")
    monkeypatch.setattr(checks, "check_runtime", lambda: fine)
    monkeypatch.setattr(checks, "check_report", lambda: fine)
    boards = ["nobody", "fake://?mode=die_at_start", "fake"]
    assert main(["doctor", *(word for name in boards for word in ("--device", name))]) == 4
    lines = capsys.readouterr().out.splitlines()
    levels = {line[6:].partition(":")[0]: line[:4].strip() for line in lines}
    assert levels["load"] == "fail"
    assert levels["clock"] in {"ok", "note"}
    assert levels["board nobody"] == "fail"
    assert levels["board fake"] == "ok"
    unknown = next(i for i, line in enumerate(lines) if "board nobody" in line)
    assert lines[unknown + 1].startswith("      fix: known: local")
