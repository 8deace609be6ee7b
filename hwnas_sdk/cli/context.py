"""What a verb works with: output, store, inventory and cache, each opened when first used."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO, TypeVar

from hwnas_sdk.cli.logs import log_to_stderr
from hwnas_sdk.core.events import EventSink

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.cli.progress import Progress
    from hwnas_sdk.devices.inventory import Inventory
    from hwnas_sdk.devices.session import DeviceSession
    from hwnas_sdk.export.cache import ArtifactCache
    from hwnas_sdk.store.sqlite import MeasurementStore

T = TypeVar("T")


class App:
    """One run of one command. Verbs get it as their first argument.

    Attributes:
        as_json: whether stdout is to carry one JSON document.
        quiet: whether progress is left out.
        verbosity: number of ``-v``.
        db: the store the user named, or None.
        emitted: whether the JSON document was written.
        starts_over: whether the command, interrupted, keeps nothing for the next time.
    """

    def __init__(self, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.as_json = False
        self.quiet = False
        self.verbosity = 0
        self.db: Path | None = None
        self.emitted = False
        self.starts_over = False
        self._progress: Progress | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the progress display; close sessions and the store, last opened first."""
        self.end_progress()
        self._stack.close()

    def configure(self, *, as_json: bool, quiet: bool, verbosity: int, db: Path | None) -> None:
        """Take the options every verb has, and send the library's log to stderr."""
        self.as_json, self.quiet, self.verbosity, self.db = as_json, quiet, verbosity, db
        self._stack.callback(log_to_stderr(verbosity=verbosity, quiet=quiet))

    # --- output ---------------------------------------------------------------------------------

    def show(self, document: object, human: Callable[[Console], None]) -> None:
        """Answer the user: `document` with --json, else what `human` draws on stdout."""
        self.end_progress()
        if self.as_json:
            self.emit(document)
        else:
            from hwnas_sdk.cli.render import stdout_console

            human(stdout_console(self.stdout))
            self.stdout.flush()

    def emit(self, document: object) -> None:
        """Write the one JSON document."""
        from hwnas_sdk.cli.render import json_text

        assert not self.emitted, "stdout carries one JSON document"
        text = json_text(document)
        self.emitted = True  # even when writing fails: half a document must not get another half
        self.stdout.write(text)
        self.stdout.flush()

    def note(self, line: str) -> None:
        """One line for a person, on stderr; left out with -q."""
        if not self.quiet:
            self.end_progress()
            print(line, file=self.stderr)

    @property
    def progress(self) -> EventSink:
        """Where long work reports to: bars on a terminal, plain lines elsewhere."""
        if self._progress is None:
            from hwnas_sdk.cli.progress import Progress

            self._progress = Progress(self.stderr, quiet=self.quiet)
        return self._progress

    def end_progress(self) -> None:
        """Take the progress display down; a later event starts a new one."""
        if self._progress is not None:
            self._progress.close()

    def abandon_stdout(self) -> None:
        """Whoever read stdout has left: keep the interpreter from complaining at exit."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())

    def check_output(self, path: Path | None) -> None:
        """Refuse a place that cannot be written before hours are spent on what goes there.

        Raises: DataError.
        """
        if path is not None:
            from hwnas_sdk.core.files import check_writable

            check_writable(path)

    def keep_open(self, resource: AbstractContextManager[T]) -> T:
        """Enter a context manager and leave it when the command ends."""
        return self._stack.enter_context(resource)

    # --- what verbs work on ---------------------------------------------------------------------

    @property
    def store_path(self) -> Path:
        """The store the user named, or the default one."""
        from hwnas_sdk._resources import default_store_path

        return self.db or default_store_path()

    def store(self, *, read_only: bool = False) -> MeasurementStore:
        """Open the store until the command ends.

        Raises: DataError when it cannot be opened, or is not there and `read_only`.
        """
        from hwnas_sdk.store.sqlite import MeasurementStore

        return self.keep_open(MeasurementStore.open(self.store_path, read_only=read_only))

    def inventory(self) -> Inventory:
        """The device inventory."""
        from hwnas_sdk._resources import inventory_path
        from hwnas_sdk.devices.inventory import Inventory

        return Inventory(inventory_path())

    def cache(self) -> ArtifactCache:
        """The artifact cache."""
        from hwnas_sdk._resources import artifact_cache_path
        from hwnas_sdk.export.cache import ArtifactCache

        return ArtifactCache(artifact_cache_path())

    def session(self, name: str) -> DeviceSession:
        """Open a device until the command ends.

        Raises: ConfigError for an unknown name, DeviceError for a board that does not answer.
        """
        from hwnas_sdk.devices.inventory import open_session

        session = open_session(name, inventory=self.inventory(), on_event=self.progress)
        return self.keep_open(session)
