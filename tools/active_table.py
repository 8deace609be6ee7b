"""How far an active profile's stated precision is from the truth, device by device, as a table.

    python tools/active_table.py --data DIR [--devices A,B] [--precision PCT] [--max-networks N]

Every device is profiled as `hwnas profile --active` does it, from its column of the public tables
(`replay:`). A training device is left out of the prior it is profiled with; any other device meets
the prior of all training devices. "stated" is what the profile says, a standard deviation;
"error" is the median error of all live networks in units of it (a normal error's standard
deviation is the median over .6745), against the published column and against what a ridge
regression on the whole column leaves of it without its scatter ("denoised").
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.predictors._ridge import Ridge, standardisation
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.tables import BenchTables, load_tables
from hwnas_sdk.workflows.active import profile_actively
from hwnas_sdk.workflows.beliefs import SURPRISING
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.search_protocol import HELP_TRAIN_DEVICES, HELP_UNSEEN_DEVICES

Floats = NDArray[np.float64]

TABLE: Final = "nasbench201_latency.parquet"
OTHER_TABLE: Final = "nasbench201_hwnasbench_latency.parquet"
OTHERS: Final = (
    "cifar10_edgegpu", "cifar10_edgetpu", "imagenet16_120_edgegpu", "imagenet16_120_raspi4",
    "imagenet16_120_pixel3",
)  # fmt: skip
NORMAL_MEDIAN: Final = 0.6745
RIDGE: Final = 0.01
LEAST_ERROR_PCT: Final = 0.01
"""Below it a device is exactly known and the ratio means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One device; errors in percent."""

    device: str
    n_networks: int
    stopped: str
    surprise: float
    stated: float
    error: float
    denoised: float
    denoised_rms: float


def judge(
    lab: Lab,
    folder: Path,
    tables: BenchTables,
    device: str,
    *,
    precision_pct: float,
    max_networks: int,
    seed: int = 0,
) -> Row:
    """Profile one device from its column; compare with the rest of the column."""
    live = tables.live
    features = structural_features(tables.genotypes)[live]
    known = [name for name in HELP_TRAIN_DEVICES if name != device]
    prior = LatencyPrior.fit(features, {name: tables.device(name)[live] for name in known})
    table, column = (OTHER_TABLE, f"{device}_latency_ms") if device in OTHERS else (TABLE, device)
    profile = profile_actively(
        lab,
        lab.device(f"replay://{folder / table}#{column}"),
        settings=settings_preset("quick"),
        precision_pct=precision_pct,
        max_networks=max_networks,
        seed=seed,
        prior=prior,
    )
    space = get_space("nasbench201")
    genes = np.array([space.decode(arch).genotype for arch in profile.architectures])
    model = prior.adapt(structural_features(genes), np.array(profile.latency_ms))
    truth = tables.device(device)[live]
    judged = np.isfinite(truth) & (truth > 0)
    mean = model.predict(features[judged]).mean
    off = mean / truth[judged] - 1.0
    center, scale = standardisation(features[judged])
    x = (features[judged] - center) * scale
    clean_off = mean / (x @ Ridge(x, RIDGE).fit(truth[judged])) - 1.0
    chosen = profile.selection
    return Row(
        device=device,
        n_networks=chosen["n_networks"],
        stopped=chosen["stopped"],
        surprise=chosen["surprise"],
        stated=chosen["reached_pct"],
        error=_sd_pct(off),
        denoised=_sd_pct(clean_off),
        denoised_rms=100.0 * float(np.sqrt(np.mean(clean_off**2))),
    )


def _sd_pct(off: Floats) -> float:
    return 100.0 * float(np.median(np.abs(off))) / NORMAL_MEDIAN


def judge_alone(folder: Path, device: str, *, precision_pct: float, max_networks: int) -> Row:
    """`judge` in the store of HWNAS_HOME. Units: percent."""
    with Lab.open() as lab:
        return judge(
            lab,
            folder,
            load_tables([folder]),
            device,
            precision_pct=precision_pct,
            max_networks=max_networks,
        )


HEADER: Final = (
    "| device | networks | ended by | stated | error | stated / error | denoised | its rms |\n"
    "|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """One device as a line of Markdown."""
    ended = row.stopped + (" (unlike any known)" if row.surprise < SURPRISING else "")
    factor = f"{row.stated / row.error:.2f}" if row.error > LEAST_ERROR_PCT else "-"
    return (
        f"| {row.device} | {row.n_networks} | {ended} | {row.stated:.1f} % | {row.error:.1f} % "
        f"| {factor} | {row.denoised:.1f} % | {row.denoised_rms:.1f} % |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--devices", default=",".join([*HELP_TRAIN_DEVICES, *HELP_UNSEEN_DEVICES, *OTHERS])
    )
    parser.add_argument("--precision", type=float, default=3.0)
    parser.add_argument("--max-networks", type=int, default=20)
    options = parser.parse_args(arguments)
    folder = options.data.resolve()
    tables = load_tables([folder])
    with tempfile.TemporaryDirectory() as home:
        os.environ["HWNAS_HOME"] = home
        with Lab.open() as lab:
            print(HEADER)
            for device in options.devices.split(","):
                row = judge(
                    lab,
                    folder,
                    tables,
                    device,
                    precision_pct=options.precision,
                    max_networks=options.max_networks,
                )
                print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
