"""`hwnas bench`: how anyone checks this package's claims."""

from __future__ import annotations

import click

from hwnas_sdk.cli.lazy import LazyGroup, LazyVerb

VERBS = {
    "latency": LazyVerb(
        "bench_latency_cmd:latency", "Predict unseen devices from a few of their latencies."
    ),
    "search": LazyVerb(
        "bench_search_cmd:search", "Hypervolume of what a search finds on published tables."
    ),
    "rank": LazyVerb("bench_rank_cmd:rank", "Scores against true Pareto ranks."),
    "measure": LazyVerb(
        "bench_measure_cmd:measure", "Speed and repeatability of measuring on a device."
    ),
    "layers": LazyVerb(
        "bench_layers_cmd:layers", "Sums of measured layers against whole networks, on a device."
    ),
    "simulator": LazyVerb(
        "bench_simulator_cmd:simulator", "A simulated accelerator against its published table."
    ),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Check this package's claims on public tables.")
def bench() -> None:
    """Check this package's claims on public tables or on your own board.

    A bench on tables fits its predictors from what its options name and from nothing else: no
    shipped weights, and no more of an unseen device's column than --samples says. 'layers' judges
    the shipped prior, on a device that no table has.
    """
