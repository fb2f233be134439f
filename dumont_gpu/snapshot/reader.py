"""Opens a snapshot: header, chunk index and manifest, every byte verified before use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from dumont_gpu.codecs import codec_by_id
from dumont_gpu.codecs.lz4 import decode_frame
from dumont_gpu.columns.manifest import decode_manifest, limit_of_manifest, parse_head
from dumont_gpu.columns.table import as_table
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.format.digests import Digest, digest_function
from dumont_gpu.format.header import STREAM_BLOCK, STREAM_HEADER_SIZE, ChunkRecord, Header, parse_index
from dumont_gpu.format.manifest import Manifest, manifest_limit, parse_manifest
from dumont_gpu.format.stream import parse_closing
from dumont_gpu.sizes import KiB
from dumont_gpu.storage import NetworkOptions, Source, open_source

ID_PREFIX = "sha256:"
_REMOTE_READS: Final = 4  # chunks in transfer at once: the end of a transfer overlaps the start of the next


class SnapshotIndex(NamedTuple):
    """A verified header and chunk index, and their source."""

    source: Source
    header: Header
    chunks: tuple[ChunkRecord, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified table of contents, and the source of its chunks."""

    source: Source
    header: Header
    chunks: tuple[ChunkRecord, ...]
    manifest: Manifest
    digest: Digest  # of chunks and extents
    inside: str = ""  # the manifest has only the part of the snapshot at this path; "": all of it

    @property
    def id(self) -> str:
        """`sha256:` and 64 hexadecimal digits."""
        return self.header.snapshot_id

    def read_chunk(self, number: int, out: memoryview) -> None:
        """Fills `out` from the start of an encoded chunk, unchecked; `out` may be longer. Raises as `read_into`."""
        read_into(self.source, self.chunks[number].offset, out)

    def check_chunk(self, number: int, encoded: memoryview) -> None:
        """Checks the encoded bytes of chunk `number` against their digest.

        A chunk from a network that fails the check is fetched once more into `encoded`: the transfer may have
        damaged the bytes.

        Raises:
            DamagedError: the bytes do not match the digest.
            NetworkError, DumontError: the second fetch fails.
        """
        if self._is_chunk(number, encoded):
            return
        if self.source.remote:
            self.read_chunk(number, encoded)
            if self._is_chunk(number, encoded):
                return
        chunk = self.chunks[number]
        raise DamagedError(f"its {chunk.size_compressed} bytes at {chunk.offset} do not match their digest")

    def _is_chunk(self, number: int, encoded: memoryview) -> bool:
        return self.digest(encoded) == self.manifest.chunk_digests[number]


@contextmanager
def opened_source(
    source: str | Source, network: NetworkOptions | None = None, room: str | None = None
) -> Iterator[Source]:
    """Opens the source at a location and closes it at the end of the block; an open `Source` stays open.

    `room` as for `open_source`.
    """
    if not isinstance(source, str):
        yield source
        return
    opened = open_source(source, network, room)
    try:
        yield opened
    finally:
        opened.close()


def read_snapshot(source: Source, expect: str | None = None) -> Snapshot:
    """Reads and verifies everything but the chunks. Raises as `read_index`, `read_manifest` and `open_snapshot`."""
    index = read_index(source, expect)
    return open_snapshot(index, read_manifest(index))


def read_index(source: Source, expect: str | None = None) -> SnapshotIndex:
    """Reads and verifies the header and the chunk index, which locate the chunks.

    Args:
        source: the snapshot's bytes.
        expect: the required snapshot id, `sha256:` and 64 hexadecimal digits; None accepts any.

    Raises:
        DamagedError: bytes contradict their digest or FORMAT.md, or the snapshot has another id.
        UnsupportedError: the snapshot needs a version, a flag or a codec that this version lacks.
        UsageError: `expect` is no snapshot id.
        DumontError: the source cannot be read.
    """
    with _naming(source):
        header = _read_header(source)
        if header.manifest_size > _stored_limit(header):
            raise DamagedError(f"a stored manifest of {header.manifest_size} bytes")
        if expect is not None:
            _check_id(header, expect)
        chunks = parse_index(_read(source, header.index_offset, header.index_size), header)
        for compressor_id in {chunk.compressor_id for chunk in chunks}:
            codec_by_id(compressor_id)
        return SnapshotIndex(source, header, chunks)


