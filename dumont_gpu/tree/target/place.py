"""Creates the entries of a snapshot under a target directory: nothing outside it, nothing there lost.

Every component is opened from its parent's descriptor without following symlinks; symlinks and hard links come last.
A file that replaces another is written beside it and renamed over it. From `begin` to the end of `finish` a journal
stands in the target, so that a restore that was cut short goes on from what it wrote. An entry that the file system
refuses is a problem of that entry (`refusals`); everything else is restored.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass

from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.existing import ExistingEntries, Overwrite
from dumont_gpu.tree.target.file_writer import FileWriter
from dumont_gpu.tree.target.folder_writer import FolderWriter
from dumont_gpu.tree.target.former_run import FormerRun
from dumont_gpu.tree.target.journal import NAMES, Journal
from dumont_gpu.tree.target.leftovers import Leftover
from dumont_gpu.tree.target.link_writer import Leaders, LinkWriter
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.refusals import Refusals
from dumont_gpu.tree.target.replacing import Replacing, SelectedEntries
from dumont_gpu.tree.target.same_names import SameNames
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import is_temporary_name


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    overwrite: Overwrite = "refuse"  # what to do with a target that is not empty
    preserve_special: bool = False  # setuid, setgid and sticky bits
    owner: bool = False  # user and group ids, where the snapshot has them
    sync: bool = True  # return only when everything is on disk


class TreeWriter:
    """Writes one selection of entries under one target. `write` is called from many threads.

    >>> writer = TreeWriter(target, options, journal)
    >>> entries = writer.resolve(entries)        # without those that stay as they are; nothing is written yet
    >>> entries = resume.remaining(entries, ...) # if writer.resumed: without what a former run has written
    >>> writer.begin()                           # from here on, the same command goes on
    >>> writer.prepare(entries)                  # directories and files without extents exist now
    >>> writer.write(file, [(0, content)])       # for every extent of every file, in any order
    >>> writer.write_small("src", files, content)  # or for whole files of one directory
    >>> writer.finish()                          # links, directory modes and times, sync
    """

    def __init__(
        self,
        target: str,
        options: PlaceOptions,
        journal: Journal,
        root: FileEntry | None = None,
        names: Container[str] = (),
        *,
        read_only: bool = False,
    ) -> None:
        """Opens the target, and creates it if need be.

        Args:
            journal: which snapshot, and which part of it.
            root: mode, time and owner of the target itself.
            names: those of the snapshot that no journal may have.
            read_only: only for looking: up to and without `begin`.

        Raises:
            UsageError: the target is not empty, or what stands in it is the beginning of another restore.
            DumontError: another process is at work there.
        """
        self._options, self._root_entry = options, root
        self.target = Target(target, journal, options.overwrite, names, read_only=read_only)
        self.resumed = self.target.resumed
        self._selected = SelectedEntries()
        self._kept: frozenset[int] | None = None  # entries that stay as they are; None: nothing was there
        self._entries: Sequence[FileEntry] = ()
        self.refusals = Refusals()
        same_names = SameNames(self._selected.paths)
        self._existing = ExistingEntries(self.target.access, same_names, target, options.overwrite)
        self._metadata = Metadata(
            self.refusals, lambda: self.target.traits, root, owner=options.owner, special=options.preserve_special
        )
        self._leaders = Leaders()
        shared = self.target, self._existing
        replacing = Replacing(*shared, same_names, self._selected, overwrite=options.overwrite, owner=options.owner)
        told = self._metadata, self.refusals
        self._files = FileWriter(*shared, replacing, self._leaders, *told, owner=options.owner)
        self._links = LinkWriter(*shared, replacing, self._leaders, *told)
        self._folders = FolderWriter(*shared, replacing, *told, owner=options.owner)
        self._former = FormerRun(*shared, replacing, self._files, self._metadata, owner=options.owner)

    def begin(self) -> None:
        """Leaves word of this restore in the target, before anything else is written."""
        self.target.begin(kept=self._kept, durable=self._options.sync)

    def prepare(self, entries: Sequence[FileEntry]) -> None:
        """Creates directories and files without extents."""
        self._entries = entries
        self._leaders.expect(entries, self._former.complete)
        self._files.expect(entries)
        if not self.target.traits.modes:
            self._refuse_own_names(entries)
        for entry in entries:
            if entry.type is EntryType.DIR:
                self._folders.make(entry.path)
            elif entry.type is EntryType.FILE and not entry.extents:
                self.write(entry, [])

    def write(self, entry: FileEntry, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Writes extents of a file, each at its offset; the file is complete once all of them have come."""
        self._files.write(entry, pieces)

    def write_small(self, folder: str, files: Sequence[tuple[FileEntry, int]], content: memoryview) -> None:
        """Writes whole files of one directory, each from its offset in `content`: a fifth of what `write` takes."""
        self._files.write_small(folder, files, content)

    def finish(self) -> None:
        """Creates symlinks and hard links, gives directories their modes and times, and syncs."""
        entries = self.refusals.present(self._entries)
        for entry in entries:
            if entry.type is EntryType.SYMLINK:
                self._folders.guarded(entry, self._links.make_symlink)
        for entry in entries:
            if entry.type is EntryType.HARDLINK:
                self._folders.guarded(entry, self._links.make_hard_link)
        if self.target.follows_another:
            self._former.remove_leftovers(self._selected.entries)
        self._folders.finish([entry for entry in entries if entry.type is EntryType.DIR])
        self.target.access.put_back()
        if self.target.begun:
            traits = self.target.traits
            self.refusals.ignored |= {name for name in ("modes", "times") if not getattr(traits, name)}
        with self.target.handles.lease("") as root_fd:
            if self._options.sync:
                _sync_file_system(root_fd)  # before the journal goes: without it, nobody looks again
            changed = self.target.fresh or self._options.overwrite != "never"
            self._folders.finish_target(root_fd, self._root_entry if changed else None, sync=self._options.sync)

    def close(self) -> None:
        """Gives back the descriptors. What is not complete stays, for the next run."""
        if not self.target.complete:
            with contextlib.suppress(OSError):  # as far as possible: another error is on its way
                self.target.access.put_back()
        self.target.close()

    def statvfs(self) -> os.statvfs_result:
        with self.target.handles.lease("") as root_fd:
            return os.fstatvfs(root_fd)

    def check_writable(self) -> None:
        """Raises OSError where nothing can be written, before anything is."""
        self.target.check_writable()

    def resolve(self, entries: Sequence[FileEntry], distrusted: Container[str] = ()) -> list[FileEntry]:
        """Returns `entries` without those that the overwrite policy keeps as they are.

        Args:
            distrusted: paths of files that must not be kept: their content is not what it seems.

        Raises:
            DumontError: something of another kind stands where an entry belongs.
            UsageError: something has been put there since this restore was interrupted.
        """
        self._selected.entries = entries
        self._existing.keeps_modes = self.target.traits.modes
        if self.resumed:
            kept = self.target.journal.kept
            if distrusted:
                kept = frozenset(index for index in kept if entries[index].path not in distrusted)
            return self._existing.resolve_again(entries, kept)
        if self.target.fresh:
            return list(entries)
        wanted, self._kept = self._existing.resolve(entries, distrusted)
        return wanted

    @property
    def kept(self) -> int:
        """Entries of the target that were left as they are."""
        return self._existing.kept

    @property
    def kept_files(self) -> Sequence[FileEntry]:
        """Of these, the regular files."""
        return self._existing.kept_files

    @property
    def replaced(self) -> Sequence[str]:
        """Paths of what stands in the target and is written over."""
        return self._existing.replaced

    @property
    def copied_links(self) -> int:
        """Hard links that became files of their own."""
        return self._links.copied

    # --- what a former run left: see FormerRun ----------------------------------------------------------------------

    def leftover(self, entry: FileEntry) -> Leftover | None:
        return self._former.leftover(entry)

    def standing(self, entry: FileEntry) -> Leftover | None:
        return self._former.standing(entry)

    def open_leftover(self, entry: FileEntry, leftover: Leftover) -> int | None:
        return self._former.open(entry, leftover)

    def adopt(self, entry: FileEntry, leftover: Leftover | None, missing: Sequence[Extent]) -> FileEntry | None:
        return self._former.adopt(entry, leftover, missing)

    def _refuse_own_names(self, entries: Sequence[FileEntry]) -> None:
        """Without modes, names alone say what is a restore's own: no entry may have them."""
        for entry in entries:
            name = split(entry.path)[1]
            if entry.type is not EntryType.DIR and (name in NAMES or is_temporary_name(name)):
                self.refusals.refuse(entry.path, "a name that only dumont-gpu itself may use on this file system")


def _sync_file_system(fd: int) -> None:
    """One syncfs instead of an fsync per file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
