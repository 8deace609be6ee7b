"""`hwnas train`: predictors and networks, as files."""

from __future__ import annotations

import click

from hwnas_sdk.cli.lazy import LazyGroup, LazyVerb

VERBS = {
    "accuracy": LazyVerb(
        "train_accuracy_cmd:accuracy", "Predicts the error of a trained architecture."
    ),
    "latency": LazyVerb(
        "train_latency_cmd:latency", "What searches know about devices (any --prior)."
    ),
    "meta": LazyVerb("train_meta_cmd:meta", "Predicts any device from ten of its latencies."),
    "hypernetwork": LazyVerb(
        "train_hypernetwork_cmd:hypernetwork", "Proposes networks for any device (MODNAS)."
    ),
    "rank": LazyVerb("train_rank_cmd:rank", "A score that orders architectures for a device."),
    "network": LazyVerb("train_network_cmd:network", "A network of a space, on images."),
}


@click.group(
    cls=LazyGroup, verbs=VERBS, short_help="Train a predictor or a network and write it as a file."
)
def train() -> None:
    """Train something; write its weights (.safetensors) and a card (.json) beside them."""
