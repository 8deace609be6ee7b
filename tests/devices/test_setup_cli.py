"""`hwnas devices add | trust | setup | clean | remove` over SSH, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SshBoard
from local_board import BASE_PYTHON, make_runtime_wheels

from hwnas_sdk.cli.main import main
from hwnas_sdk.devices import known_hosts

Capture = pytest.CaptureFixture[str]
KEYS = {"name", "family", "soc", "cores", "memory_mib", "runtimes", "power_source", "quiet"}


def _json(capsys: Capture, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    code = main([*arguments, "--json", "-q"])
    captured = capsys.readouterr()
    assert code == exit_code, captured.err
    document: dict[str, Any] = json.loads(captured.out)
    return document


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return make_runtime_wheels(tmp_path / "wheels")


@pytest.mark.slow
def test_from_nothing_to_a_board_that_measures_and_back(
    ssh_board: SshBoard, wheels: Path, capsys: Capture
) -> None:
    uri = ssh_board.text(python="")
    added = _json(capsys, "devices", "add", "shelf", uri)
    assert added.keys() >= KEYS
    assert (added["ready"], added["reason"]) == (False, "host_key_unknown")
    assert added["next"] == ["hwnas devices trust shelf", "hwnas devices setup shelf"]

    wrong = ("devices", "trust", "shelf", "--fingerprint", "SHA256:" + 43 * "A")
    refused = _json(capsys, *wrong, exit_code=4)["error"]
    assert refused["code"] == "fingerprint_differs"
    assert known_hosts.pinned(f"[127.0.0.1]:{ssh_board.server.port}") == ()
    trusted = _json(capsys, "devices", "trust", "shelf")
    assert trusted["fingerprint"].startswith("SHA256:")
    assert trusted["fingerprint"] in refused["message"]
    assert trusted["host"] == f"[127.0.0.1]:{ssh_board.server.port}"
    assert (trusted["pinned"], trusted["changed"]) == (True, True)
    assert _json(capsys, "devices", "trust", "shelf")["changed"] is False

    arguments = ("devices", "setup", "shelf", "--wheels", str(wheels), "--python", BASE_PYTHON)
    done = _json(capsys, *arguments)
    assert done.keys() >= KEYS
    assert (done["changed"], done["own_environment"]) == (True, True)
    assert done["packages"] == {"numpy": "9.9.9", "onnxruntime": "9.0.0"}
    assert done["python"] == str(ssh_board.work / "env/bin/python")
    assert _json(capsys, *arguments)["changed"] is False

    (ssh_board.work / "artifacts" / f"{'0' * 64}.onnx").write_bytes(b"x" * 1000)
    cleaned = _json(capsys, "devices", "clean", "shelf")
    assert (cleaned["removed_files"], cleaned["removed_bytes"]) == (1, 1000)
    assert (ssh_board.work / "env").is_dir()
    cleaned = _json(capsys, "devices", "clean", "shelf", "--all")
    assert cleaned["removed_files"] >= 2  # the agent, the environment
    assert not ssh_board.work.exists()

    removed = _json(capsys, "devices", "remove", "shelf")
    assert (removed["removed"], removed["forgotten_keys"]) == (True, 1)
    assert known_hosts.pinned(trusted["host"]) == ()


def test_on_a_terminal_the_fingerprint_is_shown_and_asked_for(
    ssh_board: SshBoard, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"[127.0.0.1]:{ssh_board.server.port}"
    main(["devices", "add", "shelf", ssh_board.text(), "-q"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter([False, True])
    monkeypatch.setattr("click.confirm", lambda *a, **k: next(answers))
    capsys.readouterr()
    assert main(["devices", "trust", "shelf"]) == 3
    err = capsys.readouterr().err
    assert "SHA256:" in err
    assert err.splitlines()[-1].endswith("[not_confirmed]")
    assert known_hosts.pinned(host) == ()
    assert main(["devices", "trust", "shelf"]) == 0
    assert len(known_hosts.pinned(host)) == 1


def test_a_changed_key_needs_replace(ssh_board: SshBoard, capsys: Capture) -> None:
    import paramiko

    main(["devices", "add", "shelf", ssh_board.text(), "-q"])
    capsys.readouterr()
    first = _json(capsys, "devices", "trust", "shelf", "--yes")
    ssh_board.server.host_key = paramiko.ECDSAKey.generate()
    error = _json(capsys, "devices", "trust", "shelf", "--yes", exit_code=4)["error"]
    assert error["code"] == "host_key_changed"
    assert first["fingerprint"] in error["message"]
    replaced = _json(capsys, "devices", "trust", "shelf", "--yes", "--replace")
    assert replaced["fingerprint"] != first["fingerprint"]
    assert len(known_hosts.pinned(first["host"])) == 1


def test_a_board_without_runtime_is_added_and_told_the_next_step(
    ssh_board: SshBoard, capsys: Capture
) -> None:
    ssh_board.trust()
    added = _json(capsys, "devices", "add", "shelf", ssh_board.text(python=BASE_PYTHON))
    assert added["ready"] is False
    assert added["runtimes"] == {}
    assert added["next"] == ["hwnas devices setup shelf"]
    assert added["cores"] >= 1


def test_a_board_that_is_not_there_is_not_added(ssh_board: SshBoard, capsys: Capture) -> None:
    ssh_board.server.stop_listening()
    error = _json(capsys, "devices", "add", "shelf", ssh_board.text(), exit_code=4)["error"]
    assert error["code"] == "unreachable"
    assert [r["name"] for r in _json(capsys, "devices", "list")["devices"]] == ["local"]
    ssh_board.server.listen_again()


def test_a_key_that_another_name_needs_is_not_forgotten(
    ssh_board: SshBoard, capsys: Capture
) -> None:
    for name in ("shelf", "shelf-again"):
        main(["devices", "add", name, ssh_board.text(), "--no-probe", "-q"])
    ssh_board.trust()
    capsys.readouterr()
    assert _json(capsys, "devices", "remove", "shelf")["forgotten_keys"] == 0
    assert _json(capsys, "devices", "remove", "shelf-again")["forgotten_keys"] == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "word"),
    [
        (["setup", "local"], 3, "no_shell", "ssh://"),
        (["trust", "local"], 3, "config", "host key"),
        (["setup", "nobody"], 3, "unknown_device", "local"),
        (["setup", "ssh://pi@127.0.0.1?python=/usr/bin/python3"], 3, "config", "python="),
        (["setup", "ssh://pi@127.0.0.1?work=here"], 3, "config", "absolute"),
        (["setup", "ssh://pi@127.0.0.1?work=~/"], 3, "config", "no folder of our own"),
        (["setup", "ssh://pi@127.0.0.1?work=//"], 3, "config", "no folder of our own"),
        (["setup", "local", "--pin", "numpy"], 2, "usage", "PACKAGE==VERSION"),
        (["setup", "local", "--wheels", "/no/such/folder"], 2, "usage", "/no/such/folder"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], exit_code: int, code: str, word: str, capsys: Capture
) -> None:
    assert main(["devices", *arguments, "--json", "-q"]) == exit_code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == code
    assert word in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.slow
def test_doctor_tells_what_each_board_lacks(ssh_board: SshBoard, capsys: Capture) -> None:
    main(["devices", "add", "shelf", ssh_board.text(python=BASE_PYTHON), "--no-probe", "-q"])
    capsys.readouterr()

    def findings(exit_code: int) -> dict[str, dict[str, Any]]:
        answer = _json(capsys, "doctor", "--device", "shelf", exit_code=exit_code)
        return {
            check["name"].removeprefix("board shelf").strip(): check
            for check in answer["checks"]
            if check["name"].startswith("board shelf")
        }

    unknown = findings(4)
    assert list(unknown) == ["host key"]
    assert unknown["host key"]["fix"] == "hwnas devices trust shelf"
    ssh_board.trust()
    found = findings(4)
    assert found[""]["ok"]
    assert found["runtime"]["fix"] == "hwnas devices setup shelf"
    assert {"host key", "python", "runtime", "governor", "power", "temperature", "disk"} <= set(
        found
    )
    assert found["host key"]["ok"]
    assert "3." in found["python"]["detail"]
    assert "GiB free" in found["disk"]["detail"]
    assert all(check["ok"] or check["fix"] for check in found.values()), found
    ssh_board.server.stop_listening()
    gone = findings(4)
    assert list(gone) == [""]
    assert not gone[""]["ok"]
    ssh_board.server.listen_again()
