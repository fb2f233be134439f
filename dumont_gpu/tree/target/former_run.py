"""What a former run of this restore left in the target: found, opened for checking, gone on with, or taken away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import REREAD, split
from dumont_gpu.tree.target.existing import ExistingEntries
from dumont_gpu.tree.target.file_writer import FileWriter
from dumont_gpu.tree.target.leftovers import Kind, Leftover, examine
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.refusals import is_refusal
from dumont_gpu.tree.target.replacing import Replacing
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import temporary_name


class FormerRun:
    def __init__(
        self,
        target: Target,
        existing: ExistingEntries,
        replacing: Replacing,
        files: FileWriter,
        metadata: Metadata,
        *,
        owner: bool,
    ) -> None:
        self._target, self._existing, self._replacing = target, existing, replacing
        self._files, self._metadata, self._owner = files, metadata, owner
        self._adopted: set[tuple[int, int]] = set()  # files (device, inode) that are gone on with
        self.complete: dict[str, tuple[int, ...]] = {}  # files that are complete -> their fingerprints

    def leftover(self, entry: FileEntry) -> Leftover | None:
        """Returns what there is of a file that this restore wants to write, and whose content may be right."""
        name = split(entry.path)[1]
        owner = entry.owner if self._owner else None
        modes = self._target.traits.modes

        def look(parent: int) -> Leftover | None:
            found = examine(parent, name, entry, self._metadata.mode(entry), owner, modes=modes)
            if found is None or found.kind is Kind.OTHER:
                return examine(parent, temporary_name(name), entry, None, owner, modes=modes) or found
            return found

        return self._look(entry, look)

    def standing(self, entry: FileEntry) -> Leftover | None:
        """Returns what stands under the name of a file, if it is one of the same size."""
        name = split(entry.path)[1]
        return self._look(entry, lambda parent: examine(parent, name, entry, self._metadata.mode(entry), None))

    def open(self, entry: FileEntry, leftover: Leftover) -> int | None:
        """Opens a leftover for reading; None if it is gone, or not for us to read."""
        try:
            with self._target.handles.lease(split(entry.path)[0]) as parent:
                fd = os.open(leftover.name, REREAD, dir_fd=parent)
        except OSError as error:
            if is_shortage(error.errno):
                raise
            return None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == leftover.identity:
            return fd
        os.close(fd)
        return None

    def adopt(self, entry: FileEntry, leftover: Leftover | None, missing: Sequence[Extent]) -> FileEntry | None:
        """Goes on with what there is of a file, right but for `missing`; returns what is still to be written.

        Raises:
            UsageError: it is somebody else's.
        """
        if entry.path in self._existing.foreign and (leftover is None or (leftover.kind is Kind.OTHER and missing)):
            raise self._existing.changed(entry.path)
        if leftover is None or leftover.kind is Kind.OTHER:
            return entry
        if leftover.kind is Kind.UNFINISHED:
            if leftover.identity in self._adopted:  # two names that are one here
                return entry
            self._adopted.add(leftover.identity)
            self._files.go_on(entry, leftover, len(missing))
            return entry._replace(extents=tuple(missing))
        if missing:
            return entry
        self.complete[entry.path] = leftover.fingerprint
        self._replacing.protect(leftover.identity)
        return None

    def remove_leftovers(self, entries: Iterable[FileEntry]) -> None:
        """Takes away what an interrupted run left beside entries that need no replacing any more."""
        for entry in entries:
            if entry.type is not EntryType.DIR:
                self._remove_leftover(entry)

    def _remove_leftover(self, entry: FileEntry) -> None:
        folder, name = split(entry.path)
        try:
            self._target.access.attempt(folder, lambda parent: self._replacing.clear(parent, name, entry))
        except FileNotFoundError:  # a directory that is not there
            pass
        except OSError as error:
            if not is_refusal(error):  # somebody else's file; or a directory that cannot be
                raise self._existing.located(error, entry.path) from error

    def _look(self, entry: FileEntry, look: Callable[[int], Leftover | None]) -> Leftover | None:
        try:
            return self._target.access.attempt(split(entry.path)[0], look)
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_refusal(error):  # no such name can be there
                return None
            raise self._existing.located(error, entry.path) from error
