"""Setting a board up: real commands, a real environment, real pip, wheels that are tiny."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from local_board import (
    BASE_PYTHON,
    CRASHES,
    WORK,
    LocalShell,
    board_processes,
    make_runtime_wheels,
    make_wheel,
)

from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.core.events import Event
from hwnas_sdk.devices import _board_install, setup_push
from hwnas_sdk.devices.board_clean import remove_folder
from hwnas_sdk.devices.setup import SetupOptions, SetupResult, set_up


@pytest.fixture
def shell(tmp_path: Path) -> LocalShell:
    home = tmp_path / "home"
    home.mkdir()
    return LocalShell(home)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return make_runtime_wheels(tmp_path / "wheels")


def _set_up(shell: LocalShell, wheels: Path, **options: Any) -> SetupResult:
    wanted = SetupOptions(wheels=wheels, **{"python": BASE_PYTHON, **options})
    return set_up(shell, work=WORK, options=wanted)


def _installed(shell: LocalShell) -> str:
    """What the board's environment says when asked by nobody of us."""
    return subprocess.run(
        [shell.work / "env/bin/python", "-c", "import onnxruntime as o; print(o.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_an_empty_board_gets_a_runtime_and_nothing_else(shell: LocalShell, tmp_path: Path) -> None:
    """With the real pip, which comes from this host's Python when no wheel of it is given."""
    wheels = make_runtime_wheels(tmp_path / "without-pip")
    events: list[Event] = []
    options = SetupOptions(wheels=wheels, python=BASE_PYTHON)
    first = set_up(shell, work=WORK, options=options, on_event=events.append)
    assert first.changed
    assert first.is_own
    assert first.python == str(shell.work / "env/bin/python")
    assert first.packages == {"numpy": "9.9.9", "onnxruntime": "9.0.0"}
    assert first.runtimes == {"ort": {"version": "9.0.0", "providers": ["CPUExecutionProvider"]}}
    assert first.pushed_bytes > 500
    assert _installed(shell) == "9.0.0"
    assert sorted(path.name for path in shell.work.iterdir()) == ["env", "setup.lock"]
    assert {event.task for event in events} == {"setup shelf", "push wheels to shelf"}
    assert [e.done for e in events if e.task == "setup shelf"] == [0, 1, 2, 3, 4]

    shell.commands.clear()
    second = _set_up(shell, wheels)
    assert not second.changed
    assert (second.pushed_bytes, second.runtimes) == (0, first.runtimes)
    assert len(shell.commands) == 2  # asked, imported


@pytest.mark.slow
def test_only_what_is_asked_for_is_replaced(shell: LocalShell, wheels: Path) -> None:
    _set_up(shell, wheels)
    (shell.work / "artifacts").mkdir()
    make_runtime_wheels(wheels, "9.1.0")
    assert not _set_up(shell, wheels).changed  # what works stays
    pinned = _set_up(shell, wheels, pins={"onnxruntime": "9.1.0"})
    assert pinned.changed
    assert _installed(shell) == "9.1.0"
    make_runtime_wheels(wheels, "9.2.0")
    assert _set_up(shell, wheels, upgrade=True).packages["onnxruntime"] == "9.2.0"
    assert (shell.work / "artifacts").is_dir()


def test_byte_code_of_another_version_is_not_taken_for_the_new_ones(
    shell: LocalShell, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python tells versions apart by size and second: on this board no clock ever goes on."""
    extract = zipfile.ZipFile.extractall

    def extract_at_boot(archive: zipfile.ZipFile, folder: Path) -> None:
        extract(archive, folder)
        for path in Path(folder).rglob("*.py"):
            os.utime(path, (0, 0))

    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", extract_at_boot)
    environment = shell.work / "env"
    _board_install._make(str(environment), str(environment), {"fresh": True})
    for version in ("9.0.0", "9.1.0"):
        make_runtime_wheels(wheels, version)
        names = (f"onnxruntime-{version}-py3-none-any.whl", "numpy-9.9.9-py3-none-any.whl")
        _board_install._install_wheels(str(environment), dict.fromkeys(names, ""), str(wheels))
        assert _installed(shell) == version


@pytest.mark.slow
def test_a_damaged_environment_is_made_anew(shell: LocalShell, wheels: Path) -> None:
    _set_up(shell, wheels)
    package = next((shell.work / "env/lib").glob("python*/site-packages/onnxruntime/__init__.py"))
    package.unlink()
    assert _set_up(shell, wheels).changed
    assert _installed(shell) == "9.0.0"
    (shell.work / "env/hwnas-env.json").write_text('{"format": 1}')
    assert _set_up(shell, wheels).changed


def test_a_runtime_for_another_processor_is_named_and_the_old_one_stays(
    shell: LocalShell, wheels: Path
) -> None:
    _set_up(shell, wheels)
    make_runtime_wheels(wheels, "9.5.0", runtime=CRASHES)
    with pytest.raises(
        DeviceError, match=r"'shelf' failed: importing onnxruntime .* SIGILL"
    ) as exc:
        _set_up(shell, wheels, upgrade=True)
    assert exc.value.code == "runtime_crashed"
    assert "--pin" in exc.value.hint
    assert _installed(shell) == "9.0.0"
    assert sorted(path.name for path in shell.work.iterdir()) == ["env", "setup.lock"]


def test_a_runtime_that_does_not_import_is_quoted(shell: LocalShell, wheels: Path) -> None:
    make_runtime_wheels(wheels, "9.6.0", runtime="import no_such_library\n")
    with pytest.raises(DeviceError, match="no_such_library") as exc:
        _set_up(shell, wheels)
    assert exc.value.code == "runtime_missing"
    assert not (shell.work / "env").exists()


def test_wheels_that_are_not_there_are_named(shell: LocalShell, tmp_path: Path) -> None:
    make_wheel(tmp_path / "few", "numpy", "9.9.9", {"numpy/__init__.py": ""})
    with pytest.raises(DeviceError, match=r"no wheel of onnxruntime for CPython .* in /") as exc:
        _set_up(shell, tmp_path / "few")
    assert exc.value.code == "wheels_missing"
    assert not shell.work.exists()


def test_a_board_without_room_is_told_before_anything_is_sent(
    shell: LocalShell, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas_sdk.devices.setup._MARGIN_MIB", 2**40)
    with pytest.raises(DeviceError, match=r"'shelf' has \d+ MiB free in .*/hwnas") as exc:
        _set_up(shell, wheels)
    assert exc.value.code == "no_space"
    assert not shell.work.exists()


def test_a_folder_that_cannot_be_written_is_named(shell: LocalShell, wheels: Path) -> None:
    shell.work.write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match="cannot be put on 'shelf'") as exc:
        _set_up(shell, wheels)
    assert exc.value.code == "deploy_failed"


def test_what_arrives_damaged_is_not_installed(
    shell: LocalShell, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = setup_push._stream

    def cut(*arguments: Any) -> Any:
        data = bytearray(b"".join(whole(*arguments)))
        data[data.find(b"onnxruntime-9.0.0") + 1024] ^= 1
        yield bytes(data)

    monkeypatch.setattr(setup_push, "_stream", cut)
    with pytest.raises(DeviceError, match=r"onnxruntime-9.* arrived damaged") as exc:
        _set_up(shell, wheels)
    assert exc.value.code == "deploy_failed"
    assert [path.name for path in shell.work.iterdir()] == ["setup.lock"]


def _installing(shell: LocalShell, wheels: Path) -> subprocess.Popen[bytes]:
    """Another host's setup of the same board, in a process that can be killed."""
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from local_board import LocalShell, BASE_PYTHON, WORK\n"
        "from hwnas_sdk.devices.setup import SetupOptions, set_up\n"
        "options = SetupOptions(wheels=Path(sys.argv[2]), python=BASE_PYTHON)\n"
        "set_up(LocalShell(Path(sys.argv[1])), work=WORK, options=options)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, shell.home, wheels])


def _wait_for(shell: LocalShell, pattern: str, process: subprocess.Popen[bytes]) -> Path:
    until_s = time.monotonic() + 30.0
    while time.monotonic() < until_s:
        found = next(iter(shell.work.glob(pattern)), None)
        if found is not None:
            return found
        assert process.poll() is None, f"it ended before {pattern}"
        time.sleep(0.005)
    raise AssertionError(pattern)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [pytest.param("setup.*", marks=pytest.mark.slow), "env.new.*"])
def test_killed_in_the_middle_the_same_call_does_it(
    moment: str, shell: LocalShell, wheels: Path
) -> None:
    """Host and board go down at once: a power cut of the whole shelf."""
    host = _installing(shell, wheels)
    _wait_for(shell, moment, host)
    host.kill()
    host.wait()
    for pid in board_processes(shell.home):
        with contextlib.suppress(ProcessLookupError):  # the closed pipe may have ended it
            os.kill(pid, signal.SIGKILL)
    assert not (shell.work / "env").exists()
    _age(shell)
    assert _set_up(shell, wheels).changed
    assert _installed(shell) == "9.0.0"
    assert sorted(path.name for path in shell.work.iterdir()) == ["env", "setup.lock"]


def _age(shell: LocalShell) -> None:
    """Let two hours pass for what the dead setup had sent."""
    for path in shell.work.glob("setup.*"):
        os.utime(path, (time.time() - 7200,) * 2)


@pytest.mark.slow
def test_two_hosts_at_once_give_one_good_environment(shell: LocalShell, wheels: Path) -> None:
    hosts = [_installing(shell, wheels) for _ in range(3)]
    assert [host.wait(timeout=60) for host in hosts] == [0, 0, 0]
    assert _installed(shell) == "9.0.0"
    assert sorted(path.name for path in shell.work.iterdir()) == ["env", "setup.lock"]


def _install(shell: LocalShell, request: dict[str, Any]) -> dict[str, Any]:
    """Run the board's half alone."""
    place = shell.work / "setup.here"
    place.mkdir(parents=True)
    installer = place / "install.py"
    installer.write_bytes(Path(_board_install.__file__).read_bytes())
    done = subprocess.run(
        [BASE_PYTHON, installer],
        input=json.dumps({"work": str(shell.work), "deadline_s": 60, **request}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not place.exists()
    return answer


def test_the_board_itself_ends_what_takes_too_long(shell: LocalShell) -> None:
    shell.work.mkdir()
    with (shell.work / "setup.lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = _install(shell, {"wheels": {}, "deadline_s": 1})
    assert answer["error"]["code"] == "deadline"


def test_a_file_that_did_not_arrive_is_named(shell: LocalShell) -> None:
    answer = _install(shell, {"wheels": {"numpy-1-py3-none-any.whl": "00"}})
    assert answer["error"]["code"] == "deploy_failed"
    assert "numpy-1" in answer["error"]["message"]


def test_wheels_are_unpacked_as_pip_would(tmp_path: Path) -> None:
    """Libraries that a wheel keeps apart, another version's files, names written differently."""
    new, here = tmp_path / "env", tmp_path / "here"
    site = new / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    other = {"ml_dtypes/other.py": "x = 1\n"}
    old = make_wheel(here, "ML.dtypes", "1.0", {"ml_dtypes/__init__.py": "", "gone.py": ""})
    alone = make_wheel(here, "neighbour", "1.0", other)
    _board_install._install_wheels(str(new), {old.name: "", alone.name: ""}, str(here))
    assert (site / "gone.py").is_file()
    files = {
        "ml_dtypes-2.0.data/platlib/ml_dtypes/__init__.py": "new = 1\n",
        "ml_dtypes-2.0.data/scripts/tool": "#!python\n",
    }
    newer = make_wheel(here, "ml_dtypes", "2.0", files)
    _board_install._install_wheels(str(new), {newer.name: ""}, str(here))
    assert not (site / "gone.py").exists()
    assert (site / "ml_dtypes/__init__.py").read_text() == "new = 1\n"
    assert (site / "ml_dtypes/other.py").is_file()  # the neighbour's
    assert sorted(path.name for path in site.glob("*-*")) == [
        "ml_dtypes-2.0.dist-info",
        "neighbour-1.0.dist-info",
    ]


def test_a_python_without_venv_still_gets_an_environment(tmp_path: Path) -> None:
    new = tmp_path / "env"
    code = (
        "import runpy, sys\n"
        "module = runpy.run_path(sys.argv[1])\n"
        "module['_make_by_hand'](sys.argv[2])\n"
    )
    subprocess.run([BASE_PYTHON, "-c", code, _board_install.__file__, new], check=True)
    found = subprocess.run(
        [new / "bin/python", "-c", "import sys; print(sys.prefix); print(*sys.path)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found[0] == str(new)
    assert any(path.startswith(str(new)) and path.endswith("site-packages") for path in found)


def test_the_installer_is_python_3_8() -> None:
    import ast

    ast.parse(Path(_board_install.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_a_runtime_of_the_boards_own_is_used_as_it_is(shell: LocalShell, tmp_path: Path) -> None:
    """NVIDIA's build on a Jetson, py3-onnxruntime on Alpine: ours would hide it."""
    own = tmp_path / "system-site"
    (own / "onnxruntime").mkdir(parents=True)
    (own / "numpy").mkdir()
    (own / "numpy/__init__.py").write_text("")
    (own / "onnxruntime/__init__.py").write_text(
        "__version__ = '1.18.0'\ndef get_available_providers():\n    return ['CUDA', 'CPU']\n"
    )
    shell.environ["PYTHONPATH"] = str(own)
    result = set_up(shell, work=WORK, options=SetupOptions(python=BASE_PYTHON))
    assert not result.is_own
    assert not result.changed
    assert result.runtimes == {"ort": {"version": "1.18.0", "providers": ["CUDA", "CPU"]}}
    assert os.path.realpath(result.python) == BASE_PYTHON
    assert not shell.work.exists()


def test_wrong_options_are_refused_before_the_board_is_asked(
    shell: LocalShell, wheels: Path
) -> None:
    with pytest.raises(ConfigError, match="'tensorflow' is not yours"):
        _set_up(shell, wheels, pins={"tensorflow": "2"})
    with pytest.raises(ConfigError, match="unknown runtime 'ncnn'"):
        _set_up(shell, wheels, runtime="ncnn")
    assert shell.commands == []


def test_removing_the_folder_leaves_what_is_not_ours(shell: LocalShell) -> None:
    assert remove_folder(shell, work=WORK).files == 0
    ours = ("artifacts/a.onnx", "journal/j.jsonl", "env/hwnas-env.json", "incoming.7/y")
    for name in (*ours, "notes.txt"):
        path = shell.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    removed = remove_folder(shell, work=WORK)
    assert removed.files == 4
    assert removed.bytes >= 4 * 5000
    assert [path.name for path in shell.work.iterdir()] == ["notes.txt"]
    (shell.work / "notes.txt").unlink()
    remove_folder(shell, work=WORK)
    assert not shell.work.exists()


@pytest.mark.parametrize("work", ['"$HOME"', '"$HOME"/hwnas/..', "/"])
def test_a_folder_that_is_not_ours_alone_is_never_cleaned(shell: LocalShell, work: str) -> None:
    kept = shell.home / "env" / "bin" / "python"
    kept.parent.mkdir(parents=True)
    kept.write_text("the user's own")
    shell.work.mkdir()
    with pytest.raises(DeviceError, match="no folder of our own") as caught:
        remove_folder(shell, work=work)
    assert caught.value.code == "clean_failed"
    assert kept.exists()


def test_an_environment_that_is_not_ours_stays(shell: LocalShell, wheels: Path) -> None:
    kept = shell.work / "env" / "bin" / "python"
    kept.parent.mkdir(parents=True)
    kept.write_text("the user's own")
    with pytest.raises(DeviceError, match="is not ours") as caught:
        _set_up(shell, wheels)
    assert caught.value.code == "deploy_failed"
    remove_folder(shell, work=WORK)
    assert kept.exists()
