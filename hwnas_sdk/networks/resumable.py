"""Checkpoints, seeds and the place of everything that trains with torch.

A checkpoint is written whole or not at all, holds tensors and plain values only, and names what it
belongs to; a training that is killed and repeated finds its own, and refuses another's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwnas_sdk.core.errors import ConfigError, ModelError
from hwnas_sdk.core.files import write_bytes_atomic


def save_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write `state`; `identity` is plain values: what must agree to go on from it."""
    buffer = io.BytesIO()
    torch.save({"identity": dict(identity), "state": dict(state)}, buffer)
    write_bytes_atomic(path, buffer.getvalue())


def load_checkpoint(
    path: Path,
    identity: Mapping[str, Any],
    take: Callable[[dict[str, Any]], None],
    *,
    of: str,
) -> None:
    """Give what `path` holds to `take`; without a file nothing happens.

    Args:
        path: the file.
        identity: as it was saved with.
        take: puts the state where it belongs; what it raises means a damaged file.
        of: what a file of another identity belongs to, for the error: "another ...".

    Raises: ModelError (``checkpoint_damaged``, ``other_checkpoint``).
    """
    if not path.exists():
        return
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        same = stored["identity"] == dict(identity)
        if same:
            take(stored["state"])
    except Exception as exc:  # torch raises many types for a file that is not its own
        raise ModelError(
            f"the checkpoint {path} cannot be read: {type(exc).__name__}",
            code="checkpoint_damaged",
            hint="delete it to start over",
        ) from exc
    if not same:
        raise ModelError(
            f"the checkpoint {path} belongs to another {of}",
            code="other_checkpoint",
            hint="delete it to start over, or name another file",
        )


def chosen_torch_device(name: str) -> torch.device:
    """Where torch shall work: a place by torch's name, or "auto", cuda where there is one.

    "auto" never means mps, which has no numbers of 64 bits.

    Raises: ConfigError (``unknown_torch_device``) for a place that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a name may be right and the place still missing
    except (RuntimeError, AssertionError) as exc:  # CPU builds assert that they are not others
        raise ConfigError(
            f"torch cannot work on {name!r}: {str(exc).splitlines()[0]}",
            code="unknown_torch_device",
            hint="cpu always works; cuda and mps need torch built for them",
        ) from exc
    return device


@contextlib.contextmanager
def seeded(seed: int, module: nn.Module | None = None) -> Iterator[None]:
    """Seed torch inside, for dropout and initialisation; outside its generators are untouched."""
    devices = {p.device for p in module.parameters() if p.is_cuda} if module is not None else set()
    with torch.random.fork_rng(devices=[device.index for device in devices]):
        torch.manual_seed(seed)
        yield
