"""The rules that hold between the tree entries of a manifest. FORMAT.md, section 6.3, is the specification."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dumont_gpu.errors import DamagedError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.header import ChunkRecord
from dumont_gpu.format.paths import MAX_PATH, check_path, shown


class TreeRules:
    """Checks each tree entry against the entries before it."""

    def __init__(self, chunks: Sequence[ChunkRecord]) -> None:
        self._chunks = chunks
        self._previous = b""
        self._directories = {""}
        self._files: set[str] = set()

    def check(self, entry: FileEntry) -> None:
        path = entry.sort_key
        check_path(path)
        if path <= self._previous:
            raise DamagedError(f"{shown(entry.path)}: twice in the manifest, or not in path order")
        self._previous = path
        if entry.path.rpartition("/")[0] not in self._directories:
            raise DamagedError(f"{shown(entry.path)}: its directory is not in the snapshot, or is not a directory")
        if entry.type is EntryType.DIR:
            self._directories.add(entry.path)
        elif entry.type is EntryType.FILE:
            self._files.add(entry.path)
            self._check_extents(entry)
        elif entry.type is EntryType.HARDLINK:
            if entry.target not in self._files:
                raise DamagedError(f"{shown(entry.path)}: a hard link to something that is no file of this snapshot")
        elif not entry.target or "\0" in entry.target or len(os.fsencode(entry.target)) > MAX_PATH:
            raise DamagedError(f"{shown(entry.path)}: a symlink without a usable target")

    def _check_extents(self, entry: FileEntry) -> None:
        end = 0
        for extent in entry.extents:
            if not 0 <= extent.chunk < len(self._chunks):
                raise DamagedError(f"{shown(entry.path)}: an extent in a chunk that does not exist")
            if extent.length <= 0 or extent.file_offset < end or extent.file_end > entry.size:
                raise DamagedError(f"{shown(entry.path)}: extents overlap or leave the file")
            room = self._chunks[extent.chunk].size_original
            if not 0 <= extent.chunk_offset <= room - extent.length:
                raise DamagedError(f"{shown(entry.path)}: an extent leaves chunk {extent.chunk}")
            end = extent.file_end
