"""What `hwnas bench search` compares. A new method is one function and one line here.

A method gets an `Entry` (one device, one seed) and returns the rows it proposes, one array per
round. Everything it may know is on the entry; whatever it asks of the oracle is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hwnas_sdk.workflows.entrants.entry import Entry
    from hwnas_sdk.workflows.search_protocol import Rows


@dataclass(frozen=True, slots=True)
class Method:
    """Where a method lives, ``module:function``, and one line about it."""

    target: str
    summary: str


METHODS: Final[dict[str, Method]] = {
    "auto": Method("auto:auto", "active accuracies, expected hypervolume over the whole space"),
    "rank": Method("rank:rank", "evolution guided by the expected Pareto rank (HW-PR-NAS)"),
    "modnas": Method("modnas:modnas", "one hypernetwork for all devices; a choice of its answers"),
    "modnas-look-up": Method("modnas:modnas_look_up", "the same, one answer per preference"),
    "rhpn": Method("modnas:random_hypernetwork", "that, random and never trained"),
    "random": Method("evolution:random", "candidates at random, nothing used"),
    "auto-stratified": Method("auto:auto_stratified", "ablation: auto without active accuracies"),
    "nsga2": Method("evolution:nsga2", "NSGA-II on two independent predictors"),
    "brp-nas": Method("baselines:brp_nas", "NSGA-II on BRP-NAS' predictors, this device's labels"),
    "gates": Method("baselines:gates", "NSGA-II on GATES' predictors, this device's labels only"),
    "lemonade": Method("baselines:lemonade", "LEMONADE, latency as the cheap objective"),
    "local-search": Method("baselines:local_search", "neighbours of the non-dominated set"),
    "mo-rea": Method("baselines:mo_rea", "multi-objective regularised evolution"),
    "ofa": Method("baselines:ofa", "evolution under 24 latency bounds (once-for-all)"),
    "metad2a": Method("baselines:metad2a", "the most accurate of 500 under 24 latency bounds"),
}


def find_method(name: str) -> Callable[[Entry], list[Rows]]:
    """Import the method `name`. Raises: KeyError for an unknown one."""
    module, _, attribute = METHODS[name].target.partition(":")
    method: Callable[[Entry], list[Rows]] = getattr(
        import_module(f"{__package__}.{module}"), attribute
    )
    return method
