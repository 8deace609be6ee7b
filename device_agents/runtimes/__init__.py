"""Runtimes that run a network on the board, one module each.

A runtime module has

``NAME``
    as in ``measure.options.runtime``.
``HINT``
    how to install it, one line.
``describe()``
    import the runtime (in its worker); return {version, ...} or {"error": {code, message}}.
``installed_version()``
    its version without importing it, None when it is not there.
``prime()``
    whatever the first session of a process would otherwise pay for; after `describe`.
``usable_providers(wanted)``
    the execution providers to use for the list `wanted` (None: the runtime's default).
    Raises: ModelError "provider_missing" when this build lacks one of them.
``Session(data, *, path, threads, providers, spinning, input_seed, inputs)``
    one loaded network: `data` are the checked bytes of the file, `path` is where they came from,
    `inputs` is [[name, shape, dtype]] for runtimes whose files do not say (else may be None). It
    has ``run()`` (one inference, complete when it returns), ``output()`` (see `common.head_of`),
    ``input_shapes``, ``providers`` and ``facts`` (more for the "loaded" event; may be empty).
``failure_of(exc)``
    (item error code, one line) for what `Session` or `run` raised.
"""

from __future__ import annotations

import importlib
from typing import Any

NAMES = ("ort", "tvm")
"""The first one is imported by a probe; the others only by a job that asks for them."""


def load(name: str) -> Any:
    """Return the module of runtime `name`. Raises: ImportError."""
    return importlib.import_module("device_agents.runtimes." + name)


def known(name: str) -> bool:
    """Whether this agent has a module for runtime `name`."""
    try:
        return name in NAMES and load(name) is not None
    except ImportError:
        return False


def missing(name: str, hint: str) -> dict[str, Any]:
    """What `describe` and a probe say of a runtime that is not installed."""
    return {
        "error": {"code": "runtime_missing", "message": "%s is not installed; %s" % (name, hint)}
    }


def distribution_version(module: str, names: tuple[str, ...]) -> str | None:
    """Version of the first of the distributions `names` that is installed.

    "unknown" when only the `module` itself is to be found, None when neither is.
    """
    from importlib import metadata, util

    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203 - two names at most
            continue
    return "unknown" if util.find_spec(module) is not None else None
