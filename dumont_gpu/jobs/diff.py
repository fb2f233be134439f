"""Compares two snapshots, or a snapshot and a folder: which entries were added, removed or modified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from dumont_gpu.backends import select_backend
from dumont_gpu.columns.table import as_table
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.disk.outputs import identity
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.file_reader import FileReader
from dumont_gpu.jobs.options import DiffOptions
from dumont_gpu.shortages import explain_shortages, is_shortage
from dumont_gpu.sizes import MiB, one_line
from dumont_gpu.snapshot.inside import opened_snapshot, place_of
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.storage import STANDARD_STREAM
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile
from dumont_gpu.tree.source.scan import scan

_PIECE: Final = 1 * MiB  # of a hole, looked at at once


class Change(NamedTuple):
    """A difference between A and B."""

    kind: Literal["+", "-", "M"]  # only in B, only in A, in both but not the same
    path: str
    type: EntryType  # of the entry in B, or of the one that is only in A; a hard link counts as its file
    why: str = ""  # of M: "type", "size", "content", "time" (of a file whose content nobody compared) or "target"


@dataclass(slots=True)
class DiffResult:
    """The differences between A and B, in path order."""

    changes: list[Change] = field(default_factory=list)
    same: int = 0  # entries that are the same in both
    by_time: int = 0  # files of them whose content nobody compared: their sizes and times are alike
    problems: list[Problem] = field(default_factory=list)  # entries of a folder that could not be read

    @property
    def equal(self) -> bool:
        """Whether no difference was found, and everything could be read."""
        return not self.changes and not self.problems

    def count(self, kind: Literal["+", "-", "M"]) -> int:
        """Returns how many changes there are of a kind."""
        return sum(change.kind == kind for change in self.changes)


@explain_shortages()
def diff(a: str, b: str, options: DiffOptions | None = None) -> DiffResult:
    """Compares A with B: types, sizes, what links lead to; and files by content as far as that is known.

    The digests of two snapshots tell what content is the same, if both have cut a file at the same places. Where no
    digest tells, a file's time does. With `options.content`, bytes do: digests that are alike are believed only after
    both files were read, and compared with them. Modes, owners and times of directories and links are not compared.

    Args:
        a: path or address of a snapshot, perhaps with `:path` of a part of it; or a folder.
        b: the same; only one of them may be a folder.

    Raises:
        UsageError: both are folders.
        SnapshotNotFoundError, DamagedError, UnsupportedError, DumontError: as for a restore.
    """
    options = options or DiffOptions()
    with ExitStack() as stack:
        if os.path.isdir(a) and os.path.isdir(b):  # noqa: PTH112 - not for a name that is too long
            raise UsageError(one_line(f"{a} and {b} are folders: name a snapshot"))
        result = DiffResult()
        sides = _side(a, b, options, stack, result), _side(b, a, options, stack, result)
        comparison = _Comparison(*sides, stack, content=options.content)
        for old, new in _merged(sides[0].entries, sides[1].entries):
            _note(result, comparison, old, new)
        result.by_time = comparison.by_time
        return result


def _note(result: DiffResult, comparison: _Comparison, old: FileEntry | None, new: FileEntry | None) -> None:
    """Adds what there is to say of an entry in A, in B or in both."""
    if old is None or new is None:
        entry = old or new
        assert entry is not None
        if any(entry.path.startswith(f"{problem.path}/") for problem in result.problems):
            return  # its folder could not be read: nobody knows
        kind = EntryType.FILE if entry.type is EntryType.HARDLINK else entry.type
        result.changes.append(Change("+" if old is None else "-", entry.path, kind))
        return
    old, new = comparison.a.resolved(old), comparison.b.resolved(new)
    try:
        why = comparison.difference(old, new)
    except OSError as error:
        if is_shortage(error.errno):
            raise
        result.problems.append(Problem(new.path, error.strerror or str(error)))
        return
    if why:
        result.changes.append(Change("M", new.path, new.type, why))
    else:
        result.same += 1


class _Side:
    """A snapshot or a folder, as entries in path order."""

    def __init__(
        self, entries: Sequence[FileEntry], snapshot: Snapshot | None = None, files: Sequence[SourceFile] = ()
    ) -> None:
        self.entries, self.snapshot = entries, snapshot
        self.on_disk = {file.entry.path: file for file in files}
        for entry in entries if files else ():
            if entry.type is EntryType.HARDLINK:
                self.on_disk[entry.path] = self.on_disk[entry.target]

    def resolved(self, entry: FileEntry) -> FileEntry:
        """Returns an entry; for a hard link, its file under the link's path."""
        if entry.type is not EntryType.HARDLINK:
            return entry
        if self.snapshot is None:
            return self.on_disk[entry.path].entry._replace(path=entry.path)
        table = as_table(self.entries)
        row = table.find(entry.target)
        assert row is not None  # the reader has checked that
        return table[row]._replace(path=entry.path)


