"""`hwnas bench simulator`: a simulated accelerator against the published table of that accelerator.

The simulator reads its description and nothing else; the table serves for judging alone. Rank
correlation proves little here (counting multiply-accumulates gives as much), so the ratios of what
a 3x3 convolution, a 1x1 convolution and a pooling cost are compared: on both sides they are the
least-squares coefficients of the counts of these operators in the cell.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.devices.drivers.simulator import described
from hwnas_sdk.predictors.metrics import agreement
from hwnas_sdk.report.simulator_plots import draw_roofline, draw_scatter
from hwnas_sdk.simulators.description import AcceleratorDescription
from hwnas_sdk.simulators.simulator import LayerCost, Simulator
from hwnas_sdk.simulators.workload import ArrayWork, Pooling
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.tables import BenchTables, load_tables

Floats = NDArray[np.float64]

OPERATORS: Final = ("conv3x3", "conv1x1", "avgpool")
_GENES: Final = (3, 2, 4)
"""Numbers of `OPERATORS` in a NAS-Bench-201 genotype."""
_FULL_CELL: Final = (3, 2, 4, 1, 3, 2)
"""A cell with every operator: its network has every layer that networks of the space have."""
PUBLISHED_POOLING: Final[Mapping[str, Pooling]] = {"eyeriss": "dense_conv", "fpga": "modelled"}
"""Convention of HW-NAS-Bench's columns: its Eyeriss charges pooling like a dense convolution."""
_CONVENTIONS: Final[tuple[Pooling, ...]] = ("modelled", "dense_conv")
_TASK: Final = "bench simulator"
_EVENTS_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Simulated:
    """Costs of all networks by one pooling convention; energies without and with outer memory."""

    latency_ms: Floats
    energy_mj: Floats
    outer_energy_mj: Floats


