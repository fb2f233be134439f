"""The rows of a pack's small files: read into chunks, stored once where contents are equal."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from dumont_gpu import native
from dumont_gpu.buffers import Turns
from dumont_gpu.columns.rows import size_at, type_at
from dumont_gpu.format.digests import DIGEST_SIZE, digest_function
from dumont_gpu.plan.cutter import PlannedChunk
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.source.files import SourceFile
from dumont_gpu.tree.source.small_files import SmallFiles


@dataclass(frozen=True, slots=True)
class StoredRows:
    """What a chunk of rows stores."""

    size: int  # raw bytes, without those that other chunks or earlier rows have
    pieces: range  # numbers of its pieces in the table


class PackedRows:
    """Fills chunks of rows; used from many threads.

    Args:
        small: the rows; their table gets extents and pieces.
        digest: name of the digest that covers the content of each file.
    """

    def __init__(self, small: SmallFiles, digest: str) -> None:
        self._small, self._digest_name = small, digest
        self._columns = small.table.columns
        self._index = native.ContentIndex(self._columns)
        self._failed: dict[int, SourceFile] = {}  # by row
        self.shared_bytes = 0  # of files whose content another file has stored

    def read(self, chunk: PlannedChunk, content: memoryview, turns: Turns) -> StoredRows:
        """Fills the start of `content` with the bytes that the chunk stores, and gives its rows their extents.

        Which of two equal files is stored depends on `turns` alone: the same tree gives the same chunks.

        A file that cannot be read, or has changed since the scan, is no row any more: see `given_up`.

        Raises:
            OSError: the machine is short of memory or descriptors.
            ClosedError: the pipeline is over.
        """
        with native.RowReader(self._columns, self._small.inodes, chunk.rows, content) as reader:
            for folder, rows in self._small.folders(chunk.rows):
                try:
                    with folder.tree.handles.lease(folder.relative) as directory:
                        reader.read(directory, folder.device, rows)
                except OSError as error:
                    reader.fail(rows, error.errno or errno.EIO)
        self._note(reader.failures())
        digests = self._digests(content, reader)
        with turns.take(chunk.turn):
            first = self._count_pieces()
            size = self._index.share(reader, chunk.number, content, digests)
            self.shared_bytes += reader.end - size
            return StoredRows(size, range(first, self._count_pieces()))

    def close(self) -> None:
        """Frees what only reading needs: the manifest is written next, and takes memory, too."""
        self._index.close()
        self._small.inodes.clear()

    def given_up(self) -> list[SourceFile]:
        """Returns the files that are to be packed as other files are: each says there what is the matter."""
        return [file for _, file in sorted(self._failed.items())]

    def stored(self, pieces: range) -> Iterator[tuple[int, int, bytes]]:
        """Yields offset, length and digest of what a chunk stores."""
        size = native.PIECE.size
        for _, offset, length, digest in native.PIECE.iter_unpack(
            self._columns.pieces[pieces.start * size : pieces.stop * size]
        ):
            yield offset, length, digest

    def _note(self, failures: list[tuple[int, int]]) -> None:
        for row, result in failures:
            if is_shortage(result):
                raise OSError(result, os.strerror(result))
            # A file without bytes needs no reading.
            if size_at(self._columns, row) and type_at(self._columns, row) == native.FILE:
                self._failed[row] = self._small.source_file(row)

    def _digests(self, content: memoryview, reader: native.RowReader) -> bytearray:
        digests = bytearray(DIGEST_SIZE * len(reader.rows))
        if self._digest_name == "blake3":
            native.digest_many(content, reader.begins, reader.sizes, memoryview(digests))
            return digests
        digest = digest_function(self._digest_name)
        for index, (begin, size) in enumerate(zip(reader.begins, reader.sizes, strict=True)):
            digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE] = digest(content[begin : begin + size])
        return digests

    def _count_pieces(self) -> int:
        return len(self._columns.pieces) // native.PIECE.size
