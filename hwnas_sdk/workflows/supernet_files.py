"""Trained supernetworks as files: weights and a card that says what they learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwnas_sdk.core.errors import DataError, ModelError
from hwnas_sdk.predictors.card import Card, load_model, save_model

if TYPE_CHECKING:
    from hwnas_sdk.networks.supernet import Supernet
    from hwnas_sdk.networks.supernet_response import ResponsePlan
    from hwnas_sdk.networks.training.images import ImageSplits

KIND: Final = "supernetwork"
SCHEMA: Final = 1


def supernet_of(output: Path) -> Path:
    """Where the supernetwork of a hypernetwork is kept."""
    return output.with_suffix(".supernet.safetensors")


def save_supernet(
    path: Path,
    supernet: Supernet,
    response: ResponsePlan,
    *,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write weights and card; `data` says what it learned from, fingerprint included."""
    card = Card(
        name=path.stem,
        kind=KIND,
        space="nasbench201",
        schema=SCHEMA,
        data=data,
        metrics=metrics,
        settings={"config": asdict(supernet.config), "response": asdict(response)},
    )
    save_model(path, {name: t.cpu().numpy() for name, t in supernet.state_dict().items()}, card)


def load_supernet(path: Path) -> tuple[Supernet, Card]:
    """Read a supernetwork and its card.

    Raises: ModelError for another kind of model, or a damaged file.
    """
    import torch

    from hwnas_sdk.networks.supernet import Supernet, SupernetConfig

    tensors, card = load_model(path, kind=KIND, space="nasbench201", schema=SCHEMA)
    try:
        values = dict(card.settings["config"])
        for name in ("input_shape", "channels"):
            values[name] = tuple(values[name])
        supernet = Supernet(SupernetConfig(**values))
        supernet.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        reason = str(exc).splitlines()[0]
        raise ModelError(f"{path.name}: incomplete supernetwork: {reason}") from exc
    supernet.eval()
    return supernet, card


def check_supernet(card: Card, images: ImageSplits) -> None:
    """Refuse a supernetwork that learned from the images held out here, or from others.

    Raises: DataError.
    """
    if card.data.get("fingerprint") != images.fingerprint():
        raise DataError(
            f"{card.name} was trained on other images than these of {images.task.name}",
            code="other_images",
            hint="name the --task and --data-dir it was trained with",
        )
