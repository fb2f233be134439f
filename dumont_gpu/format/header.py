"""Header and chunk index of a .dumont file: bytes to records and back, validated, no I/O.

FORMAT.md, sections 3 and 4, is the specification; the fields below have its names.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.format.digests import DIGEST_SIZE
from dumont_gpu.sizes import PAGE, GiB, KiB, MiB, align_up

MAGIC: Final = b"DUMONT02"
VERSION: Final = 2
HEADER_SIZE: Final = 512
CHUNK_ALIGNMENT: Final = PAGE  # direct I/O, reflinks and GPU-direct reads stay possible
DEFAULT_CHUNK_SIZE: Final = 64 * MiB  # double buffering fits the memory of small GPUs
MAX_CHUNK_SIZE: Final = 1 * GiB
MIN_CHUNK_SIZE: Final = 4 * KiB
MAX_CHUNKS: Final = 1 << 22  # 256 TiB of 64 MiB chunks; limits the memory that a hostile header can demand
REQUIRED_FLAGS: Final = 0xFFFF  # bits that a reader must understand; it may ignore the upper half
FLAG_BLAKE3: Final = 0x0001  # the digests of chunks and extents are BLAKE3, not SHA-256
FLAG_COLUMNS: Final = 0x0002  # the manifest is in columns instead of JSON
FLAG_STREAM: Final = 0x0004  # written forward, as into a pipe: the header's values and the index are at the end
_KNOWN_FLAGS: Final = FLAG_BLAKE3 | FLAG_COLUMNS | FLAG_STREAM
STREAM_BLOCK: Final = CHUNK_ALIGNMENT  # bytes of the first block of a stream, and of the last
NONCE_SIZE: Final = 32
STREAM_HEADER_SIZE: Final = HEADER_SIZE + NONCE_SIZE  # bytes of both blocks that are not zero

_HEADER = struct.Struct("<8sIIIIQQQQQ32s32s352s32s")
_CHUNK = struct.Struct("<QIIB8s")
CHUNK_RECORD_SIZE: Final = _CHUNK.size
_DIGEST_AT = HEADER_SIZE - DIGEST_SIZE

assert _HEADER.size == HEADER_SIZE
assert CHUNK_RECORD_SIZE == 25


@dataclass(frozen=True, slots=True)
class Header:
    """The first 512 bytes. Sizes and offsets are bytes."""

    num_chunks: int
    num_files: int
    total_size_compressed: int
    total_size_original: int
    chunk_size: int
    manifest_offset: int
    manifest_size: int
    index_sha256: bytes
    manifest_sha256: bytes
    flags: int = 0

    @property
    def index_size(self) -> int:
        """Bytes of the chunk index."""
        return self.num_chunks * CHUNK_RECORD_SIZE

    @property
    def index_offset(self) -> int:
        """Where the chunk index starts: after the header, or in a stream after the manifest."""
        return self.manifest_offset + self.manifest_size if self.is_stream else HEADER_SIZE

    @property
    def data_offset(self) -> int:
        """Where the first chunk may start."""
        return STREAM_BLOCK if self.is_stream else align_up(HEADER_SIZE + self.index_size)

    @property
    def file_size(self) -> int:
        """Bytes of the whole snapshot."""
        if self.is_stream:
            return align_up(self.index_offset + self.index_size) + STREAM_BLOCK
        return self.manifest_offset + self.manifest_size

    @property
    def digest(self) -> str:
        """The name of the digest that covers chunks and extents."""
        return "blake3" if self.flags & FLAG_BLAKE3 else "sha256"

    @property
    def has_columns(self) -> bool:
        """Whether the manifest is in columns."""
        return bool(self.flags & FLAG_COLUMNS)

    @property
    def is_stream(self) -> bool:
        """Whether the snapshot was written forward."""
        return bool(self.flags & FLAG_STREAM)

    @property
    def snapshot_id(self) -> str:
        """`sha256:` and the digest of the header, which covers index and manifest, and through them every chunk."""
        return "sha256:" + self.to_bytes()[_DIGEST_AT:].hex()

    def to_bytes(self) -> bytes:
        body = _HEADER.pack(
            MAGIC, VERSION, self.flags, self.num_chunks, self.num_files, self.total_size_compressed,
            self.total_size_original, self.chunk_size, self.manifest_offset, self.manifest_size,
            self.index_sha256, self.manifest_sha256, b"", b"",
        )[:_DIGEST_AT]  # fmt: skip
        return body + hashlib.sha256(body).digest()

    @classmethod
    def parse(cls, data: bytes | bytearray, file_size: int) -> Header:
        """Reads and checks a header.

        Args:
            data: the first 512 bytes of the file (fewer only if the file is shorter); of a stream, those of the last
                block.
            file_size: bytes in the whole file, which every offset must respect.

        Raises:
            UnsupportedError: the file has another version, or a required flag that this version does not know.
            DamagedError: the header contradicts FORMAT.md in any other way.
        """
        header = cls.parse_fields(data)
        header.check_layout(file_size)
        return header

    @classmethod
    def parse_fields(cls, data: bytes | bytearray) -> Header:
        """Reads a header without a look at where the parts of the file lie; arguments and errors as for `parse`."""
        if data[:6] != MAGIC[:6] or not data[6:8].isdigit():
            raise DamagedError("not a .dumont file (it does not start with DUMONT02)")
        if len(data) >= len(MAGIC) and not data.startswith(MAGIC):
            version = data[6:8].decode()
            raise UnsupportedError(f"snapshot of format version {version}; this dumont-gpu reads version 02")
        if len(data) < HEADER_SIZE:
            raise DamagedError(f"the file ends within its header ({len(data)} of {HEADER_SIZE} bytes)")
        (
            _, version, flags, num_chunks, num_files, compressed, original, chunk_size,
            manifest_offset, manifest_size, index_sha256, manifest_sha256, reserved, digest,
        ) = _HEADER.unpack(data[:HEADER_SIZE])  # fmt: skip
        if hashlib.sha256(data[:_DIGEST_AT]).digest() != digest:
            raise DamagedError("the header does not match its SHA-256")
        if version != VERSION:
            raise UnsupportedError(f"snapshot of format version {version}; this dumont-gpu reads version {VERSION}")
        if flags & REQUIRED_FLAGS & ~_KNOWN_FLAGS:
            raise UnsupportedError(
                f"made by a newer version: the snapshot needs features that this version lacks (flags {flags:#010x})"
            )
        if reserved.strip(b"\0"):
            raise DamagedError("reserved header bytes are not zero")
        header = cls(
            num_chunks, num_files, compressed, original, chunk_size, manifest_offset, manifest_size,
            index_sha256, manifest_sha256, flags,
        )  # fmt: skip
        header._check_limits()
        return header

    def check_layout(self, file_size: int) -> None:
        """Raises DamagedError unless the parts of a file of `file_size` bytes lie where FORMAT.md lets them."""
        if self.data_offset > self.manifest_offset:
            raise DamagedError(f"the index of {self.num_chunks} chunks runs into the manifest")
        if self.file_size != file_size:
            raise DamagedError(
                f"the file has {file_size} bytes, its header says {self.file_size}: it was cut short or something was "
                "added"
            )
        if self.total_size_compressed > self.manifest_offset - self.data_offset:
            raise DamagedError("the chunks are said to be larger than the room for them")

    def _check_limits(self) -> None:
        if not MIN_CHUNK_SIZE <= self.chunk_size <= MAX_CHUNK_SIZE:
            raise DamagedError(f"chunk size {self.chunk_size} is outside {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE}")
        if self.num_chunks > MAX_CHUNKS:
            raise DamagedError(f"the snapshot declares {self.num_chunks} chunks; the limit is {MAX_CHUNKS}")


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One record of the chunk index. Sizes and offsets are bytes."""

    offset: int
    size_compressed: int
    size_original: int
    compressor_id: int
    checksum: bytes  # the first 8 bytes of the digest of the encoded bytes

    @property
    def end(self) -> int:
        return self.offset + self.size_compressed

    def to_bytes(self) -> bytes:
        return _CHUNK.pack(self.offset, self.size_compressed, self.size_original, self.compressor_id, self.checksum)


