"""The tables of NumPy's files: the header of an .npy file, and the arrays of an .npz file."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from dumont_gpu.format.paths import shown
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.file_bytes import FileBytes
from dumont_gpu.tensors.record import SINGLE, Member, TensorRecord, TensorTable
from dumont_gpu.tensors.shapes import checked_shape, checked_strides, row_major
from dumont_gpu.tensors.zip_members import data_start, inflate

MAGIC: Final = b"\x93NUMPY"
SUFFIX: Final = ".npy"  # of a member that holds an array

_VERSION_AT: Final = len(MAGIC)
_SIZE_WIDTHS: Final = {1: 2, 2: 4, 3: 4}  # version of the format -> bytes of the header's size
_MAX_HEADER: Final = 10_000  # characters; NumPy's own limit for what `ast` may parse of a file that nobody vouches for
_LONGEST_HEAD: Final = _VERSION_AT + 2 + 4 + _MAX_HEADER
_KEYS: Final = {"descr", "fortran_order", "shape"}
_MAX_FIELDS_DEPTH: Final = 16  # structures within structures

# What NumPy writes of a plain element type: the order of bytes, the kind, the size, the unit of a time.
_UNIT: Final = r"\[(?:[1-9]\d{0,8})?(?:[YMWDhms]|[munpfa]s|μs)\]"
_DESCRIPTION: Final = re.compile(rf"[<>|](?:([biufcSUV])(0|[1-9]\d{{0,9}})|[Mm](8)(?:{_UNIT})?)", re.ASCII)
_SIZES: Final = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16), "c": (8, 16, 32)}
_MAX_ITEM: Final = (1 << 31) - 1  # bytes of an element: NumPy's limit
_NAMES: Final = {"b1": "BOOL"} | {
    known.numpy[0] + str(known.size): name  # "float32" is f4
    for name, known in ELEMENT_TYPES.items()
    if known.numpy is not None and known.numpy != "bool"
}
_OBJECTS: Final = "object"  # the element type of arrays of pickled objects: listed among others, never loaded


class Header(NamedTuple):
    """What an .npy file says of its array."""

    dtype: str
    item_size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    data_start: int  # offset of the array

    def record(self, name: str, start: int, room: int, member: Member | None = None) -> TensorRecord:
        """Returns the array as a tensor, of a file that begins at the offset `start` and has `room` bytes.

        Raises:
            MalformedError: the array is longer than its file.
        """
        record = TensorRecord(
            name, self.dtype, self.item_size, self.shape, start + self.data_start, self.strides, member
        )
        if self.data_start + record.size > room:
            raise MalformedError(f"an array of {record.size} bytes in {room - self.data_start}")
        return record


def npy_table(data: FileBytes) -> TensorTable:
    """Returns the array of an .npy file, under the name SINGLE. Bytes behind it are left alone, as NumPy does.

    Raises:
        MalformedError: the header is not sound.
        RefusedError: the array is one of pickled objects.
    """
    header = parse(data.head(0, _LONGEST_HEAD))
    if header.dtype == _OBJECTS:
        raise RefusedError("holds pickled objects, and dumont-gpu runs nothing from a file")
    return TensorTable([header.record(SINGLE, 0, data.size)])


def npz_table(data: FileBytes, members: Mapping[str, Member]) -> TensorTable:
    """Returns the arrays among a zip's members, under their names without ".npy". Other members are left out.

    The header of each array is read where the array lies: a small read per array. Arrays of pickled objects are
    listed, so that the others can be loaded.

    Raises:
        MalformedError: a member is not sound.
    """
    arrays = (member for name, member in members.items() if name.endswith(SUFFIX))
    return TensorTable([_member_record(data, member) for member in arrays])


def _member_record(data: FileBytes, member: Member) -> TensorRecord:
    name = member.name.removesuffix(SUFFIX)
    longest = min(member.size, _LONGEST_HEAD)
    try:
        if member.deflated:
            return parse(inflate(data.file, member, longest)).record(name, 0, member.size, member)
        start = data_start(data.file, member)
        return parse(data.read(start, longest)).record(name, start, member.size)
    except MalformedError as error:
        raise MalformedError(f"member {shown(member.name)}: {error}") from error


def parse(head: bytes) -> Header:
    """Returns what the first bytes of an .npy file say; 10,012 bytes are enough for every header.

    Raises:
        MalformedError: they are no header of an .npy file.
    """
    width = _SIZE_WIDTHS.get(head[_VERSION_AT]) if head.startswith(MAGIC) and len(head) > _VERSION_AT else None
    if width is None:
        raise MalformedError("no array, or one in an unknown version of NumPy's format")
    text_start = _VERSION_AT + 2 + width
    size = int.from_bytes(head[text_start - width : text_start], "little")
    text = head[text_start : text_start + size]
    if size > _MAX_HEADER or len(text) < size:
        raise MalformedError("an array's header that is cut short, or longer than NumPy reads")
    fields = _literal(text.decode("utf-8" if head[_VERSION_AT] == 3 else "latin-1", "replace"))
    if type(fields["fortran_order"]) is not bool:
        raise MalformedError("an array's header without an order of elements")
    dtype, item_size = _element_type(fields["descr"])
    shape = checked_shape(fields["shape"], item_size)
    strides = None
    if fields["fortran_order"]:
        strides = checked_strides(row_major(shape[::-1])[::-1], shape)
    return Header(dtype, item_size, shape, strides, text_start + size)


def _literal(text: str) -> dict[str, object]:
    """Returns the dict that a header is written as."""
    try:
        fields = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:  # all that its document names
        raise MalformedError("an array's header that is no literal of Python") from error
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise MalformedError("an array's header without descr, fortran_order and shape")
    return fields


def _element_type(description: object) -> tuple[str, int]:
    """Returns a record's dtype and the bytes of an element."""
    if isinstance(description, list):
        size = _fields_size(description, 0)
        return (_OBJECTS, 0) if size is None else (repr(description), size)
    size = _plain_size(description)
    if size is None:
        return _OBJECTS, 0
    text = str(description)
    known = _NAMES.get(text[1:])
    return (known, size) if known and (text[0] != ">" or size == 1) else (text, size)


