"""Which models carry latency or energy to a new device, by name. Importing this imports none.

A new model is one line here and one test class that inherits `TransferModelConformance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.extras import needs_torch

if TYPE_CHECKING:
    from hwnas_sdk.predictors.transfer import TransferModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """Where a model lives.

    Attributes:
        target: ``module:class``; the module is relative to this package.
        summary: one line for lists.
        states_sd: whether its predictions have a standard deviation.
        spaces: whose architectures it describes.
        n_beside_references: networks of a new device it needs beside the paper's references.
    """

    target: str
    summary: str
    states_sd: bool = False
    spaces: tuple[str, ...] = ("nasbench201",)
    n_beside_references: int = 0


TRANSFER_MODELS: Final[dict[str, ModelEntry]] = {
    "auto": ModelEntry(
        "bayes_transfer:BayesModel",
        "the best one of this version: an average over outliers and scales of bayes",
        states_sd=True,
    ),
    "bayes": ModelEntry(
        "bayes_transfer:BayesModel", "hierarchical Bayesian transfer", states_sd=True
    ),
    "stack": ModelEntry(
        "stacked:StackedModel",
        "bayes and linear-transfer, mixed with a weight learned on the known devices",
        states_sd=True,
    ),
    "meta": ModelEntry("neural.meta:MetaPredictor", "one network told the device (MODNAS)"),
    "help": ModelEntry("neural.help:HelpPredictor", "a network tuned to the device (HELP)"),
    "help-paper": ModelEntry(
        "neural.help:PaperHelp",
        "HELP as published: needs ten or more beside the references",
        n_beside_references=10,
    ),
    "flops": ModelEntry("baselines:FlopsModel", "multiply-accumulates, scaled"),
    "params": ModelEntry("baselines:ParamsModel", "parameters, scaled"),
    "linear-transfer": ModelEntry(
        "baselines:LinearTransfer", "non-negative mixture of the known devices"
    ),
    "nearest-device": ModelEntry(
        "baselines:NearestDevice", "the known device that ranks the samples most alike, scaled"
    ),
    "additive": ModelEntry(
        "baselines:AdditiveCosts", "a cost per kind of operator, fitted to the samples alone"
    ),
    "xgboost": ModelEntry("boosted:XgboostModel", "device-conditioned boosted trees"),
    "lightgbm": ModelEntry("boosted:LightgbmModel", "device-conditioned boosted trees"),
    "brp-nas": ModelEntry(
        "neural.own_device:BrpNasModel", "graph network trained on the samples alone"
    ),
    "gates": ModelEntry(
        "neural.own_device:GatesModel", "gated graph ranker trained on the samples alone"
    ),
}


def model_names() -> tuple[str, ...]:
    """Names of all registered models."""
    return tuple(TRANSFER_MODELS)


def transfer_model(name: str, *, space: str = "nasbench201") -> type[TransferModel]:
    """Import the model `name`, to be given architectures of `space`.

    Raises: ConfigError for an unknown name, or a model that does not describe `space`;
        MissingExtraError for one that needs torch, without it.
    """
    entry = TRANSFER_MODELS.get(name)
    if entry is None:
        raise ConfigError(f"unknown model {name!r}", hint=f"one of {', '.join(model_names())}")
    if space not in entry.spaces:
        raise ConfigError(
            f"model {name!r} describes architectures of {', '.join(entry.spaces)}, not of {space}",
            code="other_space",
            hint="predictors.rank.RankPredictor learns any registered space from its own labels",
        )
    module, _, attribute = entry.target.partition(":")
    with needs_torch(f"the model {name}"):
        model: type[TransferModel] = getattr(import_module(f"{__package__}.{module}"), attribute)
    return model
