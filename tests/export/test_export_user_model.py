from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.core.ids import sha256_bytes
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture
from hwnas_sdk.export.user_model import import_onnx
from hwnas_sdk.spaces import get_space


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "artifacts")


def model(shape=(1, 3), *, opset: int = 17, ir: int = 8, kind=TensorProto.FLOAT, **extra):
    """y = x + 1 on a 3-vector, or an identity for other element types."""
    tensors = [numpy_helper.from_array(np.ones((1, 3), np.float32), "w")]
    is_float = kind == TensorProto.FLOAT
    node = helper.make_node("Add", ["x", "w"], ["y"]) if is_float else None
    graph = helper.make_graph(
        [node or helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
        tensors if is_float else [],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **extra
    )


def save(tmp_path: Path, proto: onnx.ModelProto, name: str = "net.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(proto.SerializeToString())
    return path


def refusal(path: Path, cache: ArtifactCache, **options) -> ExportError:
    with pytest.raises(ExportError) as caught:
        import_onnx(path, cache=cache, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert list(cache.root.glob("??/*")) == []
    return caught.value


def test_a_good_file_is_kept_byte_for_byte(tmp_path: Path, cache: ArtifactCache) -> None:
    path = save(tmp_path, model(producer_name="pytorch", producer_version="2.9"))
    artifact = import_onnx(path, cache=cache)
    assert artifact.sha256 == sha256_bytes(path.read_bytes())
    assert artifact.arch_id == f"file:{artifact.sha256[:12]}"
    assert artifact.input_shapes == {"x": (1, 3)}
    assert artifact.producer == "file by pytorch 2.9, opset 17 ir 8"
    assert cache.details(artifact.sha256) == {
        "file_name": "net.onnx",
        "input_dtypes": {"x": "float32"},
        "rewritten": False,
    }
    assert import_onnx(path, cache=cache) == artifact


def test_our_own_export_can_be_imported(tmp_path: Path, cache: ArtifactCache) -> None:
    space = get_space("nasbench201")
    arch = space.sample(1, seed=0)[0]
    ours = export_architecture(space, arch, cache=cache, folded=True)
    path = tmp_path / "Mine.ONNX"
    path.write_bytes(Path(ours.path).read_bytes())
    artifact = import_onnx(path, cache=cache)
    assert artifact.sha256 == ours.sha256
    assert artifact.arch_id.startswith("file:")


@pytest.mark.parametrize("kind", ["INT64", "INT32", "UINT8", "BOOL", "DOUBLE", "FLOAT16"])
def test_other_element_types_are_recorded(tmp_path: Path, cache: ArtifactCache, kind: str) -> None:
    path = save(tmp_path, model(kind=getattr(TensorProto, kind)))
    artifact = import_onnx(path, cache=cache)
    names = {"DOUBLE": "float64"}
    dtypes = cache.details(artifact.sha256)["input_dtypes"]
    assert dtypes == {"x": names.get(kind, kind.lower())}


def test_scalar_inputs_and_weights_listed_as_inputs(tmp_path: Path, cache: ArtifactCache) -> None:
    proto = model(shape=(), ir=3, opset=9)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (1, 3)))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1)
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_value=3)
    artifact = import_onnx(save(tmp_path, proto), cache=cache)
    assert artifact.input_shapes == {"x": ()}


# --- dynamic shapes ---------------------------------------------------------------------------


def test_dynamic_shapes_are_named_with_both_ways_out(tmp_path: Path, cache: ArtifactCache) -> None:
    error = refusal(save(tmp_path, model(("N", None))), cache)
    assert error.code == "dynamic_shape"
    assert "input 'x' dimension 0 ('N'), dimension 1 (no name)" in error.message
    assert "fixed_dims={'N': 1, 'x:1': 1}" in error.hint
    tool = "python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param N --dim_value 1"
    assert f"{tool} net.onnx net-fixed.onnx" in error.hint


def test_unnamed_dimensions_are_fixed_by_shape(tmp_path: Path, cache: ArtifactCache) -> None:
    error = refusal(save(tmp_path, model((None, 3))), cache)
    assert "--input_name x --input_shape 1,3 net.onnx" in error.hint


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_dynamic(tmp_path: Path, cache: ArtifactCache, size: int) -> None:
    assert refusal(save(tmp_path, model((size, 3))), cache).code == "dynamic_shape"


