"""What the workflow verbs share: the lab, common options, and how their answers look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import prior_option

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.settings import MeasureSettings
    from hwnas_sdk.core.types import Verdict
    from hwnas_sdk.devices.session import DeviceSession
    from hwnas_sdk.workflows.lab import Lab
    from hwnas_sdk.workflows.search import SearchPlan

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")

SETTINGS = ("quick", "standard", "publication", "fixed")
METHODS = (
    "auto", "modnas", "nsga2", "rank", "random", "lemonade", "local-search", "mo-rea", "ofa",
)  # fmt: skip
RUNTIMES = ("ort", "tvm")


def open_lab(app: App) -> Lab:
    """The lab of this user (or of ``--db``), open until the command ends."""
    from hwnas_sdk.workflows.lab import Lab

    return app.keep_open(Lab.open(db=app.store_path, on_event=app.progress))


def settings_options(function: FC) -> FC:
    """``--settings`` and ``--threads``."""
    function = click.option(
        "--settings",
        type=click.Choice(SETTINGS),
        default="quick",
        show_default=True,
        help="How long and how precisely each network is measured.",
    )(function)
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Threads the runtime may use on the board.",
    )(function)


def runtime_option(help_text: str = "What runs the network on the board.") -> Callable[[FC], FC]:
    """``--runtime ort|tvm``."""
    return click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="ort",
        show_default=True,
        help=help_text,
    )


def warn_untuned(app: App, session: DeviceSession, settings: MeasureSettings) -> None:
    """Say once that TVM without tuning is no measure of what the board can do."""
    from hwnas_sdk.workflows.runtime import UNTUNED, is_untuned

    if settings.runtime == "tvm" and is_untuned(session, settings):
        app.note(f"warning: {UNTUNED}")


def search_options(function: FC) -> FC:
    """What a search is asked for."""
    for option in reversed(
        [
            click.option(
                "--method",
                type=click.Choice(METHODS),
                default="auto",
                show_default=True,
                help="auto scores a small space as a whole, evolves in a large one; modnas asks a "
                "trained hypernetwork and searches nothing; rank evolves by the expected Pareto "
                "rank (HW-PR-NAS). lemonade, local-search, mo-rea (regularised evolution), ofa "
                "(evolution per latency bound) and random are there to compare.",
            ),
            click.option(
                "--hypernetwork",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Hypernetwork of method modnas, see 'hwnas train hypernetwork'.  [default: "
                "the shipped one]",
            ),
            click.option(
                "--ranker",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Scores of method rank, a file of 'hwnas train rank' for this device.  "
                "[default: the expected rank under what the profile says]",
            ),
            prior_option(),
            click.option(
                "--objectives",
                default="error,latency",
                show_default=True,
                metavar="LIST",
                help="What to minimise: two or three of error, latency, energy, memory.",
            ),
            click.option(
                "--candidates",
                type=click.IntRange(min=1, max=1000),
                default=24,
                show_default=True,
                help="Networks to propose.",
            ),
            click.option(
                "--max-latency-ms",
                type=click.FloatRange(min=0, min_open=True),
                help="Propose only networks predicted to be at most this slow.",
            ),
            click.option(
                "--max-memory-mib",
                type=click.FloatRange(min=0, min_open=True),
                help="Propose only networks predicted to need at most this much memory.",
            ),
        ]
    ):
        function = option(function)
    return function


def make_settings(settings: str, threads: int, **changes: Any) -> MeasureSettings:
    """Settings of the options."""
    from hwnas_sdk.core.settings import settings_preset

    return settings_preset(settings, threads=threads, **changes)


def make_search_plan(options: Mapping[str, Any], *, seed: int) -> SearchPlan:
    """Search plan of `search_options`.

    Raises: ConfigError for an unknown objective; as `check_guide` for a file that cannot be used.
    """
    from hwnas_sdk.workflows.search import SearchPlan
    from hwnas_sdk.workflows.search_guides import check_guide

    plan = SearchPlan(
        method=options["method"],
        hypernetwork=options["hypernetwork"],
        ranker=options["ranker"],
        prior=options["prior"],
        objectives=tuple(part.strip() for part in options["objectives"].split(",")),
        candidates=options["candidates"],
        max_latency_ms=options["max_latency_ms"],
        max_memory_mib=options["max_memory_mib"],
        seed=seed,
    )
    check_guide(plan)
    return plan


def duration(seconds: float) -> str:
    """``45 s``, ``2 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def announce(app: App, n_networks: int, seconds: float, session: DeviceSession) -> None:
    """The estimate every long verb prints before it starts; a table or a model takes no time."""
    device = session.spec.name
    if session.needs_artifacts:
        app.note(f"about {duration(seconds)} on {device} for {n_networks} networks")
    else:
        app.note(f"networks on {device}: {n_networks}, {session.origin}, no board time")


