"""What every verb has in common: exit codes, one-line errors, JSON purity, interruption."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import click
import pytest

from hwnas_sdk.cli import main as cli_main
from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.errors import exit_code_of, failures_of
from hwnas_sdk.cli.lazy import LazyGroup
from hwnas_sdk.cli.main import hwnas, main
from hwnas_sdk.cli.options import names, verb
from hwnas_sdk.core import errors as core_errors
from hwnas_sdk.core.errors import (
    ConfigError,
    DataError,
    DeviceError,
    HwnasError,
    MeasurementError,
    MissingExtraError,
    ModelError,
    SpaceError,
)

Probe = Callable[[Callable[[App], None]], None]


@pytest.fixture
def probe_verb() -> Iterator[Probe]:
    """Add a real verb `probe-verb` that runs a function of the test."""

    def add(function: Callable[[App], None]) -> None:
        @click.command("probe-verb")
        @verb
        def command(app: App) -> None:
            function(app)

        hwnas.add_command(command)

    yield add
    hwnas.commands.pop("probe-verb", None)


def _raiser(error: BaseException) -> Callable[[App], None]:
    def run(app: App) -> None:
        raise error

    return run


def test_every_error_class_has_the_exit_code_of_the_contract() -> None:
    expected = {
        "ConfigError": 3,
        "SpaceError": 3,
        "ExportError": 3,
        "MissingExtraError": 3,
        "DeviceError": 4,
        "MeasurementError": 5,
        "DataError": 6,
        "ModelError": 6,
    }
    classes = {
        name: value
        for name, value in vars(core_errors).items()
        if isinstance(value, type) and issubclass(value, HwnasError) and value is not HwnasError
    }
    assert {name: value.exit_code for name, value in classes.items()} == expected


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (HwnasError("odd"), 1),
        (ConfigError("wrong option", hint="use another"), 3),
        (SpaceError("no cell"), 3),
        (MissingExtraError("torch", "torch", purpose="training"), 3),
        (DeviceError("board pi does not answer", device_id="pi", code="unreachable"), 4),
        (MeasurementError("too noisy", hint="wait"), 5),
        (DataError("damaged"), 6),
        (ModelError("no card"), 6),
        (KeyboardInterrupt(), 75),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 6),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 6),
        (RuntimeError("a bug\nwith two lines"), 1),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException,
    exit_code: int,
    probe_verb: Probe,
    capsys: pytest.CaptureFixture[str],
) -> None:
    probe_verb(_raiser(error))

    assert main(["probe-verb"]) == exit_code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def test_an_error_line_has_message_hint_and_code(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_verb(_raiser(DeviceError("board pi is busy", code="board_busy", hint="wait a minute")))
    main(["probe-verb"])
    assert capsys.readouterr().err == "error: board pi is busy (wait a minute) [board_busy]\n"


def test_an_internal_error_says_how_to_get_the_traceback(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_verb(_raiser(ZeroDivisionError("division by zero")))
    assert main(["probe-verb"]) == 1
    err = capsys.readouterr().err
    assert err == (
        "internal error: ZeroDivisionError: division by zero "
        "(run again with -vv for the traceback)\n"
    )
    assert main(["probe-verb", "-vv"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_says_that_the_same_command_continues(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_verb(_raiser(KeyboardInterrupt()))
    assert main(["probe-verb"]) == 75
    assert capsys.readouterr().err == "interrupted; run the same command to continue\n"


def test_a_group_of_errors_gives_one_line_each(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    group = ExceptionGroup(
        "boards",
        [
            DeviceError("a is off"),
            ExceptionGroup("inner", [DeviceError("b is off"), MeasurementError("c is noisy")]),
        ],
    )
    probe_verb(_raiser(group))
    assert main(["probe-verb", "--json"]) == 5
    captured = capsys.readouterr()
    assert [line.split(" [")[0] for line in captured.err.splitlines()] == [
        "error: a is off",
        "error: b is off",
        "error: c is noisy",
    ]
    document = json.loads(captured.out)
    assert document["error"]["message"] == "a is off"
    assert len(document["errors"]) == 3


def test_an_interruption_inside_a_group_wins() -> None:
    group = BaseExceptionGroup("x", [DeviceError("a is off"), KeyboardInterrupt()])
    assert exit_code_of(failures_of(group)) == 75


@pytest.mark.parametrize("arguments", [["nonsense"], ["probe-verb", "--nonsense"]])
def test_a_usage_error_with_json_is_one_document(
    arguments: list[str], probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_verb(lambda app: None)
    assert main([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "usage"
    assert captured.err.count("\n") == 1


def test_an_error_with_json_is_one_document(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_verb(_raiser(DataError("damaged", code="store_damaged", hint="restore the backup")))
    assert main(["probe-verb", "--json"]) == 6
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {
            "code": "store_damaged",
            "message": "damaged",
            "hint": "restore the backup",
        }
    }


def test_an_error_after_the_answer_adds_no_second_document(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(app: App) -> None:
        app.show({"a": 1}, lambda console: None)
        raise DataError("afterwards")

    probe_verb(run)
    assert main(["probe-verb", "--json"]) == 6
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_stray_prints_of_libraries_never_reach_stdout(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(app: App) -> None:
        print("chatty library")  # noqa: T201
        app.show({"a": float("nan"), "b": [1.5]}, lambda console: None)

    probe_verb(run)
    assert main(["probe-verb", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": None, "b": [1.5]}
    assert captured.err == "chatty library\n"


def test_what_fails_while_closing_is_reported(
    probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    class Board:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *exc: object) -> None:
            raise DeviceError("the board does not let go")

    def run(app: App) -> None:
        app.keep_open(Board())

    probe_verb(run)
    assert main(["probe-verb"]) == 4
    assert capsys.readouterr().err.startswith("error: the board does not let go")


@pytest.mark.parametrize(
    ("flags", "shown"),
    [([], ["warning"]), (["-v"], ["info", "warning"]), (["-vv"], ["debug", "info", "warning"])],
)
def test_the_log_goes_to_stderr(
    flags: list[str], shown: list[str], probe_verb: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(app: App) -> None:
        logger = logging.getLogger("hwnas_sdk.something")
        for level in ("debug", "info", "warning"):
            getattr(logger, level)(level)

    probe_verb(run)
    before = logging.getLogger("hwnas_sdk").handlers[:]
    assert main(["probe-verb", *flags]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.rpartition(" ")[2] for line in captured.err.splitlines()] == shown
    assert logging.getLogger("hwnas_sdk").handlers == before


def test_an_unknown_verb_suggests_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctro"]) == 2
    assert capsys.readouterr().err == (
        "error: hwnas has no command 'doctro' (did you mean 'doctor'?) [usage]\n"
    )


def test_an_unknown_verb_of_a_group_names_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "infoo"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error:")
    assert "info" in err
    assert err.count("\n") == 1


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--jsn"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--json" in err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: hwnas")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip().endswith("0.1.0")


@pytest.mark.parametrize("text", ["", "a,,b", "a,b, a"])
def test_bad_name_lists(text: str) -> None:
    parameter = click.Option(["--devices"])
    with pytest.raises(click.BadParameter):
        names(click.Context(hwnas), parameter, text)


def test_name_lists() -> None:
    parameter = click.Option(["--devices"])
    assert names(click.Context(hwnas), parameter, "a, b,c") == ("a", "b", "c")
    assert names(click.Context(hwnas), parameter, None) is None


def test_every_verb_of_the_table_is_what_the_table_says() -> None:
    def walk(group: LazyGroup) -> None:
        for name, entry in group.verbs.items():
            command = entry.load()
            assert command.name == name
            assert command.get_short_help_str(limit=200) == entry.short_help
            assert len(entry.short_help) <= 75
            if isinstance(command, LazyGroup):
                walk(command)

    assert isinstance(hwnas, LazyGroup)
    walk(hwnas)


def _process(
    arguments: list[str], *, code: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "hwnas_sdk.cli.main"])]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from hwnas_sdk.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'numpy','scipy','pyarrow','onnx','onnxruntime','torch','pymoo','matplotlib',"
        "'rich','pydantic','yaml','sqlite3','jinja2','moocore','platformdirs'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = _process([], code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    for name in cli_main.hwnas.list_commands(click.Context(cli_main.hwnas)):
        assert f"\n  {name} " in done.stdout


def test_a_reader_that_leaves_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "hwnas_sdk.cli.main", "--help"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_politely(number: signal.Signals) -> None:
    code = """
import click, signal, sys, time
# Under nohup, or in the background of a shell, the tests inherit signals that are ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from hwnas_sdk.cli.main import hwnas, main
from hwnas_sdk.cli.options import verb

@hwnas.command("wait")
@verb
def wait(app):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)

sys.argv = ["hwnas", "wait"]
sys.exit(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    started_s = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert err == "interrupted; run the same command to continue\n"
    assert time.monotonic() - started_s < 20