def index_to_bytes(chunks: Sequence[ChunkRecord]) -> bytes:
    return b"".join(chunk.to_bytes() for chunk in chunks)


def parse_index(data: bytes | bytearray, header: Header) -> tuple[ChunkRecord, ...]:
    """Reads the chunk index and checks it against its digest, the header and FORMAT.md.

    Raises:
        DamagedError: the digest or a rule does not hold.
    """
    if hashlib.sha256(data).digest() != header.index_sha256:
        raise DamagedError("the chunk index does not match its SHA-256")
    chunks: list[ChunkRecord] = []
    for number, fields in enumerate(_CHUNK.iter_unpack(data)):  # memory stops growing at the first bad record
        chunk = ChunkRecord(*fields)
        if not 0 < chunk.size_original <= header.chunk_size:
            raise DamagedError(f"chunk {number} has {chunk.size_original} bytes, the limit is {header.chunk_size}")
        if not 0 < chunk.size_compressed <= chunk.size_original:
            raise DamagedError(f"chunk {number} is stored in {chunk.size_compressed} bytes for {chunk.size_original}")
        if chunk.offset % CHUNK_ALIGNMENT:
            raise DamagedError(f"chunk {number} starts at {chunk.offset}, not at a multiple of {CHUNK_ALIGNMENT}")
        chunks.append(chunk)
    end = header.data_offset
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
        if chunk.offset < end:
            raise DamagedError(f"the chunk at {chunk.offset} overlaps what comes before it")
        end = chunk.end
    if end > header.manifest_offset:
        raise DamagedError("a chunk overlaps the manifest")
    if sum(chunk.size_compressed for chunk in chunks) != header.total_size_compressed:
        raise DamagedError("the chunks do not add up to the size in the header")
    return tuple(chunks)
