"""Layers measured alone: on a board that answers at once, and really on this machine (slow)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.spaces import get_space
from hwnas_sdk.store.dataset import build_dataset
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.layers import measure_layers, stored_layer_table

SPACE = get_space("nasbench201")
QUICK = settings_preset("quick")
CELLS = [
    SPACE.decode(text)
    for text in (
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
        "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    )
]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


def test_layers_are_measured_once_and_kept_out_of_network_data_sets(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    networks = measure_layers(lab, CELLS, on=board, settings=QUICK)
    assert [n.arch for n in networks] == [SPACE.encode(cell) for cell in CELLS]
    run_id = networks[0].whole.run_id
    stored = lab.store.measurements(run_id=run_id)
    layers = {unit.id for n in networks for unit, _ in n.layers}
    assert {m.arch_id for m in stored} == layers | {cell.id for cell in CELLS}
    assert len(stored) == len(layers) + len(CELLS)
    for network in networks:
        total = sum(unit.n * float(m.latency_ms or 0) for unit, m in network.layers)
        assert network.sum_ms == pytest.approx(total)
        assert network.ratio == pytest.approx(total / float(network.whole.latency_ms or 0))
    data = build_dataset(lab.store, device_id=board.spec.id)
    assert len(data) == len(CELLS)
    assert data.manifest["counts"]["left_out"] == {"single_layer": len(layers)}


def test_the_table_comes_from_the_store(lab: Lab) -> None:
    board = lab.device("fake://?mode=ok")
    empty = stored_layer_table(lab.store, device_id=board.spec.id, settings=QUICK)
    assert (dict(empty.latency_ms), empty.n_networks) == ({}, 0)
    networks = measure_layers(lab, CELLS, on=board, settings=QUICK)
    table = stored_layer_table(lab.store, device_id=board.spec.id, settings=QUICK)
    assert table.n_networks == len(CELLS)
    residuals = [float(n.whole.latency_ms or 0) - float(n.sum_ms or 0) for n in networks]
    assert table.constant_ms == pytest.approx(sum(residuals) / 2)  # the median of two
    other = settings_preset("quick", threads=2)
    assert not stored_layer_table(lab.store, device_id=board.spec.id, settings=other).latency_ms


def test_interrupted_it_continues(lab: Lab) -> None:
    with pytest.raises(DeviceError):
        measure_layers(lab, CELLS, on=lab.device("fake://?mode=die_once=90"), settings=QUICK)
    lab._sessions.clear()
    networks = measure_layers(lab, CELLS, on=lab.device("fake://?mode=die_once=90"), settings=QUICK)
    runs = lab.store.runs("measure")
    assert len(runs) == 1
    assert {n.whole.run_id for n in networks} == {runs[0].id}
    stored = lab.store.measurements(run_id=runs[0].id)
    assert len(stored) == len({m.item for m in stored})


def test_a_table_of_networks_has_no_layers(lab: Lab, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"arch": [SPACE.encode(CELLS[0])], "d": [1.0]}), path)
    with pytest.raises(ConfigError, match="single layer"):
        measure_layers(lab, CELLS, on=lab.device(f"replay://{path}#d"), settings=QUICK)


@pytest.mark.slow
def test_layers_of_a_real_network_add_up_roughly(lab: Lab) -> None:
    networks = measure_layers(lab, CELLS[:1], on=lab.device("local:"), settings=QUICK)
    # A busy machine condemns records, but it ran every piece, and they add up roughly.
    whole_ms = networks[0].whole.latency_ms
    times = [(unit.n, m.latency_ms) for unit, m in networks[0].layers]
    assert whole_ms
    assert all(ms for _, ms in times), times
    assert 0.3 < sum(n * float(ms or 0.0) for n, ms in times) / whole_ms < 5.0