def show_plan(app: App, plan: Mapping[str, Any]) -> None:
    """Answer of ``--dry-run``."""

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts

        console.print(facts(plan, title="plan (nothing was done)"))

    app.show({"dry_run": True, **plan}, draw)


def draw_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Table of each round's candidates and a line of figures under it."""
    from hwnas_sdk.cli.render import table

    for verdict in verdicts:
        word = _ORIGIN_WORDS[verdict.origin]
        has_energy = any(row.energy_mj is not None for row in verdict.candidates)
        rows = [
            (
                shown_arch(row.arch, console),
                row.error_pct,
                row.predicted_ms,
                row.measured_ms,
                None if row.ci95_ms is None else f"±{row.ci95_ms:.2g}",
                row.peak_memory_mib,
                *((row.predicted_mj, row.energy_mj) if has_energy else ()),
                "yes" if row.on_measured_front else "",
                _shown_flags(row.flags),
            )
            for row in sorted(verdict.candidates, key=lambda r: r.measured_ms or float("inf"))
        ]
        columns = (
            "network", "error % (predicted)", "predicted ms", f"{word} ms", "95 %", "peak MiB",
            *(("predicted mJ", f"{word} mJ") if has_energy else ()), "front", "flags",
        )  # fmt: skip
        console.print(table(columns, rows, title=f"round {verdict.round}"))
        console.print(
            f"{verdict.n_measured} of {len(verdict.candidates)} {word}; predicted vs {word}: "
            f"Spearman {_figure(verdict.spearman)}, Kendall {_figure(verdict.kendall)}, "
            f"mean error {_figure(verdict.mape_pct, 1)} %; "
            f"{len(verdict.dominated_after_measuring)} fell off the front",
            markup=False,
        )
        if hint := why_not_measured(verdict):
            console.print(hint, markup=False)


def why_not_measured(verdict: Verdict) -> str:
    """What spoilt most of the candidates that have no valid measurement, and what to do; or ""."""
    from hwnas_sdk.core.flags import INVALIDATING, UNSTEADY

    missing = [row for row in verdict.candidates if row.measured_ms is None]
    if not missing:
        return ""
    said = f"{len(missing)} without a valid measurement"
    spoilt = Counter(flag for row in missing for flag in row.flags if flag in INVALIDATING)
    if not spoilt:  # the runtime refused or crashed, and such a record has no flag
        return f"{said}: they failed on the device"
    flag, n = spoilt.most_common(1)[0]
    said += f", {n} of them {flag}: {INVALIDATING[flag]}"
    busy = "; 'hwnas doctor' says what disturbs, on a quiet machine the same command gets more"
    return said + (busy if flag in UNSTEADY else "")


_ORIGIN_WORDS: Mapping[str, str] = {
    "measured": "measured", "simulated": "simulated", "imported": "table", "predicted": "predicted",
}  # fmt: skip
"""What a device's numbers are called: a model's are never a measurement."""

NARROW = 140
"""Columns below which networks are shown as #INDEX, which every command takes as well."""


def shown_arch(arch: str, console: Console) -> str:
    """A network's string, or its official index where the terminal is narrow."""
    if console.width >= NARROW or not arch.startswith("|"):
        return arch
    from hwnas_sdk.spaces.nasbench201 import NasBench201

    space = NasBench201()
    return f"#{space.index(space.decode(arch))}"


def _shown_flags(flags: Sequence[str]) -> str:
    """Flags that say something of this one network; those of the whole machine are in the page."""
    of_machine = {
        "virtualised", "governor_not_pinned", "affinity_denied", "nice_denied", "output_unchecked",
    }  # fmt: skip
    return " ".join(flag for flag in flags if flag not in of_machine)


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
