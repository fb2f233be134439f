"""Opens a snapshot: header, index and manifest, every byte of them verified before it is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dumont_gpu.codecs import Lz4, codec_by_id
from dumont_gpu.codecs.lz4 import frame_content_size
from dumont_gpu.errors import DamagedError, UsageError
from dumont_gpu.format import HEADER_SIZE, ChunkEntry, Header, parse_index
from dumont_gpu.manifest import EntryType, FileEntry, Manifest, manifest_limit, parse_manifest
from dumont_gpu.storage import Source

ID_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified table of contents, and the source its chunks come from."""

    source: Source
    header: Header
    chunks: tuple[ChunkEntry, ...]
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.header.snapshot_id

    def files(self) -> list[FileEntry]:
        return [entry for entry in self.manifest.entries if entry.type is EntryType.FILE]

    def read_chunk(self, number: int, out: memoryview) -> None:
        """Fills `out` with the stored bytes of a chunk, checked against their SHA-256.

        Raises:
            DamagedError: they are not what was packed.
        """
        self.source.read_into(self.chunks[number].offset, out)
        self.check_chunk(number, out)

    def check_chunk(self, number: int, stored: memoryview) -> None:
        """Raises DamagedError unless `stored` are the stored bytes of chunk `number`."""
        if hashlib.sha256(stored).digest() != self.manifest.chunk_sha256[number]:
            chunk = self.chunks[number]
            raise DamagedError(
                f"{self.source.location}: chunk {number} ({chunk.size_compressed} bytes at {chunk.offset}) is damaged: "
                "its SHA-256 does not match"
            )


def read_snapshot(source: Source, expect: str | None = None) -> Snapshot:
    """Reads and verifies everything but the chunks.

    Args:
        source: the snapshot's bytes.
        expect: the snapshot id it must have, `sha256:` and 64 digits, if the caller knows it.

    Raises:
        DamagedError: something contradicts its digest or FORMAT.md, or the id is another one.
        UnsupportedError: a newer version, a required flag or a codec this version does not have.
        UsageError: `expect` is no snapshot id.
    """
    try:
        return _read_snapshot(source, expect)
    except DamagedError as error:
        raise DamagedError(f"{source.location}: {error}") from None


def _read_snapshot(source: Source, expect: str | None) -> Snapshot:
    header = Header.parse(_read(source, 0, min(HEADER_SIZE, source.size)), source.size)
    if expect is not None:
        _check_id(header, expect)
    chunks = parse_index(_read(source, HEADER_SIZE, header.index_size), header)
    for compressor_id in {chunk.compressor_id for chunk in chunks}:
        codec_by_id(compressor_id)
    stored = _read(source, header.manifest_offset, header.manifest_size)
    if hashlib.sha256(stored).digest() != header.manifest_sha256:
        raise DamagedError("the manifest does not match its SHA-256")
    size, limit = frame_content_size(stored), manifest_limit(header)
    if size > limit:
        raise DamagedError(f"a manifest of {size} bytes; {header.num_files} entries may have {limit}")
    data = bytearray(size)
    Lz4().decode(memoryview(stored), memoryview(data))
    return Snapshot(source, header, chunks, parse_manifest(data, header, chunks))


def _read(source: Source, offset: int, size: int) -> bytes:
    data = bytearray(size)
    source.read_into(offset, memoryview(data))
    return bytes(data)


def _check_id(header: Header, expect: str) -> None:
    digits = expect.lower().removeprefix(ID_PREFIX)
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise UsageError(f"{expect!r} is no snapshot id: sha256: and 64 hexadecimal digits")
    if header.snapshot_id != ID_PREFIX + digits:
        raise DamagedError(f"this is another snapshot: its id is {header.snapshot_id}")
