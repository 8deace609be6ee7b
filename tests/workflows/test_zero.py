from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.types import DeviceSpec
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.zero import (
    SAME_CHIP,
    SAME_FAMILY,
    STRANGER,
    closest_profile,
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


@pytest.mark.slow
def test_nothing_measured_ranks_like_the_profile_and_doubts_its_level() -> None:
    profiles = shipped_profiles()
    cells = np.array([a.genotype for a in SPACE.sample(300, seed=1)])
    rows = zip(profiles[0].architectures, profiles[0].latency_ms, strict=True)
    labels = [
        Label(
            architecture=SPACE.decode(arch), folded=False, latency_ms=ms, rel_sd=0.01,
            peak_memory_mib=None,
        )
        for arch, ms in rows
    ]  # fmt: skip
    measured, _ = Beliefs.fit(SPACE, labels, folded=False).predict(cells, ["latency"])
    doubts = []
    for device in (spec(soc="AMD EPYC"), spec(), spec(family="arm")):
        beliefs = zero_measurement_beliefs(SPACE, device, profiles, folded=False)
        mean, sd = beliefs.predict(cells, ["latency"])
        assert (spearman(measured[:, 0], mean[:, 0]) or 0.0) > 0.9
        doubts.append(float(np.median(sd / mean)))
        assert "nothing was measured on new" in beliefs.provenance()["latency_ms"]
    assert 0.2 <= doubts[0] < doubts[1] < doubts[2]
