"""`hwnas devices` with a table, a fake board and this machine, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.spaces import get_space

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twenty networks with made-up latencies."""
    space = get_space("nasbench201")
    archs = [space.encode(arch) for arch in space.sample(20, seed=0)]
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table({"arch": archs, "toaster": [1.0 + 0.1 * i for i in range(len(archs))]}), path
    )
    return path


def _json(capsys: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == exit_code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


KEYS = {"name", "family", "soc", "cores", "memory_mib", "runtimes", "power_source", "quiet"}


def test_a_board_is_added_listed_probed_and_removed(table: Path, capsys: Capture) -> None:
    uri = f"replay://{table}#toaster"
    added = _json(capsys, "devices", "add", "shelf", uri)
    assert added.keys() >= KEYS
    assert (added["name"], added["uri"], added["family"]) == ("shelf", uri, "replay")
    assert added["memory_mib"] is None

    listed = _json(capsys, "devices", "list")["devices"]
    assert [row["name"] for row in listed] == ["local", "shelf"]
    assert all(row.keys() >= KEYS for row in listed)
    assert listed[0]["soc"] is None  # never probed
    assert listed[1]["soc"] == "toaster"

    probed = _json(capsys, "devices", "probe", "shelf")
    assert probed["soc"] == "toaster"
    assert probed["id"] == added["id"]

    assert _json(capsys, "devices", "clean", "shelf") == {
        "name": "shelf",
        "removed_files": 0,
        "removed_bytes": 0,
    }
    assert _json(capsys, "devices", "remove", "shelf")["removed"] is True
    assert [r["name"] for r in _json(capsys, "devices", "list")["devices"]] == ["local"]


def test_a_relative_table_stays_valid_elsewhere(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(table.parent)
    _json(capsys, "devices", "add", "shelf", "replay://table.parquet#toaster")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert _json(capsys, "devices", "probe", "shelf")["soc"] == "toaster"


def test_people_get_a_table(table: Path, capsys: Capture) -> None:
    assert main(["devices", "add", "shelf", f"replay://{table}#toaster"]) == 0
    assert "toaster" in capsys.readouterr().out
    assert main(["devices", "list"]) == 0
    out = capsys.readouterr().out
    assert "local" in out
    assert "shelf" in out
    assert main(["devices", "remove", "shelf"]) == 0
    assert capsys.readouterr().out == "shelf removed\n"


def test_a_board_that_does_not_answer_is_not_added(capsys: Capture) -> None:
    assert main(["devices", "add", "dead", "fake://?mode=die_at_start"]) == 4
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert [r["name"] for r in _json(capsys, "devices", "list")["devices"]] == ["local"]


def test_a_board_that_is_off_can_be_added_unasked(capsys: Capture) -> None:
    uri = "fake://?mode=die_at_start"
    assert _json(capsys, "devices", "add", "later", uri, "--no-probe") == {
        "name": "later",
        "uri": uri,
    }
    assert main(["devices", "add", "later", uri]) == 4  # asked now, and still there
    capsys.readouterr()
    listed = _json(capsys, "devices", "list")["devices"]
    assert [row["name"] for row in listed] == ["local", "later"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "word"),
    [
        (["probe", "nobody"], 3, "unknown_device", "local"),
        (["remove", "nobody"], 3, "unknown_device", "local"),
        (["remove", "local"], 3, "config", "always there"),
        (["add", "x", "ftp://pi@host"], 3, "unknown_scheme", "replay"),
        (["add", "local", "local:"], 3, "config", "reserved"),
        (["add", "x", "nonsense"], 3, "config", "URI"),
        (["add", "x", "replay:///nowhere/t.parquet#c"], 6, "table_missing", "t.parquet"),
        (["probe", "fake://?mode=old_protocol"], 4, None, "fake"),
    ],
)
def test_bad_devices_are_one_line(
    arguments: list[str], exit_code: int, code: str | None, word: str, capsys: Capture
) -> None:
    assert main(["devices", *arguments, "--json"]) == exit_code
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert code is None or error["code"] == code
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_a_damaged_inventory_names_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path))
    (tmp_path / "devices.yaml").write_text("version: 1\ndevices:\n  pi: {url: x}\n")
    assert main(["devices", "list"]) == 3
    err = capsys.readouterr().err
    assert "line 3" in err
    assert err.count("\n") == 1


def test_this_machine_answers_a_probe(capsys: Capture) -> None:
    found = _json(capsys, "devices", "probe", "local")
    assert found.keys() >= KEYS
    assert found["family"] == "x86"
    assert found["cores"] >= 1
    assert found["memory_mib"] > 0
    assert "ort" in found["runtimes"]
    assert found["power_source"] or found["power_reason"]
    assert main(["devices", "probe", "local"]) == 0
    assert found["soc"] in capsys.readouterr().out
