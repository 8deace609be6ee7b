"""Transfer models by name. Nothing is imported before a model is asked for.

A name stands for a class that implements `TransferModel`. Models that need torch or another extra
live in modules of their own; the first use of one without its packages says which are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from hwnas_sdk.core.errors import ConfigError

if TYPE_CHECKING:
    from hwnas_sdk.predictors.transfer import TransferModel

TRANSFER_MODELS: Final[Mapping[str, str]] = {
    "bayes": "hwnas_sdk.predictors.bayes_transfer:BayesTransfer",
    "flops": "hwnas_sdk.predictors.baselines:FlopsModel",
    "params": "hwnas_sdk.predictors.baselines:ParamsModel",
    "linear-transfer": "hwnas_sdk.predictors.baselines:LinearTransfer",
    "nearest-device": "hwnas_sdk.predictors.baselines:NearestDevice",
}
"""Name -> "module:class"."""


def transfer_model(name: str) -> type[TransferModel]:
    """Return the class of a registered model.

    Raises: ConfigError for an unknown name; MissingExtraError when its packages are not installed.
    """
    if name not in TRANSFER_MODELS:
        raise ConfigError(
            f"unknown model {name!r}", hint=f"one of {', '.join(sorted(TRANSFER_MODELS))}"
        )
    module, _, attribute = TRANSFER_MODELS[name].partition(":")
    return cast("type[TransferModel]", getattr(import_module(module), attribute))
