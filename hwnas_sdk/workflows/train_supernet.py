"""`hwnas train hypernetwork --task`: the MetaHypernetwork answered by a supernetwork on images.

Algorithm 1 of MODNAS: half of the training images teach the supernetwork, the other half judges
what the hypernetwork proposes. Latency stays the shipped prior's, frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.ids import plain
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.references import reference_genotypes
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.hypernetwork_judges import InheritedJudge
from hwnas_sdk.workflows.hypernetworks import search_for_devices
from hwnas_sdk.workflows.search_devices import checked_objectives, shipped_devices
from hwnas_sdk.workflows.supernet_files import save_supernet, supernet_of
from hwnas_sdk.workflows.train_hypernetwork import (
    REFERENCES,
    TWO,
    save_hypernetwork,
)
from hwnas_sdk.workflows.training_files import checkpoint_of

if TYPE_CHECKING:
    from hwnas_sdk.networks.supernet import SupernetConfig
    from hwnas_sdk.networks.supernet_response import ResponsePlan
    from hwnas_sdk.networks.training.images import ImageSplits
    from hwnas_sdk.networks.training.tasks import ImageTask
    from hwnas_sdk.search.modnas.loop import ModnasPlan

DIGITS_EPOCHS: Final = 40
_N_STAGES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSearch:
    """How the search on images works: its three parts.

    Attributes:
        config: the supernetwork.
        response: how its weights learn.
        modnas: the search itself.
    """

    config: SupernetConfig
    response: ResponsePlan
    modnas: ModnasPlan


def default_search(
    task: ImageTask,
    n_train: int,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    channels: int | None = None,
    cells: int | None = None,
    warm_up: int | None = None,
    scheme: str = "mgd",
    estimator: str = "reinmax",
    bound: float | None = None,
    seed: int = 0,
) -> SupernetSearch:
    """The paper's search on photographs; a small and quick one on the digits.

    Args:
        task: what the supernetwork learns.
        n_train: images it learns from; an epoch is one pass over them unless `steps` says else.
        epochs: see `ModnasPlan`.
        steps: see `ModnasPlan`.
        batch_size: images per step.
        channels: of the first stage; each further one has twice as many.
        cells: per stage.
        warm_up: see `ModnasPlan`.
        scheme: see `ModnasPlan`.
        estimator: see `ModnasPlan`.
        bound: see `ModnasPlan`.
        seed: of everything random.

    Raises: ConfigError for an estimator without decisions; ModelError for impossible sizes.
    """
    from hwnas_sdk.networks.supernet import SupernetConfig
    from hwnas_sdk.networks.supernet_response import ResponsePlan
    from hwnas_sdk.search.modnas.loop import ModnasPlan

    if estimator == "exact":
        raise ConfigError(
            "the exact estimator averages over networks; a supernetwork runs one at a time",
            hint="--estimator reinmax with --task",
        )
    small = not task.needs_folder
    batch_size = batch_size or task.batch_size
    epochs = epochs or (DIGITS_EPOCHS if small else 100)
    steps = steps or max(1, n_train // batch_size)
    if warm_up is None:
        warm_up = epochs // 2 if small else 0
    first = channels or (8 if small else 16)
    return SupernetSearch(
        config=SupernetConfig(
            input_shape=task.shape,
            n_classes=task.n_classes,
            channels=tuple(first * 2**stage for stage in range(_N_STAGES)),
            cells_per_stage=cells or (1 if small else 5),
        ),
        response=ResponsePlan(
            batch_size=batch_size,
            learning_rate=0.1 if small else 0.025,
            n_steps=epochs * steps,
            padding=task.padding,
            flip=task.flip,
            cutout=0 if small else task.shape[1] // 2,
            seed=seed,
        ),
        modnas=ModnasPlan(
            epochs=epochs,
            steps=steps,
            scheme=scheme,  # type: ignore[arg-type]  # checked there
            estimator=estimator,  # type: ignore[arg-type]  # checked when it decides
            learning_rate=0.03 if small else 3.9e-3,
            weight_decay=0.0 if small else 1e-3,
            bound=bound,
            running_task=True,
            warm_up=warm_up,
            evaluate_every=max(1, epochs // 6),
            seed=seed,
        ),
    )


def train_task_hypernetwork(
    output: Path,
    images: ImageSplits,
    search: SupernetSearch,
    *,
    objectives: Sequence[str] = TWO,
    torch_device: str = "cpu",
    checkpoint_every_s: float = 20.0,
    on_event: EventSink = ignore,
) -> dict[str, Any]:
    """Train a hypernetwork against a supernetwork; write both, each with a card.

    A checkpoint beside `output` makes a killed training continue and end in the same weights; it
    is removed at the end.

    Args:
        output: weights of the hypernetwork; those of the supernetwork go to `supernet_of` it.
        images: of the task, in halves to teach and to judge (`search_halves`).
        search: how.
        objectives: those of `checked_objectives`.
        torch_device: where the supernetwork works.
        checkpoint_every_s: see `search_all`.
        on_event: told after each epoch.

    Returns: as `train_space_hypernetwork`, and ``supernet`` (path).
    Raises: ConfigError for unknown objectives or torch device; ModelError when a loss is not
        finite, or the checkpoint is of another search.
    """
    from hwnas_sdk.networks.supernet_response import SupernetResponse, new_supernet
    from hwnas_sdk.networks.training.fit import moved
    from hwnas_sdk.workflows.train_network import described

    objectives = checked_objectives(objectives)
    space = get_space("nasbench201")
    prior = LatencyPrior.shipped()
    references = reference_genotypes(REFERENCES)
    supernet = moved(new_supernet(search.config, seed=search.response.seed), torch_device)
    response = SupernetResponse(supernet, images, search.response)
    devices = shipped_devices(space, prior, references, objectives)
    judge = InheritedJudge(space, supernet, images, devices, objectives)
    checkpoint = checkpoint_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    result = search_for_devices(
        space,
        response,
        devices,
        search.modnas,
        of=plain({"config": asdict(search.config), "response": asdict(search.response),
                  "images": images.fingerprint(), "objectives": objectives}),
        judge=judge,
        checkpoint=checkpoint,
        checkpoint_every_s=checkpoint_every_s,
        on_event=on_event,
    )  # fmt: skip
    figures = {name: value for name, value in result.history[-1].items() if name != "epoch"}
    metrics = {
        **figures,
        "random_inherited_hv": judge.random(search.modnas.seed)["inherited_hv"],
        "protocol": f"hypervolume of {judge.n_proposals} proposals in (error / 100, scaled costs): "
        f"accuracy with the supernetwork's weights on {judge.n_images} images held out from its "
        "training, costs by the shipped models; mean over its search devices. random: of "
        f"{judge.n_proposals} random networks",
    }
    data = described(images)
    save_supernet(supernet_of(output), supernet, search.response, data=data, metrics=figures)
    answer = save_hypernetwork(
        output,
        result,
        search.modnas,
        references,
        objectives=objectives,
        data={
            "supernetwork": supernet_of(output).name,
            "images": data,
            "latency": "nb201_latency_prior",
            "devices": list(prior.devices),
            "licence": "that of the images, and of the tables the prior learned from (its card)",
        },
        metrics=metrics,
    )
    checkpoint.unlink(missing_ok=True)
    return {**answer, "supernet": str(supernet_of(output))}