def _side(text: str, other: str, options: DiffOptions, stack: ExitStack, result: DiffResult) -> _Side:
    """Opens a side until `stack` ends; notes what cannot be read of a folder.

    Args:
        other: the other side; if this is a snapshot in the folder, it does not count.
    """
    if not os.path.isdir(text):  # noqa: PTH112
        snapshot = stack.enter_context(opened_snapshot(text, options.network))
        return _Side(as_table(snapshot.manifest.entries), snapshot)
    found = scan([text], leave_out=_identities(place_of(other).location))
    stack.callback(found.close)
    result.problems += found.problems
    entries = sorted([*(file.entry for file in found.files), *found.others], key=lambda entry: entry.sort_key)
    return _Side(entries, files=found.files)


def _identities(path: str) -> set[tuple[int, int]]:
    """Returns device and inode of the file at `path`, if there is one."""
    if path == STANDARD_STREAM:
        return set()
    try:
        return {identity(os.stat(path))}
    except (OSError, ValueError):  # an address
        return set()


def _merged(old: Sequence[FileEntry], new: Sequence[FileEntry]) -> Iterator[tuple[FileEntry | None, FileEntry | None]]:
    """Yields the entries of both, those of one path together."""
    olds, news = iter(old), iter(new)
    left, right = next(olds, None), next(news, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.sort_key < right.sort_key):
            yield left, None
            left = next(olds, None)
        elif left is None or right.sort_key < left.sort_key:
            yield None, right
            right = next(news, None)
        else:
            yield left, right
            left, right = next(olds, None), next(news, None)


class _Comparison:
    """Compares the entries of two sides that have one path."""

    def __init__(self, a: _Side, b: _Side, stack: ExitStack, *, content: bool) -> None:
        self.a, self.b, self._content, self._stack = a, b, content, stack
        self._readers: dict[int, FileReader] = {}  # by the side's id
        self.by_time = 0  # files that are taken for the same because their times are alike

    def difference(self, old: FileEntry, new: FileEntry) -> str:
        """Returns in what two entries differ; "" if in nothing that is compared.

        Raises:
            OSError: a file on disk cannot be read.
            DamagedError, DumontError: a file in a snapshot cannot be read.
        """
        if old.type is not new.type:
            return "type"
        if old.type is EntryType.SYMLINK:
            return "target" if old.target != new.target else ""
        if old.type is EntryType.DIR:
            return ""
        if old.size != new.size:
            return "size"
        same = self._by_digests(old, new)
        if same is not False and self._content:
            same = self._by_bytes(old, new)
        if same is not None:
            return "" if same else "content"
        if old.mtime_ns != new.mtime_ns:
            return "time"
        self.by_time += 1
        return ""

    def _by_digests(self, old: FileEntry, new: FileEntry) -> bool | None:
        """Whether two files of snapshots are the same; None if no digests tell."""
        if self.a.snapshot is None or self.b.snapshot is None:
            return None
        if self.a.snapshot.header.digest != self.b.snapshot.header.digest:
            return None
        cuts = [[(extent.file_offset, extent.length) for extent in entry.extents] for entry in (old, new)]
        if cuts[0] != cuts[1]:
            return None
        return [extent.digest for extent in old.extents] == [extent.digest for extent in new.extents]

    def _by_bytes(self, old: FileEntry, new: FileEntry) -> bool:
        for side, packed, other in ((self.a, old, self.b), (self.b, new, self.a)):
            if side.snapshot is not None and other.snapshot is None:
                # The digests of the snapshot judge the bytes on disk: nothing of it need be fetched.
                return _holds(other.on_disk[packed.path], packed, side.snapshot)
        return self._whole_digest(self.a, old) == self._whole_digest(self.b, new)

    def _whole_digest(self, side: _Side, file: FileEntry) -> bytes:
        """Reads a file of a snapshot; returns one digest of all of it."""
        assert side.snapshot is not None
        reader = self._readers.get(id(side))
        if reader is None:
            backend = self._stack.enter_context(closing(select_backend("cpu")))
            reader = self._readers[id(side)] = FileReader(side.snapshot, backend)
        digest = hashlib.sha256()
        for piece in reader.read(file):
            digest.update(piece)
        return digest.digest()


def _holds(file: SourceFile, entry: FileEntry, snapshot: Snapshot) -> bool:
    """Whether a file on disk, of the right size, holds the bytes of an entry of a snapshot."""
    end = 0
    buffer = memoryview(bytearray(max([_PIECE, *(extent.length for extent in entry.extents)])))
    with file.open() as fd:
        for extent in entry.extents:
            content = buffer[: extent.length]
            if not _is_zero(fd, end, extent.file_offset, buffer[:_PIECE]):
                return False
            if read_at(fd, extent.file_offset, content) != extent.length or snapshot.digest(content) != extent.digest:
                return False
            end = extent.file_end
        return _is_zero(fd, end, entry.size, buffer[:_PIECE])


def _is_zero(fd: int, begin: int, end: int, buffer: memoryview) -> bool:
    for at in range(begin, end, len(buffer)):
        piece = buffer[: end - at]
        if read_at(fd, at, piece) != len(piece) or any(piece):
            return False
    return True
