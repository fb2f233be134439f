"""The files of a snapshot that stays open, as bytes and as file objects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import memory_share, thread_count
from dumont_gpu.loading.chunk_loader import ChunkLoader, HostWant
from dumont_gpu.loading.file_object import SnapshotFile
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.tree import SnapshotTree

_FEWEST: Final = 2
_MOST: Final = 16  # decoded chunks that are kept: readers of several files take turns, and some come back


class SnapshotFiles(OpenedSnapshot):
    """A snapshot whose files can be read at any offset, from any thread; every byte is checked before it is given out.

    Args:
        location: path or address of a snapshot, perhaps with `:path` of a directory in it.
        options: of the network, and memory for chunks.
    """

    def __init__(self, location: str, options: ReadOptions | None = None) -> None:
        super().__init__(location, options or ReadOptions())
        kept = _kept_chunks(self.options, self.snapshot.header.chunk_size)
        self._loader = ChunkLoader(self.snapshot, self.options, verify=True, kept=kept, reading=self.reading)
        self.tree = SnapshotTree(self.snapshot, self.table)

    def __enter__(self) -> SnapshotFiles:
        return self

    @property
    def cancelled(self) -> bool:
        """Whether a signal has ended a read from a network: then nothing more can be read here."""
        return self._loader.cancelled and self.snapshot.source.remote

    @property
    def kept(self) -> int:
        """How many decoded chunks stay."""
        return self._loader.kept

    def close(self) -> None:
        super().close()
        self._loader.close()  # once nobody reads any more

    def open_raw(self, path: str) -> SnapshotFile:
        """Returns a file, unbuffered: for callers who read large pieces. Raises as `file`."""
        return self.open_entry(self.file(path))

    def open_entry(self, file: FileEntry) -> SnapshotFile:
        """Returns a file, unbuffered."""
        return SnapshotFile(file, self, self._loader)

    def load(self, wants: Sequence[HostWant]) -> None:
        """Fills the places of the wants, each chunk decoded once. Raises as `ChunkLoader.run`."""
        self.check_open()
        self._loader.load(wants)

    def open_file(self, path: str) -> io.BufferedReader:
        """Returns a file as a binary, seekable file object. Raises as `file`."""
        return self.open_raw(path).buffered()


def _kept_chunks(options: ReadOptions, chunk_size: int) -> int:
    """Returns how many decoded chunks fit beside those that threads work on, each of which takes two buffers."""
    room = (options.memory or memory_share()) // chunk_size - 2 * thread_count(options.jobs)
    return max(_FEWEST, min(_MOST, room))
