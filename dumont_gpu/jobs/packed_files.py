"""The packed extents of each file of a plan, and the tree entries made from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from dumont_gpu import native
from dumont_gpu.columns.rows import drop_at
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DumontError
from dumont_gpu.format.entries import Extent, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.source_reader import SourceReader
from dumont_gpu.plan.planner import Plan
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.found import Scan


class PackedFiles:
    """Collects the extents of a pack. `reader` knows which files were lost, or changed while they were read."""

    def __init__(self, plan: Plan, reader: SourceReader) -> None:
        self._plan, self._reader = plan, reader
        self._extents: dict[int, list[Extent]] = defaultdict(list)  # file index -> the file's extents

    def add(self, extents: Iterable[tuple[int, Extent]]) -> None:
        """Takes extents that are in the snapshot, each with its file's index."""
        for file, extent in extents:
            self._extents[file].append(extent)

    def orphaned_copies(self) -> list[int]:
        """Returns the indices of files that were to share the extents of a file that was lost or changed."""
        return [
            index
            for index, leader in self._plan.copies.items()
            if leader in self._reader.changed or self._problem(leader) is not None
        ]

    def entries(self, found: Scan) -> EntryTable:
        """Returns the tree entries in path order; adds files that could not be packed to the scan's problems.

        Raises:
            DumontError: extents are missing; a defect of this program.
        """
        table = found.small.table if found.small else EntryTable()
        files = self._file_entries(found)
        for entry in chain(files, found.others):
            table.append(entry)
        table.sort()
        if len(files) < len(self._plan.files):
            _drop_orphans(table, found)
        return table

    def _file_entries(self, found: Scan) -> list[FileEntry]:
        entries = []
        for index, file in enumerate(self._plan.files):
            leader = self._plan.copies.get(index, index)
            problem = self._problem(index) or self._problem(leader)
            if problem is not None:
                found.problems.append(Problem(file.entry.path, problem.reason))
                continue
            extents = sorted(self._extents.get(leader, ()), key=lambda extent: extent.file_offset)
            packed = sum(extent.length for extent in extents) + self._reader.missing.get(leader, 0)
            if packed != self._plan.planned.get(leader, 0):
                raise DumontError(f"{printable(file.entry.path)}: an extent is missing; this is a defect of dumont-gpu")
            if leader not in self._reader.changed:
                entries.append(file.entry._replace(extents=tuple(extents)))
                continue
            size = self._reader.size_of(leader, extents)
            extents = [extent for extent in extents if extent.file_end <= size]
            found.problems.append(Problem(file.entry.path, _change(size, file.entry.size)))
            entries.append(file.entry._replace(size=size, extents=tuple(extents), changed=True))
        return entries

    def _problem(self, index: int) -> Problem | None:
        return self._plan.problems.get(index) or self._reader.lost.get(index)


def _change(size: int, scanned: int) -> str:
    if size == scanned:
        return "changed while it was packed"
    return f"became shorter while it was packed: its first {size} of {scanned} bytes are stored"


def _drop_orphans(table: EntryTable, found: Scan) -> None:
    """Leaves out hard links to files that could not be packed. The table is sorted."""
    for index, kind in enumerate(table.types()):
        if kind == native.HARDLINK and table.find(target := table[index].target) is None:
            reason = f"is a hard link to {printable(target)}, which could not be packed"
            found.problems.append(Problem(table.path(index), reason))
            drop_at(table.columns, index)
    table.sort()
