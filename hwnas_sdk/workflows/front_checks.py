"""Whether a front can be trained on: what is wrong with the file, before hours go into it."""

from __future__ import annotations

import math
from typing import Final

from hwnas_sdk.core.errors import ConfigError, DataError, SpaceError
from hwnas_sdk.core.types import OBJECTIVES, Candidate, ParetoFront
from hwnas_sdk.spaces import SearchSpace, get_space

_OF_SUPERNETS: Final = "nasbench201"


def checked_costs(front: ParetoFront) -> tuple[SearchSpace, list[dict[str, float]]]:
    """The space of a front, and the predicted objectives but the error of each candidate, by key.

    A front is a file that anyone may have edited: what is wrong with it is found here, not after
    hours of training.
    Raises: DataError for an unknown space or objective, for a candidate that is not what its name
        says, is dead, or lacks a cost.
    """
    try:
        space = get_space(str(front.space))
    except ConfigError as exc:
        raise _bad_front(exc.message) from None
    unknown = [n for n in front.objectives if str(n) not in OBJECTIVES]
    if unknown:
        raise _bad_front(f"unknown objective {unknown[0]!r}")
    keys = [OBJECTIVES[name].key for name in front.objectives if name != "error"]
    costs = []
    for number, candidate in enumerate(front.candidates, start=1):
        try:
            if space.is_dead(candidate.architecture):
                raise _bad_front(f"candidate {number} ignores its input")
            if space.encode(candidate.architecture) != candidate.arch:
                raise _bad_front(f"candidate {number} has the name of another network")
        except SpaceError as exc:
            raise _bad_front(f"candidate {number}: {exc.message}") from None
        costs.append({key: _cost(candidate, number, key) for key in keys})
    return space, costs


def _cost(candidate: Candidate, number: int, key: str) -> float:
    try:
        value = float(candidate.values[key])
    except KeyError:
        raise _bad_front(f"candidate {number} has no {key}") from None
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise _bad_front(f"the {key} of candidate {number} is no number")
    return value


def _bad_front(reason: str) -> DataError:
    return DataError(
        f"the front cannot be used: {reason}",
        code="bad_front",
        hint="write it again with 'hwnas search -o FRONT.json'",
    )


def refuse_other_space(space: SearchSpace) -> None:
    """Raise DataError unless supernetworks have the networks of `space`."""
    if space.name != _OF_SUPERNETS:
        raise DataError(
            f"a supernetwork has the networks of {_OF_SUPERNETS}, the front those of {space.name}",
            code="bad_front",
            hint="leave --supernet out, with --by sotl",
        )
