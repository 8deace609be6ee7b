from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from device_agents.agent import board
from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.predictors.encodings import structural_features
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.tables import load_tables
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.profile import reference_architectures
from hwnas_sdk.workflows.zero import (
    FAMILIES,
    SAME_CHIP,
    SAME_FAMILY,
    STRANGER,
    closest_profile,
    described_device,
    kinship,
    shipped_profiles,
    zero_measurement_beliefs,
)

SPACE = get_space("nasbench201")


def spec(**changes: object) -> DeviceSpec:
    plain = DeviceSpec(
        id="new@1", name="new", uri="local:", family="x86", soc="Some CPU", cores=4,
        memory_mib=8192, machine="bare",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_closest_profile_is_the_one_with_the_least_doubt() -> None:
    (shipped,) = shipped_profiles()
    twin = replace(shipped, device_id="pi@1", device={"family": "arm", "soc": "BCM2711"})
    for device, profile, kin in (
        (spec(), shipped, SAME_FAMILY),
        (spec(soc="AMD EPYC"), shipped, SAME_CHIP),
        (spec(family="arm", soc="BCM2711"), twin, SAME_CHIP),
        (spec(family="riscv"), shipped, STRANGER),
    ):
        assert closest_profile(device, [shipped, twin], runtime="ort") == (profile, kin)
    with pytest.raises(DataError, match="runtime tvm"):
        closest_profile(spec(), [shipped], runtime="tvm")
    emulated = replace(shipped, device={"machine": "emulated"})
    with pytest.raises(DataError, match="no profile"):
        closest_profile(spec(), [emulated], runtime="ort")


@pytest.mark.parametrize("family", ["simulator", "replay"])
def test_what_was_calculated_stands_for_no_board(family: str) -> None:
    (shipped,) = shipped_profiles()
    calculated = replace(
        shipped,
        device_id="calculated@1",
        device={"family": family, "soc": "Array", "machine": "bare"},
        measured_at="2099-01-01T00:00:00+00:00",
    )
    for device in (spec(family="aarch64", soc="Array"), spec(family="x86")):
        assert closest_profile(device, [calculated, shipped], runtime="ort")[0] is shipped
    with pytest.raises(DataError, match="no profile"):
        closest_profile(spec(family="aarch64"), [calculated], runtime="ort")
    own = described_device(family, "other")
    found = closest_profile(own, [calculated, shipped], runtime="ort")
    assert found == (calculated, SAME_FAMILY)


def test_a_family_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="'arm64'") as caught:
        described_device("arm64", profiles=shipped_profiles())
    assert "aarch64" in str(caught.value.hint)
    (shipped,) = shipped_profiles()
    owned = replace(shipped, device={**shipped.device, "family": "Toaster"})
    assert described_device("toaster", profiles=[owned]).family == "Toaster"
    assert described_device("AArch64").family == "aarch64"
    assert kinship(spec(family="X86", soc="amd epyc"), shipped.device) == SAME_CHIP
    assert kinship(spec(family="X86"), shipped.device) == SAME_FAMILY
    assert set(board.FAMILIES) <= set(FAMILIES)
    with Lab.open() as lab:
        for uri in ("sim://eyeriss", "sim://fpga"):
            assert lab.device(uri).spec.family in FAMILIES


@pytest.mark.slow
def test_the_closer_the_profile_the_more_of_the_ranking_is_its_own() -> None:
    profiles = shipped_profiles()
    cells = np.array([a.genotype for a in SPACE.sample(300, seed=1)])
    rows = zip(profiles[0].architectures, profiles[0].latency_ms, strict=True)
    labels = [
        Label(
            architecture=SPACE.decode(arch), folded=False, latency_ms=ms, rel_sd=0.05,
            peak_memory_mib=None,
        )
        for arch, ms in rows
    ]  # fmt: skip

    def ranked_as(other: Beliefs, mean: np.ndarray) -> float:
        return spearman(other.predict(cells, ["latency"])[0][:, 0], mean[:, 0]) or 0.0

    measured, average = (
        Beliefs.fit(SPACE, labels, folded=False),
        Beliefs.fit(SPACE, [], folded=False),
    )
    doubts, by_profile, by_average = [], [], []
    for device in (spec(soc="AMD EPYC"), spec(), spec(family="arm")):
        beliefs = zero_measurement_beliefs(SPACE, device, profiles, folded=False)
        mean, sd = beliefs.predict(cells, ["latency"])
        doubts.append(float(np.median(sd / mean)))
        by_profile.append(ranked_as(measured, mean))
        by_average.append(ranked_as(average, mean))
        told = beliefs.provenance()["latency_ms"]
        assert "nothing was measured on new" in told
        assert "nine times in ten" in told
    assert 0.3 <= doubts[0] < doubts[1] < doubts[2]
    assert by_profile[0] == pytest.approx(1.0, abs=1e-3)
    assert by_average[2] == pytest.approx(1.0, abs=1e-9)
    assert by_profile[0] > by_profile[1] > by_profile[2]


