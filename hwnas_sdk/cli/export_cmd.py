"""`hwnas export`: one network as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.options import folded_option, seed_option, verb
from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from hwnas_sdk.core.types import Artifact


@click.command(short_help="Write one network as an ONNX file or a TVM library.")
@click.argument("arch")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The file to write; an existing one is replaced.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "tvm"]),
    default="onnx",
    show_default=True,
    help="Kind of file; tvm is a shared library compiled by TVM for --target.",
)
@click.option(
    "--target",
    metavar="TARGET",
    help="What TVM compiles for: host, aarch64, armv7, x86_64, ARCH:CPU (aarch64:cortex-a72), "
    "or TVM's own JSON.  [default: host]",
)
@folded_option(default=True)
@click.option(
    "--dataset", metavar="NAME", help="Sets input size and classes.  [default: the space's first]"
)
@click.option(
    "--weights",
    "weights_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Trained weights (.safetensors) named as in 'hwnas_sdk.networks'.  [default: random]",
)
@seed_option()
@verb
def export(
    app: App,
    *,
    arch: str,
    output: Path,
    file_format: str,
    target: str | None,
    folded: bool,
    dataset: str | None,
    weights_file: Path | None,
    seed: int,
) -> None:
    """Write the network ARCH to a file: an official string or '#INDEX'.

    Without --weights its weights are random: right for measuring, useless for predictions.
    """
    from hwnas_sdk.core.files import write_bytes_atomic
    from hwnas_sdk.export.exporter import export_architecture
    from hwnas_sdk.spaces import get_space

    if target is not None and file_format != "tvm":
        raise ConfigError(
            "--target is for --format tvm; an ONNX file runs anywhere", code="unknown_target"
        )
    space = get_space("nasbench201")
    architecture = space.decode(arch)
    graph = space.layers(architecture, dataset=dataset, folded=folded)
    weights = None if weights_file is None else _read_weights(weights_file)
    artifact = export_architecture(
        space,
        architecture,
        cache=app.cache(),
        folded=folded,
        dataset=dataset,
        weights=weights,
        seed=seed,
    )
    compiled: dict[str, object] = {}
    if file_format == "tvm":
        artifact, compiled = _compile(app, artifact, target or "host")
    write_bytes_atomic(output, Path(artifact.path).read_bytes())
    kind = f"random (seed {seed}), not trained" if weights_file is None else str(weights_file)
    answer = {
        "path": str(output),
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "arch": space.encode(architecture),
        "arch_id": architecture.id,
        "format": file_format,
        "folded": folded,
        "dataset": dataset or space.datasets[0],
        "input_shapes": artifact.input_shapes,
        "macs": graph.macs,
        "n_params": graph.n_params,
        "weights": kind,
        **compiled,
    }
    app.show(answer, lambda console: _draw(console, answer))


def _compile(app: App, source: Artifact, target: str) -> tuple[Artifact, dict[str, object]]:
    """Library of an ONNX file, and what to say of it."""
    from hwnas_sdk.export.tvm import TvmCompiler
    from hwnas_sdk.export.tvm_target import parse_target
    from hwnas_sdk.workflows.runtime import UNTUNED, tuning_database

    chosen = parse_target(target)
    tuning = tuning_database(chosen)
    with TvmCompiler(app.cache(), chosen, tuning=tuning) as compiler:
        artifact = compiler.compile(source)
    if not artifact.tuned:
        app.note(f"warning: {UNTUNED}")
    return artifact, {
        "target": chosen.spec,
        "onnx_sha256": source.sha256,
        "tuned": artifact.tuned,
        "producer": artifact.producer,
    }


def _draw(console: Console, answer: Mapping[str, object]) -> None:
    from hwnas_sdk.cli.render import facts

    console.print(facts(answer))


def _read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Tensors of a safetensors file.

    Raises: DataError when it cannot be read; nothing in it is ever executed.
    """
    import safetensors
    from safetensors.numpy import load_file

    from hwnas_sdk.core.errors import DataError

    try:
        tensors: dict[str, NDArray[np.float32]] = load_file(path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", code="no_file") from None
    except (OSError, safetensors.SafetensorError) as exc:
        raise DataError(
            f"{path} is not a safetensors file: {exc}",
            code="bad_weights",
            hint="save weights with safetensors.torch.save_file(module.state_dict(), FILE)",
        ) from exc
    return tensors
