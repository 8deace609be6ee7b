"""Inputs of a foreign model: their kinds, their sizes, and fixing the sizes that are open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx

from hwnas_sdk.core.errors import ExportError

# What an agent can make an input of: TensorProto element type -> numpy's name for it.
INPUT_DTYPES: Final[dict[int, str]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.UINT32: "uint32",
    onnx.TensorProto.UINT64: "uint64",
    onnx.TensorProto.BOOL: "bool",
}


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that are not weights (before IR 4 weights were listed as inputs too)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _is_static(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value > 0


def _dynamic(value: onnx.ValueInfoProto) -> list[tuple[int, str]]:
    """(axis, name to call it by in `fixed_dims`) of each dimension without a size."""
    return [
        (axis, dim.dim_param or f"{value.name}:{axis}")
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if not _is_static(dim)
    ]


def fix_dims(path: Path, model: onnx.ModelProto, fixed: Mapping[str, int]) -> bool:
    """Write `fixed` sizes (see `import_onnx`) into the model.

    Returns: whether anything was to do.
    Raises: ExportError (``bad_fixed_dim``) for a size below 1 or a dimension that is not there.
    """
    if not fixed:
        return False
    wrong = next((f"{name}={size}" for name, size in fixed.items() if size < 1), None)
    if wrong is not None:
        raise ExportError(f"{path}: a dimension is at least 1, not {wrong}", code="bad_fixed_dim")
    inputs = _inputs(model)
    sizes = dict(fixed)  # by dimension name; "input:axis" of a named dimension means its name
    known: set[str] = set()
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        for axis, name in _dynamic(value):
            key = f"{value.name}:{axis}"
            known |= {key, name}
            if key in fixed and sizes.setdefault(name, fixed[key]) != fixed[key]:
                raise ExportError(
                    f"{path}: dimension {name!r} would get two sizes", code="bad_fixed_dim"
                )
            if name == key and key in fixed:
                dims[axis].dim_value = fixed[key]
    stray = sorted(fixed.keys() - known)
    if stray:
        raise ExportError(
            f"{path} has no dynamic dimension {stray[0]!r}",
            code="bad_fixed_dim",
            hint=f"dynamic: {', '.join(sorted(known)) or 'none'}",
        )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    return True


def static_inputs(
    path: Path, model: onnx.ModelProto
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shape and element type of each input.

    Raises: ExportError for no inputs, dynamic ones, and kinds no agent can make.
    """
    inputs = _inputs(model)
    if not inputs:
        raise ExportError(
            f"{path} has no inputs: there is nothing to feed it",
            code="no_inputs",
            hint="export it so that the data is a graph input, not a constant",
        )
    shapes, dtypes = {}, {}
    for value in inputs:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type not in INPUT_DTYPES:
            raise ExportError(
                f"{path}: input {value.name!r} is {_kind(value)}, which cannot be made up",
                code="unsupported_input",
                hint=f"inputs are tensors of {', '.join(INPUT_DTYPES.values())}",
            )
        if not tensor.HasField("shape"):
            raise ExportError(
                f"{path}: input {value.name!r} has no shape, not even a number of dimensions",
                code="dynamic_shape",
                hint=_reshape_hint(path, value.name, "1,3,224,224"),
            )
        shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        dtypes[value.name] = INPUT_DTYPES[tensor.elem_type]
    dynamic = [value for value in inputs if _dynamic(value)]
    if dynamic:
        raise _dynamic_error(path, dynamic)
    return shapes, dtypes


def _dynamic_error(path: Path, values: list[onnx.ValueInfoProto]) -> ExportError:
    """Name every dynamic dimension, and how to fix the first one in each of two ways."""
    found = []
    for value in values:
        dims = value.type.tensor_type.shape.dim
        where = ", ".join(
            f"dimension {axis} ({dims[axis].dim_param!r})"
            if dims[axis].dim_param
            else f"dimension {axis} (no name)"
            for axis, _ in _dynamic(value)
        )
        found.append(f"input {value.name!r} {where}")
    first = values[0]
    dims = first.type.tensor_type.shape.dim
    ours = dict.fromkeys((name for value in values for _, name in _dynamic(value)), 1)
    axis, name = _dynamic(first)[0]
    if dims[axis].dim_param:
        theirs = _tool(path, f"--dim_param {name} --dim_value 1")
    else:
        example = ",".join(str(dim.dim_value) if _is_static(dim) else "1" for dim in dims)
        theirs = _reshape_hint(path, first.name, example)
    return ExportError(
        f"{path} has dynamic shapes: {'; '.join(found)}",
        code="dynamic_shape",
        hint=f"pass --fix-dim NAME=N, or fixed_dims={ours}, or run: {theirs}",
    )


def _reshape_hint(path: Path, name: str, shape: str) -> str:
    return _tool(path, f"--input_name {name} --input_shape {shape}")


def _tool(path: Path, options: str) -> str:
    return (
        f"python -m onnxruntime.tools.make_dynamic_shape_fixed {options} "
        f"{path.name} {path.stem}-fixed.onnx"
    )


def _kind(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return f"a {(kind or 'value of no type').removesuffix('_type')}"
    element = value.type.tensor_type.elem_type
    # A damaged file, or one from a newer ONNX, can hold a number that has no name here.
    named = onnx.TensorProto.DataType.values()
    name = onnx.TensorProto.DataType.Name(element).lower() if element in named else str(element)
    return f"a tensor of {'element type ' * name.isdigit()}{name}"
