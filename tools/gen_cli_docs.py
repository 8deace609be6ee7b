"""Write docs/reference-cli.md from the commands themselves.

python tools/gen_cli_docs.py            write it
python tools/gen_cli_docs.py --check    exit 1 when it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from hwnas_sdk.cli.main import hwnas

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference-cli.md"
WIDTH = 96
HEAD = """# Command reference

Written by `tools/gen_cli_docs.py` from the commands themselves; do not edit.

With `--json` a command prints one JSON document on stdout and nothing else there; when it fails,
that document is `{"error": {"code", "message", "hint"}}`. Progress and errors go to stderr, one
line for each error.

| exit code | meaning |
|---|---|
| 0 | ok |
| 2 | usage |
| 3 | configuration |
| 4 | device |
| 5 | measurement quality |
| 6 | data |
| 75 | interrupted; the same command continues |
| 1 | anything else |
"""


def commands(
    command: click.Command, path: str, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command below `command` with its path and context, groups first."""
    context = click.Context(
        command,
        info_name=path.rpartition(" ")[2],
        parent=parent,
        terminal_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}", context)


def reference() -> str:
    """Text of the page."""
    parts = [HEAD]
    for path, command, context in commands(hwnas, "hwnas"):
        text = command.get_help(context).rstrip()
        parts.append(f"## `{path}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    text = reference()
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.name} is out of date: run python tools/gen_cli_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
