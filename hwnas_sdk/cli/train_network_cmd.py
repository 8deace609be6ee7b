"""`hwnas train network`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import SETTINGS, make_settings, open_lab, show_plan
from hwnas_sdk.cli.options import dry_run_option, seed_option, verb
from hwnas_sdk.cli.train_options import (
    TASKS,
    data_dir_option,
    need_torch,
    torch_device_option,
    weights_option,
)
from hwnas_sdk.core.errors import MeasurementError

if TYPE_CHECKING:
    from rich.console import Console


@click.command(short_help="A network of a space, on images.")
@click.argument("arch")
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="digits",
    show_default=True,
    help="What it learns; the digits come with the package, the others are files of yours.",
)
@data_dir_option()
@weights_option(
    "Weights to write (.safetensors); a card (.json) and the network (.onnx) go beside it."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the images.  [default: 20 for digits, else 200]",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of each target spread over all classes.",
)
@click.option(
    "--cutout",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Side of a square blanked in each training image, in pixels.",
)
@torch_device_option()
@click.option(
    "--device",
    metavar="NAME",
    help="Board that then runs the network: latency, outputs compared, accuracy there.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Test images the board classifies, at most.",
)
@click.option(
    "--settings",
    type=click.Choice(SETTINGS),
    default="quick",
    show_default=True,
    help="How long and how precisely the board measures.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads the runtime may use on the board.",
)
@seed_option()
@dry_run_option()
@verb
def network(
    app: App,
    *,
    arch: str,
    task: str,
    data_dir: Path | None,
    output: Path,
    epochs: int | None,
    label_smoothing: float,
    cutout: int,
    torch_device: str,
    device: str | None,
    images: int,
    settings: str,
    threads: int,
    seed: int,
    dry_run: bool,
) -> None:
    """Train the network ARCH (an official string or '#INDEX') from scratch.

    SGD with Nesterov's momentum, rate 0.1 falling along a cosine, random crops and flips. The
    network is trained as one deploys it (folded). Killed, the same command continues from the
    last epoch and ends in the same weights.
    """
    need_torch("training a network")
    from hwnas_sdk.networks.training.fit import default_plan
    from hwnas_sdk.networks.training.images import load_images
    from hwnas_sdk.networks.training.tasks import image_task
    from hwnas_sdk.spaces import get_space
    from hwnas_sdk.workflows import train_network as work
    from hwnas_sdk.workflows.training_files import checkpoint_of

    space = get_space("nasbench201")
    architecture = space.decode(arch)
    work.check_output(output)
    if device is not None:
        _check_board(app, device)  # now, not after hours of training
    chosen = image_task(task)
    plan = default_plan(
        chosen, epochs=epochs, label_smoothing=label_smoothing, cutout=cutout, seed=seed
    )
    data = load_images(chosen, data_dir)
    if dry_run:
        graph = space.layers(architecture, dataset=task, folded=True)
        show_plan(
            app,
            {
                "arch": space.encode(architecture),
                "task": task,
                "epochs": plan.epochs,
                "training_images": len(data.train),
                # Forward, and backward to inputs and to weights.
                "training_macs": 3 * graph.macs * len(data.train) * plan.epochs,
                "device": device,
                "estimated_board_s": make_settings(settings, threads).estimated_s()
                if device
                else 0,
            },
        )
        return
    trained = work.train_network(
        space,
        architecture,
        data,
        plan,
        output,
        cache=app.cache(),
        torch_device=torch_device,
        on_event=app.progress,
    )
    answer: dict[str, Any] = {
        "model": str(output),
        "metrics": dict(trained.metrics),
        "onnx": str(trained.onnx),
        "onnx_sha256": trained.artifact.sha256,
        "arch": space.encode(architecture),
        "task": task,
        "epochs": plan.epochs,
        "seed": seed,
        "duration_s": trained.result.duration_s,
        "device": None,
    }
    if device is not None:
        lab = open_lab(app)
        answer["device"] = work.check_on_board(
            trained,
            lab,
            lab.device(device),
            settings=settings,
            threads=threads,
            n_images=images,
        )
    app.show(answer, lambda console: _draw(console, answer))
    _refuse_bad(answer["device"])
    checkpoint_of(output).unlink(missing_ok=True)


def _check_board(app: App, name: str) -> None:
    """Open a board for a moment. Raises: ConfigError or DeviceError when it is of no use."""
    from hwnas_sdk.devices.inventory import open_session
    from hwnas_sdk.workflows.board_accuracy import refuse_without_network

    with open_session(name, inventory=app.inventory(), on_event=app.progress) as session:
        refuse_without_network(session)


def _refuse_bad(board: dict[str, Any] | None) -> None:
    """Raise MeasurementError when the board's numbers cannot be trusted."""
    if board is None or (board["status"] != "invalid" and board["outputs_match"] is not False):
        return
    raise MeasurementError(
        f"{board['name']}: no valid measurement ({', '.join(board['flags'])})",
        code="invalid_measurements",
        hint="see `hwnas doctor`; the same command measures again without training again",
    )


def _draw(console: Console, answer: dict[str, Any]) -> None:
    from hwnas_sdk.cli.render import facts

    console.print(facts({**answer, **answer["metrics"], "metrics": None, "device": None}))
    if answer["device"] is not None:
        console.print(facts(answer["device"], title=f"on {answer['device']['name']}"))