def test_an_input_without_any_shape(tmp_path: Path, cache: ArtifactCache) -> None:
    error = refusal(save(tmp_path, model(None)), cache)
    assert error.code == "dynamic_shape"
    assert "'x'" in error.message


@pytest.mark.parametrize("fixed", [{"N": 4}, {"x:0": 4}, {"N": 4, "x:0": 4}])
def test_named_dimensions_can_be_fixed(
    tmp_path: Path, cache: ArtifactCache, fixed: dict[str, int]
) -> None:
    path = save(tmp_path, model(("N", 3)))
    before = path.read_bytes()
    artifact = import_onnx(path, cache=cache, fixed_dims=fixed)
    assert artifact.input_shapes == {"x": (4, 3)}
    assert cache.details(artifact.sha256)["rewritten"]
    assert path.read_bytes() == before
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [4, 3]
    assert session.get_outputs()[0].shape == [4, 3]


def test_unnamed_dimensions_can_be_fixed(tmp_path: Path, cache: ArtifactCache) -> None:
    path = save(tmp_path, model((None, 3)))
    artifact = import_onnx(path, cache=cache, fixed_dims={"x:0": 2})
    assert artifact.input_shapes == {"x": (2, 3)}


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"M": 1}, "no dynamic dimension 'M'"),
        ({"x:1": 1}, "no dynamic dimension 'x:1'"),
        ({"N": 0}, "at least 1"),
        ({"N": 1, "x:0": 2}, "two sizes"),
    ],
)
def test_wrong_fixed_dims(
    tmp_path: Path, cache: ArtifactCache, fixed: dict[str, int], says: str
) -> None:
    error = refusal(save(tmp_path, model(("N", 3))), cache, fixed_dims=fixed)
    assert error.code == "bad_fixed_dim"
    assert says in str(error)


def test_fixing_one_of_two_leaves_the_other_open(tmp_path: Path, cache: ArtifactCache) -> None:
    error = refusal(save(tmp_path, model(("N", "W"))), cache, fixed_dims={"N": 1})
    assert "dimension 1 ('W')" in error.message
    assert "'N'" not in str(error)


# --- not what it says -------------------------------------------------------------------------


def test_missing_folder_and_wrong_extension(tmp_path: Path, cache: ArtifactCache) -> None:
    assert refusal(tmp_path / "none.onnx", cache).code == "model_missing"
    (tmp_path / "dir.onnx").mkdir()
    assert "is a folder" in str(refusal(tmp_path / "dir.onnx", cache))
    error = refusal(save(tmp_path, model(), "net.pt"), cache)
    assert error.code == "not_onnx"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04rest", "PyTorch"),
        (b"\x1c\0\0\0TFL3....", "TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM....", ".ort"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html>", "HTML"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"hello world, this is no model", "not an ONNX file"),
        (b"\xff" * 64, "not an ONNX file"),
        (onnx.ValueInfoProto(name="x").SerializeToString(), "not an ONNX file"),
    ],
)
def test_foreign_files(tmp_path: Path, cache: ArtifactCache, data: bytes, says: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    error = refusal(path, cache)
    assert error.code == "not_onnx"
    assert says in str(error)


def test_empty_file(tmp_path: Path, cache: ArtifactCache) -> None:
    path = tmp_path / "net.onnx"
    path.touch()
    assert "is empty" in str(refusal(path, cache))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0.02, 0.98))
def test_truncated_files(tmp_path: Path, cache: ArtifactCache, cut: float) -> None:
    data = model(producer_name="p" * 20).SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data[: int(len(data) * cut)])
    assert refusal(path, cache).code in {"truncated", "not_onnx"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(position=58, bit=5)  # an element type without a name
@given(position=st.integers(0, 120), bit=st.integers(0, 7))
def test_flipped_bits_never_escape_as_something_else(
    tmp_path: Path, cache: ArtifactCache, position: int, bit: int
) -> None:
    data = bytearray(model().SerializeToString())
    data[position % len(data)] ^= 1 << bit
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(data))
    try:
        import_onnx(path, cache=cache)
    except ExportError as exc:
        assert "\n" not in str(exc)  # noqa: PT017 - some flips are harmless


