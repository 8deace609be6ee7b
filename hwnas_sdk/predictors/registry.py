"""Which models carry latency or energy to a new device, by name. Importing this imports none.

A new model is one line here and one test class that inherits `TransferModelConformance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    from hwnas_sdk.predictors.transfer import TransferModel


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """Where a model lives.

    Attributes:
        target: ``module:class``; the module is relative to this package.
        summary: one line for lists.
        states_sd: whether its predictions have a standard deviation.
    """

    target: str
    summary: str
    states_sd: bool = False


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


def transfer_model(name: str) -> type[TransferModel]:
    """Import the model `name`.

    Raises: ConfigError for an unknown name.
    """
    entry = TRANSFER_MODELS.get(name)
    if entry is None:
        raise ConfigError(f"unknown model {name!r}", hint=f"one of {', '.join(model_names())}")
    module, _, attribute = entry.target.partition(":")
    model: type[TransferModel] = getattr(import_module(f"{__package__}.{module}"), attribute)
    return model