def read_manifest(index: SnapshotIndex) -> bytearray:
    """Reads the encoded manifest and checks its digest; in columns, `open_snapshot` checks those of the pages.

    Raises:
        DamagedError: the manifest, or its head, does not match its digest.
        DumontError: the source cannot be read.
    """
    with _naming(index.source):
        encoded = _read(index.source, index.header.manifest_offset, index.header.manifest_size)
        if index.header.has_columns:
            parse_head(memoryview(encoded), index.header, index.chunks)
        elif hashlib.sha256(encoded).digest() != index.header.manifest_sha256:
            raise DamagedError("the manifest does not match its SHA-256")
        return encoded


def open_snapshot(index: SnapshotIndex, encoded_manifest: bytes | bytearray) -> Snapshot:
    """Decodes and verifies the manifest, which completes the table of contents.

    Raises:
        DamagedError: the manifest contradicts the index or FORMAT.md.
    """
    source, header, chunks = index
    with _naming(source):
        if header.has_columns:
            manifest = decode_manifest(memoryview(encoded_manifest), header, chunks)
        else:
            data = decode_frame(memoryview(encoded_manifest), manifest_limit(header))
            manifest = parse_manifest(data, header, chunks)
        return Snapshot(source, header, chunks, manifest, digest_function(header.digest))


def in_columns(snapshot: Snapshot) -> Snapshot:
    """Returns the snapshot with its tree entries in a table, for a job on all files: a manifest in JSON has objects."""
    manifest = snapshot.manifest
    return replace(snapshot, manifest=replace(manifest, entries=as_table(manifest.entries)))


def parallel_reads(source: Source) -> int:
    """Returns the number of threads that should read chunks from `source`."""
    return _REMOTE_READS if source.remote else 1


def read_into(source: Source, offset: int, out: memoryview) -> None:
    """Fills `out` with the snapshot's bytes from `offset` on.

    Raises:
        DamagedError: the source ends too early.
        DumontError: the source cannot be read. Both messages name the source.
    """
    with _naming(source):
        source.read_into(offset, out)


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Puts the source's location before the message of an error."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{source.location}: {error}") from None
    except OSError as error:
        raise DumontError(f"{source.location}: cannot be read: {error.strerror or error}") from error


def _read_header(source: Source) -> Header:
    first = _read(source, 0, min(STREAM_HEADER_SIZE, source.size))
    header = Header.parse_fields(first)
    if header.is_stream:
        at = max(0, source.size - STREAM_BLOCK)
        return parse_closing(first, _read(source, at, min(STREAM_HEADER_SIZE, source.size - at)), source.size)
    header.check_layout(source.size)
    return header


def _stored_limit(header: Header) -> int:
    """Returns how many bytes a manifest may take in its snapshot."""
    if header.has_columns:
        return limit_of_manifest(header)
    limit = manifest_limit(header)
    return limit + limit // 128 + 64 * KiB  # LZ4 adds less to bytes that do not shrink


def _read(source: Source, offset: int, size: int) -> bytearray:
    data = bytearray(size)
    source.read_into(offset, memoryview(data))
    return data


def _check_id(header: Header, expect: str) -> None:
    digits = expect.lower().removeprefix(ID_PREFIX)
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise UsageError(f"{expect!r} is no snapshot id: sha256: and 64 hexadecimal digits")
    if header.snapshot_id != ID_PREFIX + digits:
        raise DamagedError(f"this is another snapshot: its id is {header.snapshot_id}")
