"""Running commands on the host, with errors of one line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class BoardError(RuntimeError):
    """What went wrong with the emulated board, in one line."""


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    timeout_s: float = 60.0,
    input_text: str | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end, text in and out.

    Raises: BoardError when it fails and `check` is set, or when it is missing or too slow.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
            env=env,
        )
    except FileNotFoundError as exc:
        raise BoardError(f"{words[0]} is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise BoardError(f"{' '.join(words)[:120]} took more than {timeout_s:.0f} s") from exc
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        why = lines[-1] if lines else f"status {done.returncode}"
        raise BoardError(f"{' '.join(words)[:200]}: {why}")
    return done
