"""The zipapp: reproducible, reused, replaced when damaged."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices.agent_build import agent_bytes, build_agent, slim

REPO = Path(__file__).resolve().parents[2]


def test_two_builds_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_agent(tmp_path / "a")
    # Other dates, other order on disk, other permissions, compiled leftovers: the same bytes.
    copy = tmp_path / "copy"
    shutil.copytree(_resources.bundled("device_agents"), copy)
    for path in sorted(copy.rglob("*.py"), reverse=True):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    (copy / "agent" / "__pycache__").mkdir(exist_ok=True)
    (copy / "agent" / "__pycache__" / "x.pyc").write_bytes(b"x")
    monkeypatch.setattr(_resources, "bundled", lambda _: copy)
    second = build_agent(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert first.name == second.name
    assert hashlib.sha256(first.read_bytes()).hexdigest()[:12] in first.name
    (copy / "__init__.py").write_text("changed = True\n", encoding="utf-8")
    assert build_agent(tmp_path / "b").name != first.name


def test_a_built_agent_is_reused_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    path = build_agent(tmp_path)
    before = path.stat()
    assert build_agent(tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    path.write_bytes(b"half a file")
    build_agent(tmp_path)
    assert path.read_bytes() == agent_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, "hwnas-agent.made-of"]
    (tmp_path / "hwnas-agent.made-of").write_text("nonsense", encoding="ascii")
    assert build_agent(tmp_path) == path


def test_it_is_small_and_loses_nothing_but_words(tmp_path: Path) -> None:
    assert len(agent_bytes()) <= 100 * 1024
    source = (
        '"""About."""\n\nA = """\n# text\n"""  # note\n\n\ndef f():\n    """Only\n    words."""\n'
        "\n\n# aside\nclass B:\n    x = 1\n    'x is one'\n"
    )
    slimmed = slim(source.encode()).decode()
    assert "words" not in slimmed
    assert "aside" not in slimmed
    scope: dict[str, Any] = {}
    exec(compile(slimmed, "slim", "exec"), scope)
    assert scope["A"] == "\n# text\n"
    assert scope["f"]() is None
    assert scope["f"].__code__.co_firstlineno == 8, "tracebacks name the right lines"
    for path in _resources.bundled("device_agents").rglob("*.py"):
        before = path.read_bytes()
        after = slim(before)
        assert _program(before) == _program(after), path
        assert before.count(b"\n") == after.count(b"\n"), path


def _program(source: bytes) -> str:
    """The syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                each
                for each in body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return ast.dump(tree)


def test_it_holds_sources_only(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_agent(tmp_path)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert names == sorted(names)
    assert "__main__.py" in names
    assert all(name.endswith(".py") for name in names)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    with pytest.raises(DeviceError) as caught:
        build_agent(blocked / "folder")
    assert caught.value.code == "deploy_failed"
    assert str(blocked) in str(caught.value)


def test_missing_sources_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_resources, "_PACKAGE", tmp_path / "nowhere" / "hwnas_sdk")
    with pytest.raises(ConfigError):
        agent_bytes()


def test_the_tool_prints_hash_and_path(tmp_path: Path) -> None:
    tool = REPO / "tools" / "build_agent.py"
    run = subprocess.run(
        [sys.executable, str(tool), str(tmp_path)], capture_output=True, text=True, check=True
    )
    sha, path = run.stdout.split()
    assert Path(path).read_bytes() == agent_bytes()
    assert hashlib.sha256(agent_bytes()).hexdigest() == sha
