"""`hwnas export`: the file, what is said of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from hwnas_sdk.cli.main import main
from hwnas_sdk.export.weights import random_weights
from hwnas_sdk.spaces import get_space

ARCH = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def _export(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["export", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("flag", ["--folded", "--unfolded"])
def test_a_network_is_written_and_described(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    answer = _export(capsys, ARCH, "-o", str(out), flag)

    data = out.read_bytes()
    onnx.checker.check_model(onnx.load_from_string(data))
    space = get_space("nasbench201")
    graph = space.layers(space.decode(ARCH), folded=flag == "--folded")
    assert answer["sha256"] == hashlib.sha256(data).hexdigest()
    assert answer["size_bytes"] == len(data)
    assert answer["macs"] == graph.macs
    assert answer["n_params"] == graph.n_params
    assert answer["folded"] is (flag == "--folded")
    assert answer["path"] == str(out)
    assert "random" in answer["weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_the_same_network_by_its_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = get_space("nasbench201")
    index = space.index(space.decode(ARCH))  # type: ignore[attr-defined]
    by_index = _export(capsys, f"#{index}", "-o", str(tmp_path / "a.onnx"))
    by_string = _export(capsys, ARCH, "-o", str(tmp_path / "b.onnx"))
    assert by_index["arch"] == ARCH
    assert by_index["sha256"] == by_string["sha256"]


def test_people_are_told_that_weights_are_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", ARCH, "-o", str(tmp_path / "net.onnx")]) == 0
    assert "random (seed 0), not trained" in capsys.readouterr().out


def test_seed_and_data_set_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "net.onnx")
    first = _export(capsys, ARCH, "-o", out)
    other = _export(capsys, ARCH, "-o", out, "--seed", "1")
    small = _export(capsys, ARCH, "-o", out, "--dataset", "imagenet16_120")
    assert len({first["sha256"], other["sha256"], small["sha256"]}) == 3
    assert small["input_shapes"]["input"] == [1, 3, 16, 16]


def test_trained_weights_end_up_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = get_space("nasbench201")
    graph = space.layers(space.decode(ARCH), folded=True)
    weights = random_weights(graph, seed=123)
    trained = tmp_path / "trained.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, trained)
    out = tmp_path / "net.onnx"

    answer = _export(capsys, ARCH, "-o", str(out), "--weights", str(trained))

    assert answer["weights"] == str(trained)
    written = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(out).graph.initializer
    }
    name = next(name for name in weights if name in written and weights[name].ndim == 4)
    np.testing.assert_array_equal(written[name], weights[name])


def test_weights_of_another_network_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "trained.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, trained)
    out = tmp_path / "net.onnx"
    assert main(["export", ARCH, "-o", str(out), "--weights", str(trained)]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "word"),
    [
        (["|nonsense|", "-o", "OUT"], 3, "nasbench201"),
        (["#15625", "-o", "OUT"], 3, "15624"),
        ([DEAD, "-o", "OUT"], 3, "dead"),
        ([ARCH, "-o", "OUT", "--dataset", "mnist"], 3, "mnist"),
        ([ARCH, "-o", "OUT", "--weights", "missing.safetensors"], 6, "missing.safetensors"),
        ([ARCH, "-o", "OUT", "--weights", __file__], 6, "safetensors"),
        ([ARCH, "-o", "/proc/nowhere/net.onnx"], 6, "/proc/nowhere"),
        ([ARCH], 2, "--output"),
        (["-o", "OUT"], 2, "ARCH"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    exit_code: int,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "net.onnx"
    assert main(["export", *(str(out) if a == "OUT" else a for a in arguments)]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert word in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_dead_cell_can_be_exported_unfolded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _export(capsys, DEAD, "-o", str(tmp_path / "net.onnx"), "--unfolded")["macs"] > 0