def run_bench_simulator(
    data_dirs: Sequence[Path],
    *,
    simulator: str,
    dataset: str = "cifar10",
    table: str | None = None,
    pooling: Pooling | None = None,
    plots: Path | None = None,
    every: int = 1,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Simulate every network of the table and compare.

    Args:
        data_dirs: folders of public tables.
        simulator: "eyeriss", "fpga" or the path of a description.
        dataset: sets the networks' input and the table's column.
        table: column to compare with, ``{dataset}_{table}``; by default the simulator's name.
        pooling: convention of the figures that lead; by default the one of the published column.
            The figures of both are always there.
        plots: folder for a roofline and a scatter plot (PNG), None for none.
        every: use only every so many networks of the table, to try a description quickly.
        on_event: told as it goes on.

    Returns the JSON document of the contract, with the coefficients behind the ratios (cost of one
    operator on all its places in a network, ms or mJ, and the constant), the table of different
    layers, and how long a first network takes without any stored layer cost.

    Raises: ConfigError for an unknown simulator, column or description; DataError for missing
        tables; MissingExtraError without the extra ``sim``.
    """
    description = described(simulator)
    column = table or (simulator if simulator in PUBLISHED_POOLING else "eyeriss")
    lead = pooling or PUBLISHED_POOLING.get(column, "modelled")
    space = get_space("nasbench201")
    if dataset not in space.datasets:
        raise ConfigError(
            f"unknown data set {dataset!r}", hint=f"one of {', '.join(space.datasets)}"
        )
    tables = load_tables(data_dirs)
    published = {
        metric: _column(tables, f"{dataset}_{column}", metric)[::every]
        for metric in ("latency", "energy")
    }
    genotypes = tables.genotypes[::every]
    full = space.layers(space.architecture(_FULL_CELL), dataset=dataset)
    first_s, first_cpu_s = _first_network_s(description, full)
    simulators = {
        name: Simulator(description, cache_folder=_resources.simulator_cache_path(), pooling=name)
        for name in _CONVENTIONS
    }
    for one in simulators.values():  # the cache is warm from here on
        one.cost(full)
    started, started_cpu = time.perf_counter(), time.process_time()
    simulated = _simulate(simulators, space, genotypes, dataset, on_event)
    spent, spent_cpu = time.perf_counter() - started, time.process_time() - started_cpu
    counts = operator_counts(genotypes)
    figures = {
        name: _figures(simulated[name], published, counts, description) for name in _CONVENTIONS
    }
    layers = _layer_rows(simulators["modelled"], full)
    drawn: list[str] = []
    if plots is not None:
        drawn = [
            str(draw_roofline(layers, description, plots / f"{description.name}-roofline.png")),
            str(
                draw_scatter(
                    {name: found.latency_ms for name, found in simulated.items()},
                    published["latency"],
                    title=f"{description.name} against {dataset}_{column}",
                    path=plots / f"{description.name}-{dataset}-scatter.png",
                )
            ),
        ]
    return {
        **figures[lead],
        "simulator": simulator,
        "table": f"{dataset}_{column}",
        "dataset": dataset,
        "pooling": lead,
        "conventions": figures,
        "description": description.content_hash,
        "engine_version": simulators[lead].engine_version,
        "clock_mhz": description.clock_mhz,
        "energy_scope": description.energy.scope,
        "layers": layers,
        "plots": drawn,
        "n": len(genotypes),
        "first_network_s": round(first_s, 3),
        "first_network_cpu_s": round(first_cpu_s, 3),
        "all_networks_s": round(spent, 3),
        "all_networks_cpu_s": round(spent_cpu, 3),
        "archs_per_s": round(len(genotypes) / spent, 1),
    }


def operator_counts(genotypes: NDArray[np.int64]) -> Floats:
    """Numbers of `OPERATORS` in each cell, (n, 3)."""
    return np.stack([(genotypes == gene).sum(axis=1) for gene in _GENES], axis=1).astype(float)


def coefficients(values: Floats, counts: Floats) -> tuple[Floats, float]:
    """Least squares of `values` (n,) on a constant and `counts` (n, 3).

    Returns the constant followed by the cost of one operator each, (4,), and R2.
    """
    design = np.column_stack([np.ones(len(counts)), counts])
    solution: Floats = np.linalg.lstsq(design, values, rcond=None)[0].astype(np.float64)
    residual = values - design @ solution
    total = float(((values - values.mean()) ** 2).sum())
    return solution, 1.0 - float((residual**2).sum()) / total if total > 0.0 else 1.0


def compare(predicted: Floats, truth: Floats, counts: Floats) -> dict[str, Any]:
    """Agreement of two columns over rows, and of the cost ratios behind them.

    Ratios are relative to the operator that is cheapest in the published column.
    """
    known = np.isfinite(truth)
    predicted, truth, counts = predicted[known], truth[known], counts[known]
    ours, our_r2 = coefficients(predicted, counts)
    theirs, their_r2 = coefficients(truth, counts)
    unit = int(np.argmin(theirs[1:])) + 1
    cost_ratios, published_ratios = ours[1:] / ours[unit], theirs[1:] / theirs[unit]
    agreed = agreement(truth, predicted)
    return {
        "spearman": agreed.spearman,
        "kendall": agreed.kendall,
        "mape_pct": agreed.mape_pct,
        "median_ape_pct": agreed.median_ape_pct,
        "cost_ratios": dict(zip(OPERATORS, cost_ratios.tolist(), strict=True)),
        "published_ratios": dict(zip(OPERATORS, published_ratios.tolist(), strict=True)),
        "worst_ratio_error_pct": float(np.abs(cost_ratios / published_ratios - 1.0).max() * 100.0),
        "coefficients": dict(zip(("constant", *OPERATORS), ours.tolist(), strict=True)),
        "published_coefficients": dict(zip(("constant", *OPERATORS), theirs.tolist(), strict=True)),
        "r2": our_r2,
        "published_r2": their_r2,
    }


def _column(tables: BenchTables, device: str, metric: str) -> Floats:
    columns = tables.metric(metric)
    if device not in columns:
        raise DataError(
            f"the tables hold no {metric} of {device!r}",
            code="column_missing",
            hint="HW-NAS-Bench's columns are named {dataset}_{device}; name one with --table",
        )
    return columns[device]


def _first_network_s(description: AcceleratorDescription, graph: LayerGraph) -> tuple[float, float]:
    """Seconds for the first network of a new description, and seconds of processor time.

    Nothing is stored, and the engine is not imported yet.
    """
    started, started_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        Simulator(description, cache_folder=Path(folder)).cost(graph)
    return time.perf_counter() - started, time.process_time() - started_cpu


def _simulate(
    simulators: Mapping[Pooling, Simulator],
    space: SearchSpace,
    genotypes: NDArray[np.int64],
    dataset: str,
    on_event: EventSink,
) -> dict[Pooling, Simulated]:
    rows: dict[Pooling, list[tuple[float, float, float]]] = {name: [] for name in simulators}
    for number, genotype in enumerate(genotypes, start=1):
        graph = space.layers(space.architecture(genotype), dataset=dataset)
        tally = simulators["modelled"].tally(graph)
        for name, simulator in simulators.items():
            cost = simulator.price(tally)
            rows[name].append((cost.latency_ms, cost.energy_mj, cost.outer_energy_mj))
        if number % _EVENTS_EVERY == 0 or number == len(genotypes):
            on_event(Event(_TASK, number, len(genotypes)))
    return {name: Simulated(*np.array(found).T) for name, found in rows.items()}


def _figures(
    simulated: Simulated,
    published: Mapping[str, Floats],
    counts: Floats,
    description: AcceleratorDescription,
) -> dict[str, Any]:
    figures = {
        "latency": compare(simulated.latency_ms, published["latency"], counts),
        "energy": compare(simulated.energy_mj, published["energy"], counts),
    }
    if description.energy.scope == "chip" and description.energy.power_w is None:
        whole = simulated.energy_mj + simulated.outer_energy_mj
        figures["energy_with_outermost_memory"] = compare(whole, published["energy"], counts)
    return figures


def _layer_rows(simulator: Simulator, graph: LayerGraph) -> list[dict[str, Any]]:
    """Every different layer of `graph` that costs something."""
    costs = (cost for cost, _ in simulator.cost(graph).layers if cost.kind != "free")
    seen = {(cost.op, cost.work): cost for cost in costs}
    return [_layer_row(cost, simulator.description) for cost in seen.values()]


def _layer_row(cost: LayerCost, description: AcceleratorDescription) -> dict[str, Any]:
    work = cost.work
    cycles = cost.latency_ms * description.clock_mhz * 1e3
    row: dict[str, Any] = {
        "op": cost.op,
        "kind": cost.kind,
        "macs": cost.macs,
        "latency_us": cost.latency_ms * 1e3,
        "energy_uj": cost.energy_mj * 1e3,
        "outer_kib": cost.outer_bytes / 1024,
        "macs_per_byte": cost.macs / cost.outer_bytes if cost.outer_bytes else None,
        "utilisation": cost.macs / cycles / description.array.n_elements if cycles else None,
        "mapping": cost.note,
    }
    if isinstance(work, ArrayWork):
        row["shape"] = (
            f"{work.FY}x{work.FX}, {work.C * work.G}->{work.K * work.G}, {work.OY}x{work.OX}"
        )
    else:
        row["shape"] = f"{work.words_in} -> {work.words_out} words"  # type: ignore[union-attr]
    return row
