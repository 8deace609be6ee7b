"""Known devices as training data of networks, in units that carry over to any device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas_sdk.core.errors import ModelError
from hwnas_sdk.core.ids import content_id, sha256_bytes
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import live_edges, structural_features

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LEAST_SPREAD: Final = 1e-3  # of the references, relative to their largest


@dataclass(frozen=True)
class KnownDevices:
    """Columns of live architectures and of the references, each device over its own median.

    Shapes: genotypes (n, 6); columns (d, n), NaN = not measured; references (d, k), complete.
    """

    genotypes: Ints
    columns: Tensor
    references: Tensor
    medians: Tensor  # (d,), to return to the unit given
    prior: LatencyPrior

    @classmethod
    def collect(
        cls, genotypes: NDArray[np.integer], known: Mapping[str, Floats], references: Ints
    ) -> KnownDevices:
        """Take what can be learned from; a reference that was not measured is filled in.

        Raises: ModelError as `LatencyPrior.fit`.
        """
        genes = np.asarray(genotypes).astype(np.int64)
        prior = LatencyPrior.fit(structural_features(genes), known)
        live = live_edges(genes).any(axis=1)
        genes = genes[live]
        columns = np.stack([np.asarray(y, dtype=np.float64)[live] for y in known.values()])
        columns[~(columns > 0)] = np.nan
        medians = np.nanmedian(columns, axis=1)
        row_of = {tuple(row): i for i, row in enumerate(genes.tolist())}
        weights = prior.mean + np.sqrt(len(known)) * prior.deviations  # (d, F)
        filled = prior.standardise(structural_features(references)) @ weights.T
        values = np.maximum(filled.T, 1e-3) * medians[:, None]
        for j, reference in enumerate(references.tolist()):
            row = row_of.get(tuple(reference))
            if row is not None:
                measured = np.isfinite(columns[:, row])
                values[measured, j] = columns[measured, row]
        return cls(
            genotypes=genes,
            columns=torch.from_numpy((columns / medians[:, None]).astype(np.float32)),
            references=torch.from_numpy((values / medians[:, None]).astype(np.float32)),
            medians=torch.from_numpy(medians.astype(np.float32)),
            prior=prior,
        )

    def __len__(self) -> int:
        """Number of devices."""
        return len(self.columns)

    def to(self, place: torch.device) -> KnownDevices:
        """The same with its tensors on another torch device."""
        return replace(
            self,
            columns=self.columns.to(place),
            references=self.references.to(place),
            medians=self.medians.to(place),
        )

    def mixed(self, rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """`n` devices that are not there: convex mixtures of the known ones.

        Shapes: rows (b,) -> columns (n, b), references (n, k). Uses torch's generator.
        """
        evenly = torch.full((len(self),), 0.4, device=self.columns.device)
        shares = torch.distributions.Dirichlet(evenly).sample((n,))
        return shares @ self.columns[:, rows], shares @ self.references


def checkpoint_identity(
    plan: DataclassInstance, told_by: Ints, cells: Ints, columns: Mapping[str, Floats]
) -> dict[str, Any]:
    """What a checkpoint must have been trained with to be continued, see `fit`.

    Shapes: told_by (k, 6), the references; cells (n, 6); each of columns (n,).
    """
    arrays = (told_by, cells, *columns.values())
    hashes = [sha256_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return {"plan": asdict(plan), "learns from": content_id([*columns, *hashes])}


def vector_of(references: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reference values scaled to [0, 1] within each device, with their minimum and range.

    Shapes: (d, k) -> (d, k), (d, 1), (d, 1).
    """
    least = references.min(dim=1, keepdim=True).values
    most = references.max(dim=1, keepdim=True).values
    spread = torch.maximum(most - least, _LEAST_SPREAD * most.abs())
    return (references - least) / spread, least, spread


def reference_values(
    prior: LatencyPrior,
    references: Ints,
    genotypes: NDArray[np.integer],
    values: Floats,
    rel_sd: Floats | None,
) -> Floats:
    """A new device's values on the references: measured, or predicted from what was, (k,).

    Raises: ModelError for values that are not positive and finite, or none at all.
    """
    if not len(values):
        raise ModelError(
            "a meta-learned model needs measurements of the new device",
            hint="`hwnas profile NAME` measures the reference set",
        )
    model = prior.adapt(structural_features(genotypes), values, rel_sd)
    predicted = model.predict(structural_features(references)).mean
    answer = np.maximum(predicted, 0.05 * model.scale_ms)
    row_of = {tuple(row): i for i, row in enumerate(np.asarray(genotypes).tolist())}
    for j, reference in enumerate(references.tolist()):
        row = row_of.get(tuple(reference))
        if row is not None and model.outlier_probability[row] < 0.5:
            answer[j] = values[row]
    return answer
