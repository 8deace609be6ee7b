"""Encoder-decoder training without labels: the encoders learn to tell architectures apart.

The decoder re-emits the token sequence from the three codes, with additive attention over them and
over the sequence encoder's states: e_i = v' tanh(W1 h + W2 m_i), softmax, c = sum a_i m_i,
logits = Wo [h; c]. Two LSTM cells of 32 units, an input projection and an output layer.
Source: HW-PR-NAS, section on the encoders; Bahdanau et al. 2015 for the attention.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.networks.resumable import chosen_torch_device, seeded
from hwnas_sdk.predictors.graphs import BOS, PAD, n_tokens
from hwnas_sdk.predictors.neural.encoders import (
    ArchitectureEncoder,
    Code,
    EncoderSizes,
    Inputs,
    encoder_inputs,
)
from hwnas_sdk.predictors.neural.fit import FitPlan, FitResult, fit
from hwnas_sdk.spaces.base import SearchSpace

_UNITS: Final = 32
_JUDGED: Final = 1000  # held-out architectures that are decoded after each epoch


class Decoder(nn.Module):
    """Token sequence of a code."""

    def __init__(self, vocabulary: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.graph_slot = nn.Linear(sizes.code, _UNITS)
        self.sequence_slot = nn.Linear(sizes.code, _UNITS)
        self.feature_slot = nn.Linear(sizes.z - 2 * sizes.code, _UNITS)
        self.state_slots = nn.Linear(sizes.lstm[1], _UNITS)
        self.embedding = nn.Embedding(vocabulary, _UNITS)
        self.project = nn.Linear(_UNITS, _UNITS)
        self.cells = nn.ModuleList(nn.LSTMCell(_UNITS, _UNITS) for _ in range(2))
        self.query = nn.Linear(_UNITS, _UNITS, bias=False)
        self.key = nn.Linear(_UNITS, _UNITS)
        self.energy = nn.Linear(_UNITS, 1, bias=False)
        self.out = nn.Linear(2 * _UNITS, vocabulary)

    def forward(self, code: Code, length: int, forced: Tensor | None = None) -> Tensor:
        """Logits of `length` tokens after BOS, (n, length, vocabulary).

        `forced` (n, length) are the true tokens to feed back; None feeds back its own.
        """
        memory = torch.cat(
            [
                self.graph_slot(code.graph)[:, None],
                self.sequence_slot(code.sequence)[:, None],
                self.feature_slot(code.features)[:, None],
                self.state_slots(code.states),
            ],
            dim=1,
        )  # (n, 3 + T, units)
        keys = self.key(memory)
        states: list[tuple[Tensor, Tensor] | None] = [None, None]
        token = torch.full((len(memory),), BOS, device=memory.device)
        logits = []
        for step in range(length):
            x = self.project(self.embedding(token))
            for i, cell in enumerate(self.cells):
                states[i] = cell(x, states[i])
                x = states[i][0]  # type: ignore[index]
            weights = torch.softmax(self.energy(torch.tanh(self.query(x)[:, None] + keys)), dim=1)
            context = (weights * memory).sum(dim=1)
            logits.append(self.out(torch.cat([x, context], dim=1)))
            token = logits[-1].argmax(dim=1) if forced is None else forced[:, step]
        return torch.stack(logits, dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """How the encoders are trained.

    Attributes:
        n: architectures to learn from.
        held_out: share of function families kept away; an architecture and another index of the
            same function are never on both sides.
        enough: stop at this share of held-out sequences decoded without a single error.
        forcing: probability that a batch feeds back true tokens.
        epochs: at most.
        batch_size: architectures per step.
        learning_rate: of Adam.
    """

    n: int = 5000
    held_out: float = 0.1
    enough: float = 0.995
    forcing: float = 0.5
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Pretrained:
    """Encoders that know the space. `reconstruction` is the held-out share decoded exactly."""

    encoder: ArchitectureEncoder
    reconstruction: float
    n_held_out: int
    result: FitResult


def pretrain(
    space: SearchSpace,
    *,
    plan: PretrainPlan | None = None,
    sizes: EncoderSizes | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_event: EventSink = ignore,
    torch_device: str = "cpu",
) -> Pretrained:
    """Train encoders of `space` on random architectures; no label is used.

    They train on `torch_device` and are on the CPU afterwards. A `checkpoint` makes a killed
    training continue.

    Raises: ModelError when the space has too few architectures for a held-out part, or the
        checkpoint is of another training; ConfigError for a place torch cannot work on.
    """
    chosen, place = plan or PretrainPlan(), chosen_torch_device(torch_device)
    rng = child_rng(seed, space.name, "pretrain")
    sample = space.sample(min(chosen.n, space.size // 2), rng=rng)
    genes = np.array([a.genotype for a in sample], dtype=np.int64)
    out = held_out_families([space.family(a) for a in sample], chosen.held_out, rng)
    if out.all() or not out.any():
        raise ModelError(f"{space.name} has too few function families to hold some out")
    train, held = (encoder_inputs(space, genes[rows]) for rows in (~out, out))
    train = train.to(place)
    with seeded(int(rng.integers(2**31))):
        encoder = ArchitectureEncoder(space, sizes)
        decoder = Decoder(n_tokens(space), encoder.sizes)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def loss(rows: Tensor) -> Tensor:
        batch = train[rows]
        target = batch.tokens[:, 1:]
        forced = target if float(torch.rand((), device="cpu")) < chosen.forcing else None
        logits = decoder(encoder(batch), target.shape[1], forced)
        return functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)

    judged = held[: min(len(held), _JUDGED)].to(place)
    result = fit(
        model,
        loss,
        len(train),
        FitPlan(
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            weight_decay=0.0,
            clip_norm=1.0,
            stop_at=chosen.enough,
            seed=seed,
        ),
        judge=lambda: reconstruction(encoder, decoder, judged),
        checkpoint=checkpoint,
        identity={
            "plan": asdict(chosen),
            "sizes": asdict(encoder.sizes),
            "space": space.name,
            "learns from": sha256_bytes(genes.tobytes()),
        },
        on_event=on_event,
        task="pre-train",
        torch_device=torch_device,
    )
    with torch.no_grad():
        exact = reconstruction(encoder, decoder, held)
    return Pretrained(encoder, exact, len(held), result)


def reconstruction(encoder: ArchitectureEncoder, decoder: Decoder, inputs: Inputs) -> float:
    """Share of sequences the decoder emits without a single wrong token, on its own."""
    target = inputs.tokens[:, 1:]
    emitted = decoder(encoder(inputs), target.shape[1]).argmax(dim=2)
    right = (emitted == target) | (target == PAD)
    return float(right.all(dim=1).float().mean())


def held_out_families(
    families: list[Hashable], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Rows of about `share` of the families, whole families at a time, (n,)."""
    names = list(dict.fromkeys(families))
    chosen = {names[i] for i in rng.permutation(len(names))[: round(share * len(names))]}
    return np.array([family in chosen for family in families], dtype=np.bool_)
