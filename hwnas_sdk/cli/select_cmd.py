"""`hwnas select`: the candidates of a search that do well on images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hwnas_sdk.cli.context import App
from hwnas_sdk.cli.lab import shown_arch
from hwnas_sdk.cli.options import seed_option, verb
from hwnas_sdk.cli.train_options import (
    TASKS,
    data_dir_option,
    need_torch,
    torch_device_option,
)
from hwnas_sdk.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from hwnas_sdk.core.types import ParetoFront
    from hwnas_sdk.workflows.select_candidates import Selection

SCORES = ("sotl", "inherited")
EPOCHS = 12
_OF_TRAININGS = ("epochs", "seed")


@click.command(short_help="Keep the candidates that do well on images.")
@click.argument("front", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Front to write, the input of 'hwnas verify'.",
)
@click.option(
    "--by",
    type=click.Choice(SCORES),
    default="sotl",
    show_default=True,
    help="sotl trains each candidate for a few epochs and sums the losses; inherited asks a "
    "supernetwork.",
)
@click.option(
    "--supernet",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Supernetwork of 'hwnas train hypernetwork --task'. With --by sotl it is asked as well, "
    "and the answer says how well both agree.",
)
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What the candidates learn.  [default: the supernetwork's, else digits]",
)
@data_dir_option()
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=EPOCHS,
    show_default=True,
    help="Epochs of each short training, on half of the training images.",
)
@torch_device_option()
@seed_option(default=777)
@verb
def select(
    app: App,
    *,
    front: Path,
    output: Path,
    by: str,
    supernet: Path | None,
    task: str | None,
    data_dir: Path | None,
    epochs: int,
    torch_device: str,
    seed: int,
) -> None:
    """Score the candidates in FRONT (of 'hwnas search -o') on images, and keep the best.

    The score takes the place of the predicted error: who is dominated in score and predicted costs
    goes. Interrupted, the same command continues with the epoch it was at.
    """
    need_torch("training candidates")
    from hwnas_sdk.cli.render import json_text
    from hwnas_sdk.core.files import write_text_atomic
    from hwnas_sdk.networks.supernet_response import search_halves
    from hwnas_sdk.networks.training.fit import default_plan, moved
    from hwnas_sdk.networks.training.images import load_images
    from hwnas_sdk.networks.training.tasks import image_task
    from hwnas_sdk.workflows import select_candidates as work
    from hwnas_sdk.workflows.fronts import front_to_mapping
    from hwnas_sdk.workflows.supernet_files import check_supernet, load_supernet

    _check(front, output, by, supernet)
    candidates = _read(front)
    app.check_output(output)
    net, card = (None, None) if supernet is None else load_supernet(supernet)
    chosen = image_task(task or (card.data["task"] if card is not None else "digits"))
    images = search_halves(load_images(chosen, data_dir))
    if net is not None and card is not None:
        check_supernet(card, images)
        net = moved(net, torch_device)
    checkpoint: Path | None = None
    if by == "inherited":
        assert net is not None
        selection = work.select_by_inheritance(candidates, images, net)
    else:
        # A name of its own: `train` keeps what it needs to go on in OUTPUT's .checkpoint.
        checkpoint = output.with_name(f"{output.name}.selection")
        plan = default_plan(chosen, epochs=epochs, seed=seed)
        selection = work.select_by_sotl(
            candidates,
            images,
            plan,
            supernet=net,
            torch_device=torch_device,
            checkpoint=checkpoint,
            on_event=app.progress,
        )
    write_text_atomic(output, json_text(front_to_mapping(selection.front)))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    _show(app, selection, by=by, task=chosen.name, output=output)


def _read(path: Path) -> ParetoFront:
    from hwnas_sdk.workflows.fronts import read_front

    front = read_front(path)
    if not front.candidates:
        raise DataError(f"the front {path} has no candidates", code="bad_front")
    return front


def _check(front: Path, output: Path, by: str, supernet: Path | None) -> None:
    if output.resolve() == front.resolve():
        raise ConfigError(
            "the selection must not replace the front it is made from", hint="-o another file"
        )
    if by == "inherited" and supernet is None:
        raise ConfigError(
            "--by inherited needs a supernetwork",
            hint="--supernet FILE, written by 'hwnas train hypernetwork --task'",
        )
    source = click.get_current_context().get_parameter_source
    given = [name for name in _OF_TRAININGS if source(name) is not ParameterSource.DEFAULT]
    if by == "inherited" and given:
        raise ConfigError(
            f"--{given[0]} is of no use with --by inherited, which trains nothing",
            hint="leave it out, or add --by sotl",
        )


def _show(app: App, selection: Selection, *, by: str, task: str, output: Path) -> None:
    answer: dict[str, Any] = {
        "by": by,
        "task": task,
        "candidates": [{**asdict(row), **row.costs} for row in selection.scored],
        "n_kept": len(selection.front.candidates),
        "kendall_inherited_trained": selection.kendall,
        "path": str(output),
    }
    for row in answer["candidates"]:
        del row["costs"]

    def draw(console: Console) -> None:
        from hwnas_sdk.cli.render import facts, table

        costs = list(selection.scored[0].costs)
        rows = [
            (shown_arch(row.arch, console), row.score, *row.costs.values(),
             row.trained_accuracy_pct, row.inherited_accuracy_pct, "kept" if row.kept else "")
            for row in selection.scored
        ]  # fmt: skip
        columns = ("network", by, *costs, "trained %", "inherited %", "")
        console.print(table(columns, rows, title=f"scored on {task}"))
        console.print(facts({k: v for k, v in answer.items() if k != "candidates"}))

    app.show(answer, draw)
