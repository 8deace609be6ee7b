"""Every command explains itself, and the reference page says the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import click
import pytest

from hwnas_sdk.cli.main import hwnas, main

ROOT = Path(__file__).resolve().parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "gen_cli_docs", ROOT / "tools" / "gen_cli_docs.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = list(_generator().commands(hwnas, "hwnas"))
LEAVES = [path for path, command, _ in COMMANDS if not isinstance(command, click.Group)]


@pytest.mark.parametrize("path", [path for path, _, _ in COMMANDS])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_works(path: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path.split()[1:], flag]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Usage: {path} ")
    assert captured.err == ""


@pytest.mark.parametrize("path", [path for path, _, _ in COMMANDS])
def test_every_command_and_option_is_explained(path: str) -> None:
    command = next(command for name, command, _ in COMMANDS if name == path)
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{path} {option.name} has no help"
            assert option.help.rstrip("]").endswith((".", ")")) or "[default" in option.help


@pytest.mark.parametrize("path", LEAVES)
def test_every_verb_takes_the_common_options(path: str) -> None:
    command = next(command for name, command, _ in COMMANDS if name == path)
    flags = {flag for option in command.params for flag in option.opts}
    assert flags >= {"--json", "-q", "--quiet", "-v", "--verbose", "--db"}


@pytest.mark.parametrize("path", LEAVES)
def test_a_usage_error_of_any_verb_is_one_line_and_one_document(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path.split()[1:], "--no-such-option", "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "usage"
    assert captured.err.count("\n") == 1


def test_the_reference_page_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference-cli.md"
    assert page.read_text(encoding="utf-8") == _generator().reference(), (
        "run python tools/gen_cli_docs.py"
    )
