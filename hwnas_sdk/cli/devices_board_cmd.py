"""`hwnas devices trust | setup | clean`: what makes a board ready, and what tidies it up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.devices_rows import device_row, draw_device, entry_of, next_steps, remember
from hwnas_sdk.cli.options import verb
from hwnas_sdk.core.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.devices.known_hosts import HostKey
    from hwnas_sdk.devices.session import Cleaned
    from hwnas_sdk.devices.setup import SetupResult
    from hwnas_sdk.devices.uri import DeviceUri


# --- trust --------------------------------------------------------------------------------------


@click.command(short_help="Show a board's host key and trust it.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option(
    "--fingerprint",
    metavar="SHA256:...",
    help="Trust the key only if this is its fingerprint (for scripts).",
)
@click.option("--replace", is_flag=True, help="Also when another key is trusted by now.")
@verb
def trust(app: App, *, name: str, yes: bool, fingerprint: str | None, replace: bool) -> None:
    """Show the host key of the board NAME (reached by SSH) and trust it from now on.

    Compare the fingerprint with what the board itself shows:
    ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

    On a terminal it asks first; elsewhere giving the command is the consent, and --fingerprint
    makes sure of the key. A key that has changed is refused without --replace.
    """
    from hwnas_sdk.devices import known_hosts

    name, uri = entry_of(app, name)
    if uri.scheme != "ssh":
        raise ConfigError(
            f"{name!r} ({uri.text}) has no host key", hint="only boards reached by ssh:// have one"
        )
    key = known_hosts.fetch_host_key(uri, name=name)
    if not replace:
        known_hosts.check_unchanged(key, name=name)
    if fingerprint is not None and fingerprint != key.fingerprint:
        raise DeviceError(
            f"{name!r} ({key.host}) showed {key.fingerprint} ({key.kind}), not {fingerprint}",
            device_id=name,
            code="fingerprint_differs",
            hint="another machine answers, or that is the fingerprint of another kind of key",
        )
    if key not in known_hosts.pinned(key.host) and not (yes or fingerprint):
        _confirm(app, name, key)
    changed = known_hosts.pin(key, name=name, replace=replace)
    answer = {
        "name": name,
        "host": key.host,
        "key_type": key.kind,
        "fingerprint": key.fingerprint,
        "pinned": True,
        "changed": changed,
        "next": [f"hwnas devices setup {name}"],
    }
    word = "is trusted now" if changed else "was trusted already"
    app.show(
        answer,
        lambda console: console.print(
            f"{name}: {key.kind} {key.fingerprint} of {key.host} {word}", markup=False
        ),
    )


def _confirm(app: App, name: str, key: HostKey) -> None:
    """Ask where somebody can answer: on a terminal."""
    if app.as_json or not sys.stdin.isatty():
        return
    shown = f"{key.kind} key of {name} ({key.host}): {key.fingerprint}"
    app.end_progress()
    print(shown, file=app.stderr)
    if not click.confirm("Is this the board's own fingerprint?", err=True):
        raise ConfigError(f"the key of {name!r} is not trusted", code="not_confirmed")


# --- setup --------------------------------------------------------------------------------------


def _pins(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Mapping[str, str]:
    """Option callback: ``PACKAGE==VERSION``, several times."""
    pins = {}
    for value in values:
        package, equals, version = value.partition("==")
        if not (package and equals and version):
            raise click.BadParameter(f"{value!r} is not PACKAGE==VERSION", ctx, param)
        pins[package] = version
    return pins


@click.command(short_help="Bring the runtime to a board.")
@click.argument("name")
@click.option(
    "--runtime",
    type=click.Choice(["ort", "tvm"]),
    default="ort",
    show_default=True,
    help="What runs networks there; a board may have both.",
)
@click.option("--rpc", is_flag=True, help="With tvm: also what its RPC server needs.")
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Take wheels from this folder; this host needs no internet then.",
)
@click.option("--python", metavar="PATH", help="The board's interpreter to build on.")
@click.option(
    "--pin",
    "pins",
    multiple=True,
    callback=_pins,
    metavar="PACKAGE==VERSION",
    help="A version other than the newest one; may be given several times.",
)
@click.option("--upgrade", is_flag=True, help="Bring the newest versions, also where some work.")
@verb
def setup(
    app: App,
    *,
    name: str,
    runtime: str,
    rpc: bool,
    wheels: Path | None,
    python: str | None,
    pins: Mapping[str, str],
    upgrade: bool,
) -> None:
    """Bring the runtime to the board NAME: find its Python, push wheels, check that they import.

    This host downloads what fits the board (or takes it from --wheels); the board needs no
    internet, and nothing outside our folder there is changed. What is there is left alone, and an
    interrupted setup is simply started again. A runtime the board has already is used as it is.
    """
    from hwnas_sdk.devices.board_shell import open_shell, work_word
    from hwnas_sdk.devices.setup import SetupOptions, set_up

    name, uri = entry_of(app, name)
    for option in ("python", "runner"):
        if option in uri.options:
            raise ConfigError(
                f"the URI of {name!r} says {option}={uri.options[option]}, so what is set up here "
                "would never be used",
                hint=f"hwnas devices remove {name}, then add it without {option}="
                + (" and give setup --python" if option == "python" else ""),
            )
    options = SetupOptions(
        runtime=runtime, rpc=rpc, wheels=wheels, python=python, pins=pins, upgrade=upgrade
    )
    shell = open_shell(uri, name=name)
    try:
        result = set_up(shell, work=work_word(uri), options=options, on_event=app.progress)
    finally:
        shell.close()
    session = app.session(name)
    remember(app, session)
    row = device_row(name, uri.text, session.spec) | _facts(result)
    row["next"] = next_steps(name, session.spec)
    app.show(row, lambda console: _draw_setup(console, row, result))


def _facts(result: SetupResult) -> dict[str, Any]:
    return {
        "python": result.python,
        "python_version": result.python_version,
        "python_base": result.base,
        "own_environment": result.is_own,
        "changed": result.changed,
        "packages": dict(result.packages),
        "pushed_mib": result.pushed_bytes / 2**20,
        "duration_s": result.duration_s,
    }


def _draw_setup(console: Console, row: Mapping[str, Any], result: SetupResult) -> None:
    if not result.is_own:
        word = "the board's own runtime is used; --upgrade puts ours in front of it"
    else:
        word = "set up" if result.changed else "was set up already"
    console.print(f"{row['name']}: {word} ({result.duration_s:.1f} s)", markup=False)
    draw_device(console, {k: v for k, v in row.items() if k not in {"changed", "duration_s"}})


# --- clean --------------------------------------------------------------------------------------


@click.command(short_help="Delete what we left on a board.")
@click.argument("name")
@click.option(
    "--all", "everything", is_flag=True, help="Our whole folder there, with the runtime set up."
)
@verb
def clean(app: App, *, name: str, everything: bool) -> None:
    """Delete from the board NAME pushed networks, old agents, leftovers and journals of ended jobs.

    Networks are pushed again when needed; results nobody has fetched are measured again. Waits
    while the board is measuring. With --all nothing of ours stays; 'hwnas devices setup' brings
    the runtime back.
    """
    from hwnas_sdk.devices.board_shell import has_shell

    name, uri = entry_of(app, name)
    n_files, n_bytes = 0, 0
    try:
        session = app.session(name)
        found = session.clean(frozenset(), journals=True)
        n_files, n_bytes = found.files, found.bytes
        session.close()
    except DeviceError as exc:
        if not (everything and exc.code in {"python_missing", "runner_missing"}):
            raise
    if everything and (has_shell(uri) or uri.scheme == "local"):
        more = _remove_folder(name, uri)
        n_files, n_bytes = n_files + more.files, n_bytes + more.bytes
    answer = {"name": name, "removed_files": n_files, "removed_bytes": n_bytes}
    app.show(
        answer,
        lambda console: console.print(
            f"{name}: {n_files} files removed, {n_bytes / 2**20:.1f} MiB", markup=False
        ),
    )


def _remove_folder(name: str, uri: DeviceUri) -> Cleaned:
    """Remove all of ours from the board."""
    from hwnas_sdk.devices import board_clean
    from hwnas_sdk.devices.board_shell import open_shell, work_word

    if uri.scheme == "local":
        return board_clean.remove_local_folder(name)
    shell = open_shell(uri, name=name)
    try:
        return board_clean.remove_folder(shell, work=work_word(uri))
    finally:
        shell.close()
