"""Stable identities: canonical JSON and SHA-256."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Serialise `value` so that equal values give equal text; NaN and infinities are refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def plain(value: Any) -> Any:
    """`value` as a file keeps it: tuples are lists, keys are strings."""
    return json.loads(canonical_json(value))


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def content_id(value: Any, *, length: int = 64) -> str:
    """First `length` hex digits of the SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value).encode())[:length]
