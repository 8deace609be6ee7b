from __future__ import annotations

from pathlib import Path

import pytest

from hwnas_sdk.core.errors import ConfigError, MissingExtraError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.devices import JobItem, open_session
from hwnas_sdk.devices.inventory import Inventory
from hwnas_sdk.devices.jobs import MeasureJob
from hwnas_sdk.simulators import zigzag_engine
from hwnas_sdk.simulators.description import shipped_path
from hwnas_sdk.simulators.workload import ArrayWork
from hwnas_sdk.simulators.zigzag_engine import ArrayCost, ZigZagEngine
from hwnas_sdk.spaces import get_space

SPACE = get_space("nasbench201")
ARCH = SPACE.architecture((3, 2, 4, 1, 3, 0))


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(_self: ZigZagEngine, work: ArrayWork) -> ArrayCost:
        macs = float(work.macs)
        return ArrayCost(
            cycles=macs, compute_cycles=macs, energy_pj=macs, outer_energy_pj=0.0,
            outer_bytes=2.0, unrolling="none", n_mappings=1,
        )  # fmt: skip

    monkeypatch.setattr(ZigZagEngine, "evaluate", evaluate)


def latency_ms(uri: str, *, folded: bool = False, batch: int = 1) -> float | str:
    item = JobItem("i", ARCH.id, SPACE.encode(ARCH), None, folded=folded)
    with open_session(uri) as session:
        settings = settings_preset("quick", batch=batch)
        result = session.measure(MeasureJob("job", (item,), settings, None, seed=0)).items[0]
    return result.error_code or float(result.summary_latency_ms or 0.0)


def test_options_change_the_number_and_the_device() -> None:
    plain = latency_ms("sim://eyeriss")
    assert isinstance(plain, float)
    assert latency_ms("sim://eyeriss?clock_mhz=400") == pytest.approx(plain / 2)
    small = latency_ms("sim://eyeriss?dataset=imagenet16_120")
    assert isinstance(small, float)
    assert small == pytest.approx(plain / 4, rel=0.01)
    dense = latency_ms("sim://eyeriss?pooling=dense_conv")
    assert isinstance(dense, float)
    assert dense > 1.2 * plain
    ids = set()
    for uri in ("sim://eyeriss", "sim://eyeriss?clock_mhz=400", "sim://fpga",
                "sim://eyeriss?pooling=dense_conv", "sim://eyeriss?dataset=cifar100"):  # fmt: skip
        with open_session(uri) as session:
            ids.add(session.spec.id.split("@")[1])
    assert len(ids) == 5


def test_folded_networks_lose_what_is_dead() -> None:
    unfolded, folded = latency_ms("sim://eyeriss"), latency_ms("sim://eyeriss", folded=True)
    assert isinstance(unfolded, float)
    assert isinstance(folded, float)
    assert folded < unfolded


def test_only_batch_one() -> None:
    assert latency_ms("sim://eyeriss", batch=2) == "unsupported_batch"


def test_a_user_s_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = shipped_path("eyeriss").read_text(encoding="utf-8")
    path.write_text(text.replace("clock_mhz: 200.0", "clock_mhz: 100.0"), encoding="utf-8")
    own, shipped = latency_ms(f"sim://{path}"), latency_ms("sim://eyeriss")
    assert isinstance(shipped, float)
    assert own == pytest.approx(2 * shipped)
    path.write_text(text.replace("clock_mhz", "clock_mhy"), encoding="utf-8")
    with pytest.raises(ConfigError, match="clock_mhy"):
        open_session(f"sim://{path}")


def test_a_relative_file_means_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("x", encoding="utf-8")
    entry = Inventory(tmp_path / "devices.yaml").add("mine", "sim://./mine.yaml")
    assert entry.uri == f"sim://{tmp_path / 'mine.yaml'}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sim://tpu", "no shipped accelerator"),
        ("sim:", "names no accelerator"),
        ("sim://eyeriss?pooling=free", "unknown pooling"),
        ("sim://eyeriss?dataset=mnist", "unknown data set"),
        ("sim://eyeriss?clock_mhz=0", "must be positive"),
        ("sim://eyeriss?speed=1", "unknown option"),
    ],
)
def test_wrong_uris_are_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_session(uri)


def test_without_the_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zigzag_engine, "NAME", "no-such-package")
    with pytest.raises(MissingExtraError, match=r"hwnas-sdk\[sim\]"):
        open_session("sim://eyeriss")
