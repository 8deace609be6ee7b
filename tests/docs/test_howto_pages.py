"""The pages about boards: what they name exists, and they are plain about what was tried."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from hwnas_sdk.cli.main import hwnas
from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING
from hwnas_sdk.devices.inventory import find_driver
from hwnas_sdk.devices.uri import DeviceUri

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("howto-*.md"))
BOARDS = [page for page in PAGES if page.stem != "howto-search-space"]
AGENT = "".join(
    (DOCS.parent / "device_agents" / name).read_text(encoding="utf-8")
    for name in ("README.md", "power/README.md")
)


def rows_after(text: str, heading: str) -> list[str]:
    """Rows of the table in the section `heading`, without its head."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize("page", BOARDS, ids=lambda page: page.stem)
def test_what_was_tried_is_said(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    heading = "| | on hardware | on the emulated board | from documentation only |"
    assert heading in text
    assert len(rows_after(text, "What was tried where")) >= 3


@pytest.mark.parametrize("page", BOARDS, ids=lambda page: page.stem)
def test_messages_it_explains_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if "\n## What goes wrong\n" not in text:
        return
    known = {*INVALIDATING, *INFORMATIVE}
    known |= set(re.findall(r"`([a-z0-9_]+)`", (DOCS / "errors.md").read_text(encoding="utf-8")))
    known |= set(re.findall(r"`([a-z0-9_]+)`", AGENT))
    rows = rows_after(text, "What goes wrong")
    assert len(rows) >= 4
    for row in rows:
        for code in re.findall(r"`([a-z0-9_]+)`", row.split("|")[1]):
            assert code in known, f"{code} in {page.name}"


@pytest.mark.parametrize("page", BOARDS, ids=lambda page: page.stem)
def test_commands_exist_and_uris_have_drivers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"`(hwnas [^`]+)`", text)
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines += [line for line in block.splitlines() if line.startswith("hwnas ")]
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        command: click.Command = hwnas
        context = click.Context(command)
        while words and isinstance(command, click.Group):
            word = words.pop(0)
            found = command.get_command(context, word)
            assert found is not None, f"{page.name}: {line}"
            command = found
        options = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
        for word in words:
            if word.startswith("-"):
                assert word in options, f"{page.name}: {line}: {word}"
            elif re.match(r"[a-z-]+:", word) and not word.startswith("tool:"):
                assert find_driver(DeviceUri.parse(word)), line


def test_every_page_is_in_the_navigation() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w-]+\.md", text))
    assert {page.name for page in DOCS.glob("*.md")} == named
    assert yaml.safe_load(text)["plugins"] == []