def test_a_graph_that_breaks_the_rules(tmp_path: Path, cache: ArtifactCache) -> None:
    proto = model()
    proto.graph.node[0].input[0] = "nowhere"
    error = refusal(save(tmp_path, proto), cache)
    assert error.code == "bad_onnx"
    assert "nowhere" in str(error)


def test_custom_operators(
    tmp_path: Path, cache: ArtifactCache, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = model()
    proto.graph.node[0].domain = "my.company"
    proto.opset_import.append(helper.make_opsetid("my.company", 1))
    error = refusal(save(tmp_path, proto), cache)
    assert error.code == "unsupported"
    assert "ONNX Runtime" in str(error)
    assert capfd.readouterr() == ("", "")  # the runtime's own log stays silent


def test_no_inputs(tmp_path: Path, cache: ArtifactCache) -> None:
    proto = model()
    del proto.graph.input[:]
    proto.graph.node[0].input[0] = "w"
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3)))
    assert refusal(save(tmp_path, proto), cache).code == "no_inputs"


def test_inputs_nobody_can_make_up(tmp_path: Path, cache: ArtifactCache) -> None:
    error = refusal(save(tmp_path, model(kind=TensorProto.STRING)), cache)
    assert error.code == "unsupported_input"
    assert "tensor of string" in str(error)
    proto = model()
    proto.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, (1,)))
    )
    assert "a sequence" in str(refusal(save(tmp_path, proto), cache))


@pytest.mark.parametrize(("opset", "ir"), [(99, 8), (17, 99)])
def test_too_new(tmp_path: Path, cache: ArtifactCache, opset: int, ir: int) -> None:
    error = refusal(save(tmp_path, model(opset=opset, ir=ir)), cache)
    assert error.code == "too_new"
    assert f"(IR {ir}, opset {opset})" in str(error)
    assert onnxruntime.__version__ in str(error)


def test_too_big(tmp_path: Path, cache: ArtifactCache) -> None:
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no room
    error = refusal(path, cache)
    assert error.code == "model_too_big"
    assert "2.0 GiB" in str(error)


# --- external data ----------------------------------------------------------------------------


def external(tmp_path: Path, *, location: str = "net.data", length: str | None = None) -> Path:
    """A model whose weight lies in another file."""
    proto = model()
    tensor = proto.graph.initializer[0]
    if "/" not in location:
        (tmp_path / location).write_bytes(b"pad!" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": "4", "length": length or "12"}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return save(tmp_path, proto)


def test_external_data_is_taken_in(tmp_path: Path, cache: ArtifactCache) -> None:
    artifact = import_onnx(external(tmp_path), cache=cache)
    assert cache.details(artifact.sha256)["rewritten"]
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.zeros((1, 3), np.float32)})
    assert y.tolist() == [[1, 1, 1]]


def test_external_data_inside_attributes(tmp_path: Path, cache: ArtifactCache) -> None:
    path = external(tmp_path)
    proto = onnx.ModelProto.FromString(path.read_bytes())
    constant = proto.graph.node.add(op_type="Constant", output=["w"])
    constant.attribute.add(name="value", t=proto.graph.initializer[0], type=4)
    del proto.graph.initializer[:]
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    artifact = import_onnx(save(tmp_path, proto), cache=cache)
    assert artifact.input_shapes == {"x": (1, 3)}


def test_external_data_that_is_missing(tmp_path: Path, cache: ArtifactCache) -> None:
    path = external(tmp_path)
    (tmp_path / "net.data").unlink()
    error = refusal(path, cache)
    assert error.code == "external_data"
    assert "'net.data' is missing" in str(error)


def test_external_data_that_is_too_short(tmp_path: Path, cache: ArtifactCache) -> None:
    assert "breaks off" in str(refusal(external(tmp_path, length="13"), cache))
    assert "damaged" in str(refusal(external(tmp_path, length="many"), cache))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_external_data_outside_the_folder(
    tmp_path: Path, cache: ArtifactCache, location: str
) -> None:
    assert "outside its folder" in str(refusal(external(tmp_path, location=location), cache))


def test_external_data_makes_it_too_big(tmp_path: Path, cache: ArtifactCache) -> None:
    path = external(tmp_path, length=str(2**31))
    with (tmp_path / "net.data").open("wb") as file:
        file.truncate(2**31 + 4)
    assert refusal(path, cache).code == "model_too_big"
