"""The bytes of a snapshot's files, one file after another: on the CPU, in the memory of a few chunks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from dumont_gpu.codecs import codec_by_id
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.reader import Snapshot

_ROOM: Final = 256 * MiB  # for decoded chunks: four of the usual size
_ZEROS: Final = memoryview(bytes(1 * MiB))


class FileContents:
    """Decodes chunks as files need them, and keeps those that were needed last."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._most = max(1, _ROOM // snapshot.header.chunk_size)
        self._decoded: OrderedDict[int, memoryview] = OrderedDict()

    def pieces(self, file: FileEntry) -> Iterator[memoryview]:
        """Yields the bytes of a file in order; holes are zeros. A piece is good until the next one is asked for.

        Raises:
            DamagedError: a chunk contradicts its digest or FORMAT.md.
            NetworkError, DumontError: the snapshot cannot be read.
        """
        at = 0
        for extent in file.extents:
            yield from _zeros(extent.file_offset - at)
            yield self._chunk(extent.chunk)[extent.chunk_offset : extent.chunk_offset + extent.length]
            at = extent.file_end
        yield from _zeros(file.size - at)

    def _chunk(self, number: int) -> memoryview:
        raw = self._decoded.get(number)
        if raw is None:
            while len(self._decoded) >= self._most:
                self._decoded.popitem(last=False)
            raw = self._decoded[number] = self._decode(number)
        self._decoded.move_to_end(number)
        return raw

    def _decode(self, number: int) -> memoryview:
        record = self._snapshot.chunks[number]
        encoded, raw = memoryview(bytearray(record.size_compressed)), memoryview(bytearray(record.size_original))
        self._snapshot.read_chunk(number, encoded)
        try:
            self._snapshot.check_chunk(number, encoded)
            codec_by_id(record.compressor_id).decode(encoded, raw)
        except DamagedError as error:
            raise DamagedError(f"{self._snapshot.source.location}: chunk {number}: {error}") from None
        return raw


def _zeros(size: int) -> Iterator[memoryview]:
    while size > 0:
        piece = _ZEROS[:size]
        size -= len(piece)
        yield piece