KIN = (
    # a device measured by somebody, the one that was not, what they share
    ("cifar10_raspi4", "raspi4", SAME_CHIP),
    ("cifar100_edgegpu", "cifar10_edgegpu", SAME_CHIP),
    ("titanx_256", "titan_rtx_256", SAME_FAMILY),
    ("gold_6240", "gold_6226", SAME_FAMILY),
    ("silver_4210r", "gold_6226", SAME_FAMILY),
    ("pixel3", "pixel2", SAME_FAMILY),
    ("samsung_s7", "pixel2", SAME_FAMILY),
    ("gold_6226", "titan_rtx_256", STRANGER),
    ("raspi4", "gold_6226", STRANGER),
    ("pixel2", "raspi4", STRANGER),
    ("titan_rtx_256", "pixel2", STRANGER),
    ("raspi4", "cifar10_edgegpu", STRANGER),
    (None, "raspi4", STRANGER),
    (None, "pixel2", STRANGER),
    (None, "titan_rtx_256", STRANGER),
    (None, "cifar10_edgegpu", STRANGER),
    (None, "gold_6226", SAME_FAMILY),
)


@pytest.mark.slow
def test_public_devices_from_each_others_profiles(shared_data) -> None:
    """None is the shipped profile. The ten references of a column stand for a profile."""
    (shipped,) = shipped_profiles()
    tables = load_tables([shared_data])
    references = reference_architectures("ours")
    row_of = {arch: row for row, arch in enumerate(tables.arch)}
    rows = np.flatnonzero(tables.live)[::15]
    prior = LatencyPrior.shipped()
    average = prior.adapt(np.empty((0, prior.n_features)), np.empty(0))
    gains: dict[str, list[float]] = {}
    inside = 0
    for known, unseen, kin in KIN:
        profile = shipped
        if known is not None:
            values = tables.device(known)[[row_of[arch] for arch in references]]
            profile = replace(
                shipped,
                device_id="known@1",
                architectures=references,
                latency_ms=tuple(values.tolist()),
                device={"family": "f", "soc": "c"},
            )
        device = spec(
            family=str(profile.device["family"]) if kin is not STRANGER else "other",
            soc="c" if kin is SAME_CHIP else "other",
        )
        beliefs = zero_measurement_beliefs(SPACE, device, [profile], folded=False)
        truth = tables.device(unseen)
        judged = rows[np.isfinite(truth[rows])]
        cells = tables.genotypes[judged]
        mean = beliefs.predict(cells, ["latency"])[0][:, 0]
        bare = average.predict(structural_features(cells)).mean
        gain = (spearman(truth[judged], mean) or 0.0) - (spearman(truth[judged], bare) or 0.0)
        assert gain > -0.05, (known, unseen, gain)
        gains.setdefault(kin.words, []).append(gain)
        inside += abs(np.log(np.median(truth[judged] / mean))) <= np.log(kin.factor90)
    assert min(gains[SAME_CHIP.words]) > 0.05
    assert np.mean(gains[SAME_FAMILY.words]) > -0.02
    assert gains[STRANGER.words] == pytest.approx([0.0] * len(gains[STRANGER.words]), abs=1e-9)
    assert inside >= 0.9 * len(KIN)


def test_a_device_can_be_described_and_has_no_energy() -> None:
    device = described_device("x86", "AMD EPYC")
    profile, kin = closest_profile(device, shipped_profiles(), runtime="ort")
    assert profile.device_id != device.id
    assert kin == SAME_CHIP
    assert closest_profile(described_device("RISCV64"), [profile], runtime="ort")[1] == STRANGER
    beliefs = zero_measurement_beliefs(SPACE, device, [profile], folded=True)
    cells = np.array([SPACE.sample(1, seed=1)[0].genotype])
    for objective in ("energy", "memory"):
        with pytest.raises(ConfigError, match="nothing was measured on this device"):
            beliefs.predict(cells, [objective])
