"""Members of a zip file: which there are, where their bytes lie, and what they inflate to."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import replace
from typing import BinaryIO, Final

from dumont_gpu.format.paths import shown
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.file_bytes import FileBytes
from dumont_gpu.tensors.record import Member, TensorRecord

MAGICS: Final = (b"PK\3\4", b"PK\5\6")  # of a member; of the end of a zip that has none

_MAX_DIRECTORY: Final = 16 * MiB  # some 150,000 members of a checkpoint; four seconds to read at worst
NO_CRC: Final = 0  # what PyTorch writes after `torch.serialization.set_crc32_options(False)`
_LOCAL: Final = struct.Struct("<4s2xH18xHH")  # magic, flags, sizes of name and extra field
_UTF8_NAME: Final = 0x800
_ENCRYPTED: Final = 0x1 | 0x40
_BEST_RATIO: Final = 1032  # bytes that deflate can make of one
_PIECE: Final = 256 * KiB  # read at once while inflating
# What zipfile raises for hostile bytes, besides its own error: it has changed from one Python to the next.
_ZIP_FAULTS: Final = (zipfile.BadZipFile, NotImplementedError, OverflowError, ValueError, EOFError, struct.error)


class _BoundedReads:
    """The reads of `zipfile`, which reads as many bytes as the end of a file tells it to."""

    def __init__(self, data: FileBytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._data.size}[whence]
        if self._at < 0:
            raise ValueError("before the file")
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1, /) -> bytes:
        rest = max(0, self._data.size - self._at)
        count = rest if count < 0 else min(count, rest)
        if count > _MAX_DIRECTORY:
            raise MalformedError("a zip directory of more than 16 MiB")
        found = self._data.read(self._at, count) if count else b""
        self._at += count
        return found


def members(data: FileBytes) -> dict[str, Member]:
    """Returns the members of a zip by name, in the order of its directory; their local headers are not read.

    Raises:
        MalformedError: the directory is not sound.
        RefusedError: a member is encrypted or compressed by another method than deflate.
    """
    try:
        with zipfile.ZipFile(_BoundedReads(data)) as archive:
            listed, end = archive.infolist(), archive.start_dir
    except _ZIP_FAULTS as error:
        if isinstance(error.__context__, OSError):  # zipfile takes a file that cannot be read for one that is no zip
            raise error.__context__ from None
        raise MalformedError("a zip without a directory that can be read") from error
    found = {info.orig_filename: _member(info, end) for info in listed}
    if len(found) < len(listed):
        raise MalformedError("a zip with two members of one name")
    return found


def _member(info: zipfile.ZipInfo, end: int) -> Member:
    """Returns a member of a zip whose directory begins at the offset `end`."""
    name = shown(info.orig_filename)
    if info.flag_bits & _ENCRYPTED:
        raise RefusedError(f"member {name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(f"member {name} is compressed by method {info.compress_type}; only deflate is known")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    least = info.file_size // _BEST_RATIO if deflated else info.file_size
    if info.compress_size < least or (not deflated and info.compress_size != info.file_size):
        raise MalformedError(f"member {name} cannot be of the size that the zip's directory says")
    if not 0 <= info.header_offset <= end - _LOCAL.size - info.compress_size:
        raise MalformedError(f"member {name} is not within its zip")
    room = end - info.header_offset
    return Member(info.orig_filename, info.header_offset, room, info.compress_size, info.file_size, deflated, info.CRC)


def data_start(file: BinaryIO, member: Member) -> int:
    """Returns the offset in the file of a member's bytes: reads its local header, some 60 bytes.

    Raises:
        MalformedError: the local header is not the one that the directory describes.
    """
    data = FileBytes(file, member.header + member.room)
    _, _, name_size, _ = _LOCAL.unpack(data.read(member.header, _LOCAL.size))
    return member.header + header_size(data.head(member.header, _LOCAL.size + name_size), member)


def header_size(head: bytes, member: Member) -> int:
    """Returns the bytes of a member's local header.

    Args:
        head: the header, at least up to the name.

    Raises:
        MalformedError: the local header is not the one that the directory describes.
    """
    fields = _LOCAL.unpack(head[: _LOCAL.size]) if len(head) >= _LOCAL.size else (b"", 0, 0, 0)
    magic, flags, name_size, extra_size = fields
    size = int(_LOCAL.size + name_size + extra_size)
    if magic != MAGICS[0] or size + member.packed > member.room:
        raise MalformedError(f"member {shown(member.name)} is not where the zip's directory says")
    encoding = "utf-8" if flags & _UTF8_NAME else "cp437"
    if head[_LOCAL.size : _LOCAL.size + name_size].decode(encoding, "replace") != member.name:
        raise MalformedError(f"member {shown(member.name)} has another name in its own header")
    return size


def locate(file: BinaryIO, record: TensorRecord) -> TensorRecord:
    """Returns a record whose `start` is an offset in the file; a record in a deflated member stays as it is.

    Raises: as `data_start` does.
    """
    if record.member is None or record.member.deflated:
        return record
    return replace(record, start=data_start(file, record.member) + record.start, member=None)


def inflate(file: BinaryIO, member: Member, size: int) -> bytes:
    """Returns the first `size` bytes of a member; of a whole member the CRC is compared, too, if it has one.

    Memory and time are bounded by `size`, whatever the member would inflate to.

    Raises:
        MalformedError: the member's bytes are not what its zip says.
    """
    if not 0 <= size <= member.size:
        raise MalformedError(f"member {shown(member.name)} has {member.size} bytes, not {size}")
    data = FileBytes(file, member.header + member.room)
    start = data_start(file, member)
    content = _inflated(data, start, member, size) if member.deflated else data.read(start, size)
    if size == member.size and member.crc not in (NO_CRC, zlib.crc32(content)):
        raise MalformedError(f"member {shown(member.name)} does not have the CRC that its zip says")
    return content


def _inflated(data: FileBytes, start: int, member: Member, size: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = bytearray()
    try:
        for at in range(start, start + member.packed, _PIECE):
            piece = data.read(at, min(_PIECE, start + member.packed - at))
            while piece and len(content) < size and not stream.eof:
                content += stream.decompress(piece, size - len(content))
                piece = stream.unconsumed_tail
            if len(content) == size or stream.eof:
                break
    except zlib.error as error:
        raise MalformedError(f"member {shown(member.name)} does not inflate") from error
    if len(content) < size:
        raise MalformedError(f"member {shown(member.name)} inflates to less than its zip says")
    return bytes(content)
