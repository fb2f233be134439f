"""Writes a snapshot to a sink: chunks as they come, then the manifest, the chunk index and the header.

A sink that only takes bytes in order gets a stream (FORMAT.md, section 3.1), whose last block repeats the header.
"""

from __future__ import annotations

import hashlib
import os
import time

from dumont_gpu import __version__
from dumont_gpu.codecs import Codec, Lz4
from dumont_gpu.columns.manifest import encode_manifest
from dumont_gpu.columns.rows import renumber_chunks
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DumontError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.header import (
    CHUNK_ALIGNMENT,
    CHUNK_RECORD_SIZE,
    FLAG_BLAKE3,
    FLAG_COLUMNS,
    FLAG_STREAM,
    HEADER_SIZE,
    NONCE_SIZE,
    STREAM_BLOCK,
    ChunkRecord,
    Header,
    index_to_bytes,
)
from dumont_gpu.format.manifest import Manifest, json_limit
from dumont_gpu.format.stream import block_of, opening_header
from dumont_gpu.sizes import KiB, align_up
from dumont_gpu.storage import Sink


class SnapshotWriter:
    """Writes a snapshot. Used by a single thread at a time.

    Args:
        sink: gets the bytes; committed and closed by the caller.
        max_chunks: the most chunks that can come; the chunk index has room for that many.
        digest: name of the digest that covers chunks and extents.
        chunk_size: the most raw bytes of a chunk.
        columns: whether the manifest is in columns, which older readers do not know.
    """

    def __init__(self, sink: Sink, max_chunks: int, digest: str, chunk_size: int, *, columns: bool) -> None:
        self._sink, self._max_chunks, self._digest, self._chunk_size = sink, max_chunks, digest, chunk_size
        self._flags = (FLAG_BLAKE3 if digest == "blake3" else 0) | (FLAG_COLUMNS if columns else 0)
        self._records: dict[int, ChunkRecord] = {}
        self._digests: dict[int, bytes] = {}
        self._codec_bytes: dict[str, tuple[int, int]] = {}
        self._end = align_up(HEADER_SIZE + CHUNK_RECORD_SIZE * max_chunks)
        if sink.forward:
            self._flags |= FLAG_STREAM
            self._end = STREAM_BLOCK
            self._nonce = os.urandom(NONCE_SIZE)
            sink.write_at(0, memoryview(block_of(opening_header(self._flags, chunk_size), self._nonce)))

    def largest_size(self, raw_size: int) -> int:
        """Returns the size of the snapshot without its manifest if none of `raw_size` bytes can be saved."""
        return self._end + raw_size + CHUNK_ALIGNMENT * self._max_chunks

    @property
    def codec_bytes(self) -> dict[str, tuple[int, int]]:
        """Codec name -> (raw bytes, encoded bytes) of the chunks."""
        return self._codec_bytes

    def write_chunk(self, number: int, encoded: memoryview, raw_size: int, codec: Codec, digest: bytes) -> None:
        """Appends a chunk.

        Args:
            number: the chunk's row in the chunk index.
            encoded: the chunk's bytes in the snapshot.
            raw_size: bytes before encoding.
            codec: encoded the chunk.
            digest: of the encoded bytes.
        """
        size = len(encoded)
        self._sink.write_at(self._end, encoded)
        self._records[number] = ChunkRecord(self._end, size, raw_size, codec.id, digest[:8])
        self._digests[number] = digest
        raw_sum, encoded_sum = self._codec_bytes.get(codec.name, (0, 0))
        self._codec_bytes[codec.name] = raw_sum + raw_size, encoded_sum + size
        self._end = align_up(self._end + size)

    def finish(self, entries: EntryTable, root: FileEntry | None, method: str) -> tuple[Header, int]:
        """Writes the manifest, the chunk index and the header; returns the header and the snapshot's size in bytes.

        Args:
            entries: the tree entries, in path order.
            root: mode, time and owner of the packed directory itself.
            method: how codecs were chosen; recorded in the manifest.

        Raises:
            DumontError: the manifest is larger than a snapshot can hold.
        """
        numbers = sorted(self._records)
        if numbers != list(range(len(numbers))):  # chunks of which equal contents left nothing
            renumber_chunks(entries.columns, {number: index for index, number in enumerate(numbers)})
        manifest = Manifest(
            method=method,
            tool=f"dumont-gpu {__version__}",
            created_ns=_now_ns(),
            chunk_digests=tuple(self._digests[number] for number in numbers),
            digest=self._digest,
            entries=entries,
            root=root,
        )
        encoded, digest = encode_manifest(manifest, entries) if self._flags & FLAG_COLUMNS else _encode_json(manifest)
        records = [self._records[number] for number in numbers]
        index = index_to_bytes(records)
        header = Header(
            num_chunks=len(records),
            num_files=len(entries),
            total_size_compressed=sum(record.size_compressed for record in records),
            total_size_original=entries.total_size(),
            chunk_size=self._chunk_size,
            manifest_offset=self._end,
            manifest_size=len(encoded),
            index_sha256=hashlib.sha256(index).digest(),
            manifest_sha256=digest,
            flags=self._flags,
        )
        self._sink.write_at(header.manifest_offset, memoryview(encoded))
        if header.is_stream:
            self._sink.write_at(header.index_offset, memoryview(index))
            self._sink.write_at(header.file_size - STREAM_BLOCK, memoryview(block_of(header, self._nonce)))
        else:
            self._sink.write_at(0, memoryview(header.to_bytes() + index))
        return header, header.file_size


def _encode_json(manifest: Manifest) -> tuple[memoryview, bytes]:
    """Returns a manifest in JSON, as it stands in a snapshot, and its digest."""
    text = manifest.to_json()
    limit = json_limit(len(manifest.chunk_digests), len(manifest.entries))
    if len(text) > limit:
        raise DumontError(f"a manifest of {len(text)} bytes is more than a snapshot can hold: pack less at once")
    encoded = memoryview(bytearray(len(text) + len(text) // 128 + 64 * KiB))
    encoded = encoded[: Lz4().encode(memoryview(text), encoded)]
    return encoded, hashlib.sha256(encoded).digest()


def _now_ns() -> int:
    """Returns the time; SOURCE_DATE_EPOCH instead, if set: with a single thread, a snapshot is then reproducible."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(fixed) * 10**9 if fixed.isascii() and fixed.isdecimal() else time.time_ns()
