"""The table of a safetensors file: JSON in front of the tensors, by the rules of the safetensors library."""

from __future__ import annotations

import json
import math
import re
from typing import Final, NamedTuple

from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from dumont_gpu.tensors.faults import MalformedError
from dumont_gpu.tensors.file_bytes import FileBytes
from dumont_gpu.tensors.record import TensorRecord, TensorTable
from dumont_gpu.tensors.shapes import checked_shape, is_count

MAX_HEADER: Final = 100_000_000  # bytes; the library's own limit
_SIZE: Final = 8  # bytes of the header's size, in front of it
_METADATA: Final = "__metadata__"
_MAX_VALUES: Final = 4_000_000  # each takes some 50 bytes of memory once it is parsed; a tensor has about ten
_LONGEST_NUMBER: Final = 20  # digits; int() takes quadratic time
_DTYPE: Final = re.compile("[A-Z][A-Z0-9_]{0,30}")
# Elements that share bytes, in bits: listed, with their size checked as the library does, but not loaded.
_PARTS_OF_BYTES: Final = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


class _Listed(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # offsets in the data
    end: int


def begins(head: bytes) -> bool:
    """Tells whether a file that begins with `head`, 9 bytes or more, can be a safetensors file."""
    return head[_SIZE : _SIZE + 1] == b"{" and int.from_bytes(head[:_SIZE], "little") <= MAX_HEADER


def table(data: FileBytes) -> TensorTable:
    """Returns the tensors of a safetensors file.

    Raises:
        MalformedError: the header breaks a rule of the format.
    """
    header_size = int.from_bytes(data.read(0, _SIZE), "little")
    if header_size > MAX_HEADER:
        raise MalformedError("a header of more than 100 MB")
    start = _SIZE + header_size
    header = parse(data.read(_SIZE, header_size))
    metadata = _checked_metadata(header.pop(_METADATA, None))
    listed = [_listed(name, entry) for name, entry in header.items()]
    _check_offsets(listed, data.size - start)
    records = [
        TensorRecord(
            tensor.name,
            tensor.dtype,
            ELEMENT_TYPES[tensor.dtype].size if tensor.dtype in ELEMENT_TYPES else 0,
            tensor.shape,
            start + tensor.begin,
        )
        for tensor in listed
    ]
    return TensorTable(records, metadata)


def parse(header: bytes) -> dict[str, object]:
    """Returns the JSON object that a header is; every name in it is there once.

    Raises:
        MalformedError: it is no such object.
    """
    if sum(map(header.count, (b"[", b"{", b","))) > _MAX_VALUES:
        raise MalformedError(f"a header of more than {_MAX_VALUES} values")
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_unique, parse_int=_short_number)
    except (ValueError, RecursionError) as error:
        raise MalformedError("a header that is no JSON") from error
    if not isinstance(parsed, dict):
        raise MalformedError("a header that is no JSON object")
    return parsed


def _short_number(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise MalformedError("a number in the header that no offset can be")
    return int(digits)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise MalformedError("a header with a name that is there twice")
    return names


def _checked_metadata(metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedError(f"{_METADATA} that is not text by name")
    for text in (*metadata, *metadata.values()):
        _check_text(text)
    return metadata


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can escape half a character
        raise MalformedError(f"text that is not Unicode: {shown(text)}") from error


def _listed(name: str, entry: object) -> _Listed:
    """Returns what the header says of one tensor; its offsets are not compared with anything else yet."""
    _check_text(name)
    if not isinstance(entry, dict):
        raise MalformedError(f"tensor {shown(name)} is described by no JSON object")
    dtype, offsets = entry.get("dtype"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise MalformedError(f"tensor {shown(name)} has no element type")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise MalformedError(f"tensor {shown(name)} has no offsets")
    known = ELEMENT_TYPES.get(dtype)
    shape = checked_shape(entry.get("shape"), known.size if known else 1)
    tensor = _Listed(name, dtype, shape, *offsets)
    bits = known.size * 8 if known else _PARTS_OF_BYTES.get(dtype)
    if bits is not None and math.prod(shape) * bits != (tensor.end - tensor.begin) * 8:
        raise MalformedError(f"tensor {shown(name)} has a shape that does not fill its bytes")
    return tensor


def _check_offsets(listed: list[_Listed], size: int) -> None:
    """Raises MalformedError unless the tensors fill the `size` bytes of data without holes and overlaps."""
    at = 0
    for tensor in sorted(listed, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != at or tensor.end < at:
            raise MalformedError(f"tensor {shown(tensor.name)} does not begin where the one before it ends")
        at = tensor.end
    if at != size:
        raise MalformedError(f"the header describes {at} bytes of data, and the file has {size}")
