"""`hwnas train`: predictors from data of your own or from published tables, as files."""

from __future__ import annotations

import click

from hwnas_sdk.cli.lazy import LazyGroup, LazyVerb

VERBS = {
    "accuracy": LazyVerb(
        "train_accuracy_cmd:accuracy", "Predicts the error of a trained architecture."
    ),
    "meta": LazyVerb("train_meta_cmd:meta", "Predicts any device from ten of its latencies."),
    "hypernetwork": LazyVerb(
        "train_hypernetwork_cmd:hypernetwork", "Proposes networks for any device (MODNAS)."
    ),
    "rank": LazyVerb("train_rank_cmd:rank", "A score that orders architectures for a device."),
}


@click.group(cls=LazyGroup, verbs=VERBS, short_help="Train a predictor and write it as a file.")
def train() -> None:
    """Train a predictor; write its weights (.safetensors) and a card (.json) beside them."""
