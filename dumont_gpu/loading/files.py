"""The files of a snapshot that stays open, as bytes and as file objects."""

from __future__ import annotations

import io

from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.loading.chunk_loader import ChunkLoader
from dumont_gpu.loading.file_object import SnapshotFile
from dumont_gpu.loading.opened import OpenedSnapshot

_KEPT = 4  # decoded chunks: readers of several files take turns


class SnapshotFiles(OpenedSnapshot):
    """A snapshot whose files can be read at any offset, from any thread; every byte is checked before it is given out.

    Args:
        location: path or address of a snapshot, perhaps with `:path` of a directory in it.
        options: of the network, and memory for chunks.
    """

    def __init__(self, location: str, options: ReadOptions | None = None) -> None:
        super().__init__(location, options or ReadOptions())
        self._loader = ChunkLoader(self.snapshot, self.options, verify=True, kept=_KEPT, reading=self.reading)

    def open_raw(self, path: str) -> SnapshotFile:
        """Returns a file, unbuffered: for callers who read large pieces. Raises as `file`."""
        return SnapshotFile(self.file(path), self, self._loader)

    def open_file(self, path: str) -> io.BufferedReader:
        """Returns a file as a binary, seekable file object. Raises as `file`."""
        return self.open_raw(path).buffered()
