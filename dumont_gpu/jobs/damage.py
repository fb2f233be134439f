"""Collects the damaged chunks of a snapshot while a job goes on without them, and says which files are lost."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dumont_gpu.columns.placement import Placement
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DamagedError, DumontError, LostFile
from dumont_gpu.format.entries import EntryType


class Damage:
    """The damaged chunks that a job has met. Used from many threads.

    Args:
        bad_sectors: whether chunks that the disk cannot read (EIO) count, too; for a verification, they say nothing of
            the snapshot.
    """

    def __init__(self, *, bad_sectors: bool = False) -> None:
        self._bad_sectors = bad_sectors
        self._lock = threading.Lock()
        self.chunks: dict[int, str] = {}  # number -> reason

    @contextmanager
    def noted(self, number: int) -> Iterator[None]:
        """Takes note of an error in the block that means that chunk `number` is damaged."""
        try:
            yield
        except DumontError as error:
            cause = error.__cause__
            bad_sector = self._bad_sectors and isinstance(cause, OSError) and cause.errno == errno.EIO
            if not bad_sector and not isinstance(error, DamagedError):
                raise
            with self._lock:
                self.chunks[number] = str(error)

    def lost_files(self, table: EntryTable, num_chunks: int) -> list[LostFile]:
        """Returns the files of a table that have bytes in a damaged chunk, each with the first such chunk, by path."""
        placement = Placement(table, num_chunks)
        lost: dict[str, int] = {}
        for chunk in sorted(self.chunks):
            for files in (placement.small(chunk), placement.others(chunk)):
                for entry, _ in files:
                    lost.setdefault(entry.path, chunk)
        for link in table.of_type(EntryType.HARDLINK):
            if link.target in lost:
                lost[link.path] = lost[link.target]
        return sorted((LostFile(path, chunk) for path, chunk in lost.items()), key=LostFile.sort_key)
