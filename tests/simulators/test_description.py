from __future__ import annotations

from pathlib import Path

import pytest

from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.simulators.description import SHIPPED, load_description, shipped_path

EYERISS = shipped_path("eyeriss")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = EYERISS.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_descriptions_are_valid_and_every_number_has_its_source(name: str) -> None:
    path = shipped_path(name)
    assert load_description(path).array.n_elements > 100
    lines = path.read_text(encoding="utf-8").splitlines()
    unsourced = [
        line
        for line in lines
        if not line.startswith("#")
        and any(key in line for key in ("clock_mhz", "size_bytes", "gb_per_s", "_pj: ", "power_w"))
        and "_pj: 0.0" not in line
        and "write_pj" not in line  # as the line of read_pj above it
        and "#" not in line
    ]
    assert not unsourced


def test_eyeriss_is_the_chip_of_the_papers() -> None:
    eyeriss = load_description(EYERISS)
    assert (eyeriss.array.rows, eyeriss.array.columns) == (12, 14)
    assert eyeriss.clock_mhz == 200.0
    energies = {memory.name: memory.read_pj / eyeriss.array.mac_pj for memory in eyeriss.memories}
    assert energies["global_buffer"] == pytest.approx(6.0)
    assert energies["dram"] == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("old", "new", "key", "at"),
    [
        ("clock_mhz: 200.0", "clock_mhz: fast", "clock_mhz", "clock_mhz: fast"),
        ("clock_mhz: 200.0", "clock_mhz: -1.0", "clock_mhz", "clock_mhz: -1.0"),
        ("  columns: 14", "  colums: 14", "array.colums", "  colums: 14"),
        ("size_bytes: 24 ", "size_bytes: 0 ", "memories.0.size_bytes", "size_bytes: 0 "),
        ("factors: divisors", "factors: primes", "mapping.factors", "factors: primes"),
        ("unroll_fully: [FY]", "unroll_fully: [FX]", "unroll_fully names FX", "mapping:"),
        ("name: ifmap_spad", "name: filter_spad", "two memories have one name", "memories:"),
        ("bits_per_cycle: 256", "gigabytes: 3", "memories.3.gigabytes", "gigabytes: 3"),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_line(
    tmp_path: Path, old: str, new: str, key: str, at: str
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught:
        load_description(path)
    assert caught.value.code == "bad_accelerator"
    assert key in caught.value.message
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, 1) if at in text)
    assert f"{path}, line {line}: " in caught.value.message


def test_yaml_that_is_none_and_files_that_are_not_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 2"):
        load_description(broken)
    with pytest.raises(ConfigError, match="No such file"):
        load_description(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="no shipped accelerator 'tpu'") as caught:
        shipped_path("tpu")
    assert "eyeriss" in caught.value.hint


def test_a_rate_becomes_a_width_at_the_clock() -> None:
    fpga = load_description(shipped_path("fpga"))
    # 1.4 GB/s at 150 MHz are 74.67 bits per cycle; a port has whole bits.
    assert fpga.outermost.width_bits("input", fpga.clock_mhz) == 74
    assert fpga.outermost.width_bits("input", 2 * fpga.clock_mhz) == 37


def test_the_hash_is_of_what_changes_numbers(tmp_path: Path) -> None:
    known = load_description(EYERISS).content_hash
    assert (
        load_description(changed(tmp_path, "title: Eyeriss", "title: Mine")).content_hash == known
    )
    faster = load_description(changed(tmp_path, "clock_mhz: 200.0", "clock_mhz: 250.0"))
    assert faster.content_hash != known
