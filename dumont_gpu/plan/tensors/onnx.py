"""The large tensors within an ONNX model, found by walking its protobuf messages.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; tensors in files of their own need no parser.
"""

from __future__ import annotations

from typing import Final

from dumont_gpu.native import Dtype
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import SHORTEST, Tensor, UnsoundError

FIRST_TAG: Final = b"\x08"  # ir_version: field 1, a number. Protobuf has no other magic.

# Message -> the fields that hold messages with tensors in them. A subgraph is the body of a loop or of a branch.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _TENSOR = "model", "graph", "node", "attribute", "function", "tensor"
_FIELDS: Final[dict[str, dict[int, str]]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH},
    _TENSOR: {},
}
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA = 2, 4, 9  # fields of a tensor
_DTYPES: Final = {1: Dtype.FP32, 10: Dtype.FP16, 16: Dtype.BF16, 17: Dtype.FP8_E4M3, 19: Dtype.FP8_E5M2}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_FIELDS: Final = 300_000  # walked in one file: less than a second
_MAX_DEPTH: Final = 32  # messages within messages; two subgraphs within each other take 10


def tensors(cursor: Cursor) -> list[Tensor]:
    """Returns the tensors of SHORTEST bytes and more.

    Raises:
        UnsoundError: the file is not sound, or becomes shorter.
        OSError: the file cannot be read.
    """
    return _Walk(cursor).run()


class _Walk:
    """A walk through the messages of a model, which leaves out messages too short to hold a large tensor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._left = _MAX_FIELDS
        self._found: list[Tensor] = []

    def run(self) -> list[Tensor]:
        self._cursor.move_to(0)
        self._message(_MODEL, self._cursor.size, 0)
        return self._found

    def _message(self, kind: str, end: int, depth: int) -> None:
        """Walks through the fields of a message that begins at the cursor."""
        if depth > _MAX_DEPTH:
            raise UnsoundError("messages too deep within each other")
        cursor, fields = self._cursor, _FIELDS[kind]
        data: tuple[int, int] | None = None
        data_type = 0
        while cursor.at < end:
            self._left -= 1
            if not self._left:
                raise UnsoundError("too many fields")
            number, wire = divmod(cursor.varint(), 8)
            if not number:
                raise UnsoundError("a field without a number")
            value = self._value(wire, end)
            if kind == _TENSOR and number == _DATA_TYPE and wire == _VARINT:
                data_type = value
            if wire != _BYTES:
                continue
            after = cursor.at + value
            if value >= SHORTEST and number in fields:
                self._message(fields[number], after, depth + 1)
            elif kind == _TENSOR and number in (_RAW_DATA, _FLOAT_DATA):
                data = cursor.at, after
            cursor.move_to(after)
        if cursor.at != end:
            raise UnsoundError("a message that ends within a field")
        if data is not None:
            self._found.append(Tensor(*data, _DTYPES.get(data_type)))

    def _value(self, wire: int, end: int) -> int:
        """Returns a field's number, or how many bytes of it follow; moves behind a number."""
        cursor = self._cursor
        if wire == _FIXED64:
            return cursor.number(8)
        if wire == _FIXED32:
            return cursor.number(4)
        if wire not in (_VARINT, _BYTES):
            raise UnsoundError("an unknown type of field")
        value = cursor.varint()
        if wire == _BYTES and value > end - cursor.at:
            raise UnsoundError("a field that ends behind its message")
        return value
