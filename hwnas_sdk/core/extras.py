"""Optional packages: what is missing is said in one line, with the extra that brings it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hwnas_sdk.core.errors import MissingExtraError


@contextlib.contextmanager
def needs_torch(purpose: str) -> Iterator[None]:
    """Imports inside need torch, for `purpose`.

    Raises: MissingExtraError without it; another missing module is nobody's extra and passes.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is not None and exc.name.split(".")[0] == "torch":
            raise MissingExtraError("torch", "torch", purpose=purpose) from exc
        raise
