"""The members of a zip file: the storages of a PyTorch checkpoint, the arrays of an .npz file, or any other files."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dumont_gpu.plan.tensors import npy
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import SHORTEST, Tensor, UnsoundError

_MAX_MEMBERS: Final = 1_000_000  # read from a directory: some seconds
_MAX_LARGE: Final = 100_000  # of SHORTEST bytes and more: the first in the directory's order

_END: Final = struct.Struct("<4s4xHHIIH")
_END64_LOCATOR: Final = struct.Struct("<4s4xQ4x")
_END64: Final = struct.Struct("<4s20xQQQQ")
_ENTRY: Final = struct.Struct("<4s16xIIHHH8xI")
_LOCAL: Final = struct.Struct("<4s22xHH")
_END_MAGIC: Final = b"PK\5\6"
_LONGEST_COMMENT: Final = 0xFFFF
_IN_EXTRA: Final = 0xFFFF_FFFF  # the field is in the zip64 extra
_ZIP64_EXTRA: Final = 1


class _Directory(NamedTuple):
    start: int
    members: int
    shift: int  # of all offsets in the file: bytes that stand before the zip


def tensors(cursor: Cursor) -> list[Tensor]:
    """Returns the data of the larger members; of an array in NumPy's format, without the header.

    Raises:
        UnsoundError: the file is not sound, or becomes shorter.
        OSError: the file cannot be read.
    """
    return [_array(cursor, start, end) for start, end in members(cursor)]


def members(cursor: Cursor) -> list[tuple[int, int]]:
    """Returns start and end of the data of members of SHORTEST bytes and more, in the order of the zip's directory.

    Raises: as `tensors` does.
    """
    ranges = []
    for header_offset, size in _large_members(cursor, _directory(cursor)):
        cursor.move_to(header_offset)
        _, name_size, extra_size = _LOCAL.unpack(cursor.read(_LOCAL.size))
        start = cursor.at + name_size + extra_size
        if start + size > cursor.size:
            raise UnsoundError("a member outside the file")
        ranges.append((start, start + size))
    return ranges


def _array(cursor: Cursor, start: int, end: int) -> Tensor:
    try:
        data_start = npy.data_start(cursor, start)
    except UnsoundError:
        return Tensor(start, end, None)
    return Tensor(data_start if data_start < end else start, end, None)


def _directory(cursor: Cursor) -> _Directory:
    """Finds the zip's directory by the record at the end of the file."""
    tail = min(cursor.size, _END.size + _LONGEST_COMMENT)
    cursor.move_to(cursor.size - tail)
    data = cursor.read(tail)
    at = data.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(data):
        raise UnsoundError("a zip file without an end record")
    _, _, count, size, offset, _ = _END.unpack_from(data, at)
    end = cursor.size - tail + at
    if end >= _END64_LOCATOR.size + _END64.size:
        cursor.move_to(end - _END64_LOCATOR.size)
        magic, _ = _END64_LOCATOR.unpack(cursor.read(_END64_LOCATOR.size))
        if magic == b"PK\6\7":
            end -= _END64_LOCATOR.size + _END64.size  # the record has no extensible data in any checkpoint
            cursor.move_to(end)
            magic, _, count, size, offset = _END64.unpack(cursor.read(_END64.size))
            if magic != b"PK\6\6":
                raise UnsoundError("a zip64 file without its end record")
    if end < size + offset:
        raise UnsoundError("a zip directory outside the file")
    return _Directory(end - size, count, end - size - offset)


def _large_members(cursor: Cursor, directory: _Directory) -> list[tuple[int, int]]:
    """Returns where the local headers of large members are, with the members' sizes in the file."""
    if directory.members > _MAX_MEMBERS:
        raise UnsoundError("too many members")
    cursor.move_to(directory.start)
    large: list[tuple[int, int]] = []
    for _ in range(directory.members):
        magic, size, full_size, name_size, extra_size, comment_size, offset = _ENTRY.unpack(cursor.read(_ENTRY.size))
        if magic != b"PK\1\2":
            raise UnsoundError("a zip directory with another record in it")
        variable = cursor.read(name_size + extra_size + comment_size)
        if _IN_EXTRA in (size, full_size, offset):
            size, offset = _from_extra(variable[name_size : name_size + extra_size], size, full_size, offset)
        if size >= SHORTEST and len(large) < _MAX_LARGE:
            large.append((offset + directory.shift, size))
    return large


def _from_extra(extra: bytes, size: int, full_size: int, offset: int) -> tuple[int, int]:
    """Returns size and offset with the fields that the zip64 extra has."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64_EXTRA:
            data = extra[at + 4 : at + 4 + length]
            values = iter(struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]))
            fields = [next(values, field) if field == _IN_EXTRA else field for field in (full_size, size, offset)]
            return fields[1], fields[2]
        at += 4 + length
    return size, offset
