"""The few bytes of protobuf that make up most of an ONNX file.

A network has hundreds of nodes and tensors; building each through the protobuf package costs four
times as much as everything else in an export, so these two messages are framed by hand. Everything
rare (attributes, inputs, outputs, metadata) still goes through `onnx`. Tests parse the result with
`onnx` and require it to serialise to the very same bytes.

Field numbers: onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_LENGTH_DELIMITED: Final = 2


def _tag(number: int, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    return bytes([number << 3 | wire_type])


_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME = _tag(1), _tag(2), _tag(3)
_TENSOR_DIM, _TENSOR_TYPE = _tag(1, 0), _tag(2, 0)
_TENSOR_NAME, _TENSOR_RAW = _tag(8), _tag(9)


def varint(value: int) -> bytes:
    """Protobuf's variable-length form of a number >= 0."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@lru_cache(maxsize=8192)
def head(number: int, length: int) -> bytes:
    """Tag and length that stand before a length-delimited field (number < 16)."""
    return _tag(number) + varint(length)


@lru_cache(maxsize=16384)
def _text(text: str) -> bytes:
    """Length and bytes of a string; the names of one space come back with every network."""
    data = text.encode()
    return varint(len(data)) + data


def node(inputs: Sequence[str], output: str, rest: bytes) -> bytes:
    """NodeProto named like its output; `rest` is its serialised op_type and attributes.

    Args:
        inputs: at least one tensor name.
        output: tensor it writes.
        rest: the fields after the name.
    """
    out = _text(output)
    read = _NODE_INPUT + _NODE_INPUT.join(map(_text, inputs))
    return b"".join((read, _NODE_OUTPUT, out, _NODE_NAME, out, rest))


def tensor_head(name: str, shape: tuple[int, ...], data_type: int, n_bytes: int) -> bytes:
    """TensorProto up to its `n_bytes` of elements, which follow row by row, little-endian."""
    before, after = _tensor_frame(shape, data_type, n_bytes)
    return b"".join((before, _text(name), after))


@lru_cache(maxsize=1024)
def _tensor_frame(shape: tuple[int, ...], data_type: int, n_bytes: int) -> tuple[bytes, bytes]:
    dims = b"".join(_TENSOR_DIM + varint(size) for size in shape)
    before = dims + _TENSOR_TYPE + varint(data_type) + _TENSOR_NAME
    return before, _TENSOR_RAW + varint(n_bytes)
