"""The MetaHypernetwork: preference and device in, architecture logits out (MODNAS, section 3).

A bank of hypernetworks, each a table with one row of logits per quantised preference, is mixed by
attention of the device vector to learned keys (eq. 5). Everything starts near zero: every decision
is uniform at first (the paper reaches that by a pre-training whose result is the same).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.search.modnas.architect import choice_mask

PreferenceForm = Literal["table", "knots", "mlp"]
PREFERENCE_FORMS: Final[tuple[str, ...]] = get_args(PreferenceForm)
_INITIAL_SD: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkPlan:
    """Sizes of a MetaHypernetwork.

    Attributes:
        choices: number of choices of each decision of the space.
        n_features: length of the device vector.
        n_objectives: 2 or 3; the first is the task loss.
        bank: hypernetworks mixed by attention.
        form: "table" of `rows` (the paper); "knots" interpolates linearly between `n_knots` rows,
            so that neighbours learn together; "mlp" maps (preference, device) by two hidden layers
            of 100 (Pareto hypernetworks, Navon et al. 2021): no bank, no attention. The first two
            differ more for three objectives, see `look_up`.
        attention: "sin" = softmax(sin(U d / sqrt(k))) as released for NAS-Bench-201, "plain" =
            softmax(U d / sqrt(k)).
    """

    choices: tuple[int, ...]
    n_features: int
    n_objectives: int = 2
    bank: int = 50
    form: PreferenceForm = "table"
    rows: int = 101
    n_knots: int = 21
    attention: Literal["sin", "plain"] = "sin"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.form not in PREFERENCE_FORMS:
            raise ModelError(
                f"unknown form {self.form!r}", hint=f"one of {', '.join(PREFERENCE_FORMS)}"
            )
        if self.n_objectives not in (2, 3):
            raise ModelError(f"a MetaHypernetwork has 2 or 3 objectives, not {self.n_objectives}")
        if min(self.bank, self.n_features, self.rows - 1, self.n_knots - 1) < 1:
            raise ModelError("bank, features, rows and knots must be positive")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> HypernetworkPlan:
        """Inverse of `asdict`, after a trip through JSON."""
        return cls(**{**values, "choices": tuple(values["choices"])})


class MetaHypernetwork(nn.Module):
    """H(r, d): preferences r (T, n, m) on the simplex, devices d (T, k) -> logits (T, n, d, c)."""

    mask: Tensor

    def __init__(self, plan: HypernetworkPlan, *, generator: torch.Generator | None = None) -> None:
        """Initialise every decision to (almost) uniform."""
        super().__init__()
        self.plan = plan
        mask = choice_mask(plan.choices)
        self.register_buffer("mask", mask, persistent=False)
        self.n_out = int(mask.numel())
        if plan.form == "mlp":
            self.network = nn.Sequential(
                nn.Linear(plan.n_objectives + plan.n_features, 100), nn.ReLU(),
                nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, self.n_out),
            )  # fmt: skip
            _initialise(self.network, generator)
            return
        rows = plan.rows if plan.form == "table" else plan.n_knots
        self.keys = nn.Parameter(_normal((plan.bank, plan.n_features), 1.0, generator))
        self.tables = nn.ParameterList(
            nn.Parameter(_normal((plan.bank, rows, width), _INITIAL_SD, generator))
            for width in self._widths()
        )

    def _widths(self) -> Sequence[int]:
        """One table for two objectives. For three see `look_up`."""
        if self.plan.n_objectives == 2:
            return (self.n_out,)
        if self.plan.form == "knots":
            return (self.n_out,) * self.plan.n_objectives
        half = (self.n_out + 1) // 2
        return (half, self.n_out - half)

    def forward(self, preferences: Tensor, devices: Tensor) -> Tensor:
        """Logits; choices a decision does not have are minus infinity."""
        if self.plan.form == "mlp":
            told = devices[:, None].expand(*preferences.shape[:2], -1)
            flat = self.network(torch.cat([preferences, told], dim=2))
            return self._shaped(flat)
        return self.look_up(self.mix(devices), preferences)

    def attend(self, devices: Tensor) -> Tensor:
        """Share of each hypernetwork of the bank, (T, k) -> (T, bank)."""
        scores = devices @ self.keys.T / self.plan.n_features**0.5
        return torch.softmax(torch.sin(scores) if self.plan.attention == "sin" else scores, dim=1)

    def mix(self, devices: Tensor) -> list[Tensor]:
        """One table of logits per device (two for three objectives): eq. 5, before the look-up.

        Shapes: (T, k) -> tables (T, rows, width).
        """
        shares = self.attend(devices)
        return [torch.einsum("tb,brw->trw", shares, table) for table in self.tables]

    def look_up(self, mixed: list[Tensor], preferences: Tensor) -> Tensor:
        """Logits of preferences (T, n, m) from the devices' tables.

        Two objectives: the weight r_1 says all. Three: "table" is as released (spec 2.3), r_2
        decides the first half of the logits and r_3 the second; with "knots" each weight has a say
        in every logit, they add.
        """
        if self.plan.n_objectives > 2 and self.plan.form == "knots":
            terms = [self._rows_of(table, preferences[..., i]) for i, table in enumerate(mixed)]
            return self._shaped(torch.stack(terms).sum(dim=0))
        first = 0 if self.plan.n_objectives == 2 else 1
        parts = [
            self._rows_of(table, preferences[..., column])
            for column, table in enumerate(mixed, start=first)
        ]
        return self._shaped(torch.cat(parts, dim=2))

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.reshape(*flat.shape[:2], *self.mask.shape).masked_fill(~self.mask, -torch.inf)

    def _rows_of(self, table: Tensor, weight: Tensor) -> Tensor:
        """Rows for a preference weight in [0, 1], (T, rows, w), (T, n) -> (T, n, w)."""
        last = table.shape[1] - 1
        place = weight.clamp(0.0, 1.0) * last
        device = torch.arange(len(table))[:, None]
        if self.plan.form == "table":
            return table[device, place.round().long()]
        left = place.floor().long().clamp(max=last - 1)
        share = (place - left)[..., None]
        return (1.0 - share) * table[device, left] + share * table[device, left + 1]


def _normal(shape: tuple[int, ...], sd: float, generator: torch.Generator | None) -> Tensor:
    return sd * torch.randn(shape, generator=generator)


def _initialise(network: nn.Sequential, generator: torch.Generator | None) -> None:
    """He initialisation from the given generator; the last layer almost zero."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            sd = _INITIAL_SD if layer is layers[-1] else (2.0 / layer.in_features) ** 0.5
            layer.weight.copy_(_normal(tuple(layer.weight.shape), sd, generator))
            layer.bias.zero_()
