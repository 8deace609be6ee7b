"""The real compiler, on a network of one convolution."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tvm_networks import tiny_artifact, tiny_network

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.tvm import TvmCompiler
from hwnas_sdk.export.tvm_target import host_target, make_target
from hwnas_sdk.export.user_model import import_onnx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    return ArtifactCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def compiler(cache: ArtifactCache) -> Iterator[TvmCompiler]:
    with TvmCompiler(cache, host_target()) as opened:
        yield opened


def test_a_library_says_what_it_is(
    compiler: TvmCompiler, cache: ArtifactCache, tmp_path: Path
) -> None:
    source = tiny_artifact(tmp_path, cache)
    library = compiler.compile(source)
    assert library.format == "tvm"
    assert library.arch_id == source.arch_id
    assert library.target == host_target().text
    assert library.tuned is False
    assert library.inputs == (("x", (1, 3, 8, 8), "float32"), ("a", (1, 4, 1, 1), "float32"))
    assert Path(library.path).read_bytes()[:4] == b"\x7fELF"
    details = cache.details(library.sha256)
    assert details["onnx_sha256"] == source.sha256
    assert details["n_layers"] >= 2
    assert details["n_tuned"] == 0


def test_a_second_time_nothing_is_compiled(
    compiler: TvmCompiler, cache: ArtifactCache, tmp_path: Path
) -> None:
    source = tiny_artifact(tmp_path, cache)
    library = compiler.compile(source)
    with TvmCompiler(cache, host_target()) as again:
        assert again.compile(source) == library
        assert again._process.pid is None


def test_equal_input_gives_equal_bytes(
    compiler: TvmCompiler, cache: ArtifactCache, tmp_path: Path
) -> None:
    source = tiny_artifact(tmp_path, cache)
    library = compiler.compile(source)
    assert compiler._compile(source, "none").sha256 == library.sha256


def test_a_network_tvm_cannot_read_fails_alone(
    compiler: TvmCompiler, cache: ArtifactCache, tmp_path: Path
) -> None:
    node = helper.make_node("StringNormalizer", ["s"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("s", TensorProto.STRING, [2])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [2])],
    )
    path = tmp_path / "strings.onnx"
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    good = tiny_artifact(tmp_path, cache)
    data = path.read_bytes()
    bad = cache.put(
        data, format="onnx", arch_id="file:x", folded=False, producer="t", input_shapes={"s": (2,)}
    )
    with pytest.raises(ExportError) as caught:
        compiler.compile(bad)
    assert caught.value.code == "tvm_unsupported"
    assert "\n" not in str(caught.value)
    assert compiler.compile(good).format == "tvm"


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None, reason="no g++-aarch64-linux-gnu on this machine"
)
def test_cross_compiled_for_aarch64(cache: ArtifactCache, tmp_path: Path) -> None:
    source = import_onnx(tiny_network(tmp_path), cache=cache)
    with TvmCompiler(cache, make_target("aarch64", mcpu="cortex-a72")) as compiler:
        library = compiler.compile(source)
    head = Path(library.path).read_bytes()[:20]
    assert head[4] == 2  # 64 bits
    assert int.from_bytes(head[18:20], "little") == 183  # AArch64
    assert "cortex-a72" in library.target
