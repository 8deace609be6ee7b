"""An adb server of one's own: other port, other keys, so a developer's devices are left alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Self

from .shell import BoardError, run


class AdbServer:
    """The standard adb server on a free port, with `home` for its keys."""

    def __init__(self, home: Path) -> None:
        """Choose a port; `start` (or ``with``) starts the server."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.environ = {"HOME": str(home), "ANDROID_ADB_SERVER_PORT": str(self.port)}

    def start(self) -> None:
        """Start the server."""
        self.run("start-server")

    def stop(self) -> None:
        """End the server."""
        self.run("kill-server", check=False)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    def connect(self, serial: str) -> None:
        """Attach a board by its address. Raises: BoardError when it does not answer."""
        said = self.run("connect", serial)
        if "connected to" not in said:
            raise BoardError(f"adb connect {serial}: {said.strip()}")

    def run(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run the plain adb client; returns its output. Raises: BoardError when it fails."""
        done = run(["adb", *words], check=check, timeout_s=timeout_s,
                   env={**os.environ, **self.environ})  # fmt: skip
        return done.stdout
