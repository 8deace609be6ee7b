"""What a trained MetaHypernetwork proposes for a device: no search, a look-up per preference."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas_sdk.search.modnas.architect import best_choices
from hwnas_sdk.search.modnas.hypernetwork import MetaHypernetwork

Genotype = tuple[int, ...]
_MOST_TRIES = 2_000


def propose(
    net: MetaHypernetwork, device: NDArray[np.floating], preferences: NDArray[np.floating]
) -> NDArray[np.int64]:
    """The most probable architecture for each preference on a device (MODNAS, section 3).

    Shapes: device (k,), preferences (n, m) on the simplex -> genotypes (n, d), duplicates kept:
    a converged hypernetwork has one architecture for many preferences.
    """
    genotypes: NDArray[np.int64] = best_choices(_logits(net, device, preferences)).numpy()
    return genotypes


def propose_distinct(
    net: MetaHypernetwork,
    device: NDArray[np.floating],
    preferences: NDArray[np.floating],
    *,
    may: Callable[[Genotype], bool] | None = None,
) -> NDArray[np.int64]:
    """One architecture per preference, none twice: what is taken gives way to the next likely.

    The released code proposes 24 architectures of which 6 to 9 differ; measuring one of them twice
    tells nothing. Preferences take turns: first every one's favourite, then the runners-up.

    Args:
        net: trained on the space.
        device: its vector, (k,).
        preferences: (n, m) on the simplex.
        may: which architectures can be proposed at all, for example live ones; None: all.

    Shapes: -> (k, d) with k <= n; fewer only when the space has no more.
    """
    logits = torch.log_softmax(_logits(net, device, preferences), dim=-1).numpy()
    ranked = [filter(may, _most_probable_first(rows)) for rows in logits]
    taken: dict[Genotype, None] = {}
    for _ in range(_MOST_TRIES):
        alive = False
        for options in ranked:
            if len(taken) >= len(preferences):
                break
            genotype = next(options, None)
            alive |= genotype is not None
            if genotype is not None:
                taken[genotype] = None
        if len(taken) >= len(preferences) or not alive:
            break
    genotypes = np.array(list(taken), dtype=np.int64)
    return genotypes.reshape(-1, logits.shape[1])


def _logits(
    net: MetaHypernetwork, device: NDArray[np.floating], preferences: NDArray[np.floating]
) -> torch.Tensor:
    told = torch.from_numpy(np.asarray(device, dtype=np.float32))
    rows = torch.from_numpy(np.asarray(preferences, dtype=np.float32))
    with torch.no_grad():
        logits: torch.Tensor = net(rows[None], told[None])[0]
    return logits


def _most_probable_first(log_probabilities: NDArray[np.floating]) -> Iterator[Genotype]:
    """All architectures of independent decisions, (d, c), most probable first."""
    order = np.argsort(-log_probabilities, axis=1, kind="stable")
    values = -np.take_along_axis(log_probabilities, order, axis=1)
    d = len(values)
    start = (0,) * d
    heap = [(float(values[:, 0].sum()), start)]
    seen = {start}
    while heap:
        cost, places = heapq.heappop(heap)
        yield tuple(int(order[i, place]) for i, place in enumerate(places))
        for i in range(d):
            later = (*places[:i], places[i] + 1, *places[i + 1 :])
            if later in seen or later[i] >= values.shape[1] or np.isinf(values[i, later[i]]):
                continue
            seen.add(later)
            step = float(values[i, later[i]] - values[i, places[i]])
            heapq.heappush(heap, (cost + step, later))
