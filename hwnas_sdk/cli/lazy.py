"""A click group whose verbs are imported when they run, and listed without importing any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class LazyVerb:
    """Where a verb lives, and the line shown for it in the list of verbs.

    Attributes:
        target: ``module:attribute`` of a click command; the module is relative to this package.
        short_help: equals the command's own short help (a test compares them).
    """

    target: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(import_module(f"{__package__}.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """A group made of `LazyVerb`s, in the order of the table."""

    def __init__(self, *args: Any, verbs: Mapping[str, LazyVerb], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = dict(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return [*self.verbs, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        verb = self.verbs.get(cmd_name)
        return verb.load() if verb else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        rows = [(name, verb.short_help) for name, verb in self.verbs.items()]
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(limit=100)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that `args` name.

        Raises: click.UsageError with the closest names for a verb that is not there.
        """
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name):
            return super().resolve_command(ctx, args)
        raise UnknownVerbError(ctx, name, self.list_commands(ctx))


class UnknownVerbError(click.UsageError):
    """A verb that is not there, with the names that come close."""

    def __init__(self, ctx: click.Context, name: str, known: Sequence[str]) -> None:
        super().__init__(f"{ctx.command_path} has no command {name!r}", ctx=ctx)
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        self.hint = (
            f"did you mean {' or '.join(repr(text) for text in close)}?"
            if close
            else f"see '{ctx.command_path} --help'"
        )
