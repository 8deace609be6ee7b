"""The console script `hwnas`: the list of verbs, and what an error looks like.

Exit codes: 0 ok, 2 usage, 3 configuration, 4 device, 5 measurement quality, 6 data,
75 interrupted (the same command continues), 1 anything else.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.errors import CONTINUES, STARTS_OVER, document_of, exit_code_of, failures_of
from hwnas_sdk.cli.lazy import LazyGroup, LazyVerb

VERBS = {
    "quickstart": LazyVerb(
        "quickstart_cmd:quickstart",
        "Find the best networks for this machine, measured, in a few minutes.",
    ),
    "doctor": LazyVerb("doctor_cmd:doctor", "Check this machine and each board; print the fixes."),
    "devices": LazyVerb("devices_cmd:devices", "Add, list, probe and remove boards."),
    "profile": LazyVerb("profile_cmd:profile", "Measure the reference networks on a device."),
    "measure": LazyVerb("measure_cmd:measure", "Measure networks or your own ONNX file."),
    "search": LazyVerb("search_cmd:search", "Search the best trade-offs for a device."),
    "select": LazyVerb("select_cmd:select", "Keep the candidates that do well on images."),
    "verify": LazyVerb("verify_cmd:verify", "Measure the candidates of a search and compare."),
    "loop": LazyVerb("loop_cmd:loop", "Measure, learn, search and verify, round after round."),
    "report": LazyVerb("report_cmd:report", "Write one offline HTML page about a run."),
    "compare": LazyVerb("compare_cmd:compare", "Compare two runs, boards or OS versions."),
    "export": LazyVerb("export_cmd:export", "Write one network as an ONNX file or a TVM library."),
    "tune": LazyVerb("tune_cmd:tune", "Tune TVM's schedules for a device, each layer once."),
    "train": LazyVerb("train_cmd:train", "Train a predictor or a network and write it as a file."),
    "runs": LazyVerb("runs_cmd:runs", "List what was run."),
    "store": LazyVerb("store_cmd:store", "Inspect, check and export the measurements."),
    "bench": LazyVerb("bench_cmd:bench", "Check this package's claims on public tables."),
}


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(None, "--version", package_name="hwnas-sdk", help="Show the version.")
def hwnas() -> None:
    """Measure neural networks on your board, learn from the numbers, search, and check again.

    Exit codes: 0 ok, 2 usage, 3 configuration, 4 device, 5 measurement quality, 6 data,
    75 interrupted (the same command continues), 1 anything else.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None takes the process's own and also ends politely on SIGTERM.

    Returns: the exit code.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _terminate_like_interrupt()
    if "_HWNAS_COMPLETE" in os.environ:
        hwnas.main(prog_name="hwnas")
    with App(stdout=sys.stdout, stderr=sys.stderr) as app:
        app.as_json = "--json" in args
        app.verbosity = sum(arg.count("v") for arg in args if re.fullmatch(r"-[qv]+", arg))
        try:
            code = _run(args, app)
            app.close()  # here, so that an error while closing is reported like any other
        except BrokenPipeError:
            app.abandon_stdout()
            return 1
        except Exception as exc:  # noqa: BLE001  the outermost frame: every error is one line
            return _fail(app, exc)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            return _fail(app, exc)
        return code


def _run(args: list[str], app: App) -> int:
    try:
        with hwnas.make_context("hwnas", args, obj=app) as ctx:
            hwnas.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return exc.exit_code
    finally:
        sys.stdout.flush()
    return 0


def _fail(app: App, error: BaseException) -> int:
    failures = failures_of(error, interrupted=STARTS_OVER if app.starts_over else CONTINUES)
    try:
        app.close()
    except Exception as exc:  # noqa: BLE001  the error while closing is listed after the first
        failures += failures_of(exc)
    if app.verbosity >= 2:
        traceback.print_exception(error, file=app.stderr)
    for failure in failures:
        print(failure.line, file=app.stderr)
    if app.as_json and not app.emitted:
        app.emit(document_of(failures))
    return exit_code_of(failures)


def _terminate_like_interrupt() -> None:
    """Let SIGTERM and SIGHUP close sessions and the store as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


if __name__ == "__main__":
    sys.exit(main())
