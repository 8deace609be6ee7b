"""Model cards: what a weight file is for, what it learned from, how good it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.ids import sha256_bytes

Tensors = dict[str, NDArray[Any]]
WEIGHTS_FOLDER = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Describes one weight file.

    Attributes:
        name: file name without its ending.
        kind: which class reads it, e.g. "latency_prior".
        space: search space the model is for.
        schema: version of tensors and features; another version is refused.
        data: where the labels came from, with attribution and licence.
        metrics: how good it is and on what it was judged.
        settings: hyper-parameters the class needs back.
        weights_sha256: of the safetensors file.
    """

    name: str
    kind: str
    space: str
    schema: int
    data: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""


def save_model(path: Path, tensors: Tensors, card: Card) -> Card:
    """Write `path` (.safetensors) and the card beside it (.json); same input, same bytes.

    Returns the card as written, with the hash of the weights.
    """
    data = save_tensors({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})
    written = Card(**{**asdict(card), "weights_sha256": sha256_bytes(data)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    text = json.dumps(asdict(written), indent=1, sort_keys=True, allow_nan=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return written


def load_card(path: Path) -> Card:
    """Read the card beside a weight file.

    Raises: ModelError when it is missing or is no card.
    """
    file = path.with_suffix(".json")
    try:
        return Card(**json.loads(file.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ModelError(f"no model card at {file}: {exc.strerror}", code="card_missing") from exc
    except (ValueError, TypeError) as exc:
        raise ModelError(f"{file} is not a model card: {exc}", code="card_damaged") from exc


def load_model(path: Path, *, kind: str, space: str, schema: int) -> tuple[Tensors, Card]:
    """Read weights whose card names this kind, space and schema.

    Raises: ModelError for anything else: another kind, space or schema, a damaged file.
    """
    card = load_card(path)
    for what, have, want in (("kind", card.kind, kind), ("space", card.space, space)):
        if have != want:
            raise ModelError(
                f"{path.name} is a model of {what} {have!r}, {want!r} is needed",
                code=f"other_{what}",
                hint="name a model made for it, or train one",
            )
    if card.schema != schema:
        raise ModelError(
            f"{path.name} has schema {card.schema}, this version reads schema {schema}",
            code="other_schema",
            hint="train it again: `hwnas train`, or tools/train_priors.py for a packaged one",
        )
    try:
        data = path.read_bytes()
        tensors: Tensors = load_tensors(data)
    except OSError as exc:
        raise ModelError(f"cannot read {path}: {exc.strerror}", code="weights_missing") from exc
    except SafetensorError as exc:
        raise ModelError(f"{path} is damaged: {exc}", code="weights_damaged") from exc
    if sha256_bytes(data) != card.weights_sha256:
        raise ModelError(
            f"{path.name} does not belong to its card: the hashes differ", code="weights_damaged"
        )
    return tensors, card
