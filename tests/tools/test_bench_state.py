"""The state that page-making tools keep."""

from __future__ import annotations

import json

import pytest
from bench_state import BenchState


def test_two_commands_share_a_file(tmp_path):
    path, question = tmp_path / "state.json", {"seeds": 2}
    one, other = BenchState(path, question), BenchState(path, question)
    one.compute("a", lambda: 1)
    other.compute("b", lambda: 2)
    assert json.loads(path.read_text())["answers"] == {"a": 1, "b": 2}
    other.compute("a", lambda: pytest.fail("it is known by now"))
    assert BenchState(path, question).answers == {"a": 1, "b": 2}


def test_another_question_ends_the_program(tmp_path):
    path = tmp_path / "state.json"
    BenchState(path, {"seeds": 2}).compute("a", lambda: 1)
    with pytest.raises(SystemExit, match="another question"):
        BenchState(path, {"seeds": 5})
