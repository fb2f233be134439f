"""Opens a snapshot: header, index and manifest, every byte of them verified before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from dumont_gpu.codecs import codec_by_id
from dumont_gpu.codecs.lz4 import decode_frame
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.format.digests import Digest, digest_function
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.header import HEADER_SIZE, ChunkEntry, Header, parse_index
from dumont_gpu.format.manifest import Manifest, manifest_limit, parse_manifest
from dumont_gpu.sizes import KiB
from dumont_gpu.storage import NetworkOptions, Source, open_source

ID_PREFIX = "sha256:"
_REMOTE_READS: Final = 4  # chunks on their way at once: the tail of one overlaps the head of the next


class SnapshotIndex(NamedTuple):
    """A verified header and chunk index, and the source they come from."""

    source: Source
    header: Header
    chunks: tuple[ChunkEntry, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified table of contents, and the source its chunks come from."""

    source: Source
    header: Header
    chunks: tuple[ChunkEntry, ...]
    manifest: Manifest
    digest: Digest  # of chunks and extents

    @property
    def id(self) -> str:
        return self.header.snapshot_id

    def files(self) -> list[FileEntry]:
        return [entry for entry in self.manifest.entries if entry.type is EntryType.FILE]

    def read_chunk(self, number: int, out: memoryview) -> None:
        """Fills `out` with the stored bytes of a chunk, or more from there on, unchecked. Raises as `read_into`."""
        read_into(self.source, self.chunks[number].offset, out)

    def check_chunk(self, number: int, stored: memoryview) -> None:
        """Raises DamagedError unless `stored` are the stored bytes of chunk `number`.

        What came over a network is fetched again before, once: it may have been damaged on its way.
        """
        if self._is_chunk(number, stored):
            return
        if self.source.remote:
            self.read_chunk(number, stored)
            if self._is_chunk(number, stored):
                return
        chunk = self.chunks[number]
        raise DamagedError(f"its {chunk.size_compressed} bytes at {chunk.offset} do not match their digest")

    def _is_chunk(self, number: int, stored: memoryview) -> bool:
        return self.digest(stored) == self.manifest.chunk_digests[number]


@contextmanager
def opened_source(source: str | Source, network: NetworkOptions | None = None) -> Iterator[Source]:
    """Opens a source by its location, and closes it at the end of the block; a source that is open stays open."""
    if not isinstance(source, str):
        yield source
        return
    opened = open_source(source, network)
    try:
        yield opened
    finally:
        opened.close()


def read_snapshot(source: Source, expect: str | None = None) -> Snapshot:
    """Reads and verifies everything but the chunks. Raises as `read_index`, `read_manifest` and `open_snapshot`."""
    index = read_index(source, expect)
    return open_snapshot(index, read_manifest(index))


def read_index(source: Source, expect: str | None = None) -> SnapshotIndex:
    """Reads and verifies header and index: where the chunks are, but not what is in them.

    Args:
        source: the snapshot's bytes.
        expect: the snapshot id it must have, `sha256:` and 64 digits, if the caller knows it.

    Raises:
        DamagedError: something contradicts its digest or FORMAT.md, or the id is another one.
        UnsupportedError: a newer version, a required flag or a codec this version does not have.
        UsageError: `expect` is no snapshot id.
    """
    with _naming(source):
        header = Header.parse(_read(source, 0, min(HEADER_SIZE, source.size)), source.size)
        limit = manifest_limit(header)
        if (
            header.manifest_size > limit + limit // 128 + 64 * KiB
        ):  # what LZ4 adds to bytes that do not shrink, and more
            raise DamagedError(f"a stored manifest of {header.manifest_size} bytes")
        if expect is not None:
            _check_id(header, expect)
        chunks = parse_index(_read(source, HEADER_SIZE, header.index_size), header)
        for compressor_id in {chunk.compressor_id for chunk in chunks}:
            codec_by_id(compressor_id)
        return SnapshotIndex(source, header, chunks)


def read_manifest(index: SnapshotIndex) -> bytearray:
    """Reads the manifest as it is stored.

    Raises:
        DamagedError: it does not match its digest.
    """
    with _naming(index.source):
        stored = _read(index.source, index.header.manifest_offset, index.header.manifest_size)
        if hashlib.sha256(stored).digest() != index.header.manifest_sha256:
            raise DamagedError("the manifest does not match its SHA-256")
        return stored


def open_snapshot(index: SnapshotIndex, stored_manifest: bytes | bytearray) -> Snapshot:
    """Decodes and verifies the rest of the table of contents.

    Raises:
        DamagedError: the manifest contradicts the index or FORMAT.md.
    """
    source, header, chunks = index
    with _naming(source):
        data = decode_frame(memoryview(stored_manifest), manifest_limit(header))
        return Snapshot(source, header, chunks, parse_manifest(data, header, chunks), digest_function(header.digest))


def parallel_reads(source: Source) -> int:
    """How many threads should read chunks from `source`."""
    return _REMOTE_READS if source.remote else 1


def read_into(source: Source, offset: int, out: memoryview) -> None:
    """Fills `out` from a snapshot.

    Raises:
        DumontError: the source cannot be read, or (DamagedError) ends too early; the message names it.
    """
    with _naming(source):
        source.read_into(offset, out)


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Puts the source's name before what is found wrong with it."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{source.location}: {error}") from None
    except OSError as error:
        raise DumontError(f"{source.location}: cannot be read: {error.strerror or error}") from error


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