def _plain_size(description: object) -> int | None:
    """Returns the bytes of an element of a plain type; None of a pickled object."""
    if description in ("|O", "|O8", "O"):
        return None
    match = _DESCRIPTION.fullmatch(description) if isinstance(description, str) else None
    if match is None:
        raise MalformedError(f"an element type that is none of NumPy's: {shown(description)}")
    kind, size = match[1], int(match[2] or match[3])
    size = size * 4 if kind == "U" else size
    if size not in _SIZES.get(kind, (size,)) or size > _MAX_ITEM:
        raise MalformedError(f"an element type that is none of NumPy's: {shown(description)}")
    return size


def _fields_size(fields: list[object], depth: int) -> int | None:
    """Returns the bytes of a structure; None if pickled objects are among its fields."""
    if depth > _MAX_FIELDS_DEPTH:
        raise MalformedError("an element type of structures within structures, without end")
    total, objects = 0, False
    names: set[object] = set()
    for item in fields:
        if not isinstance(item, tuple) or len(item) not in (2, 3) or not _is_field_name(item[0]):
            raise MalformedError("a field of a structure without name and type")
        names.add(item[0] if item[0] != "" else len(names))  # bytes between fields have no name
        size = _fields_size(item[1], depth + 1) if isinstance(item[1], list) else _plain_size(item[1])
        objects = objects or size is None
        shape = checked_shape(item[2], size or 1) if len(item) == 3 else ()
        total += (size or 0) * math.prod(shape)
    if total > _MAX_ITEM or len(names) < len(fields):
        raise MalformedError("a structure of 2 GiB, or with two fields of one name")
    return None if objects else total


def _is_field_name(name: object) -> bool:
    """Tells whether a name is text, or a title and a name."""
    return isinstance(name, str) or (
        isinstance(name, tuple) and len(name) == 2 and all(isinstance(part, str) for part in name)
    )
