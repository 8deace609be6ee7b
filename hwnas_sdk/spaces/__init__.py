"""Search spaces. `get_space` finds one by name; plug-ins register under ``hwnas.spaces``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.spaces.base import Genotypes, SearchSpace

__all__ = ["Genotypes", "SearchSpace", "get_space", "space_names"]


@cache
def get_space(name: str) -> SearchSpace:
    """Return the search space called `name`.

    Raises: ConfigError for an unknown name or a plug-in that does not load.
    """
    for entry in entry_points(group="hwnas.spaces", name=name):
        try:
            factory = entry.load()
            space: SearchSpace = factory()
        except Exception as exc:
            raise ConfigError(f"space {name!r} ({entry.value}) does not load: {exc}") from exc
        return space
    raise ConfigError(f"unknown search space {name!r}", hint=f"one of {', '.join(space_names())}")


def space_names() -> tuple[str, ...]:
    """Names of all registered spaces."""
    return tuple(sorted({entry.name for entry in entry_points(group="hwnas.spaces")}))
