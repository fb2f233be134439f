"""Creates the entries of a snapshot under a target directory: nothing outside it, nothing there lost.

Every component is opened from its parent's descriptor without following symlinks; symlinks and hard links come last.
A file that replaces another is written beside it and renamed over it. From `begin` to the end of `finish` a journal
stands in the target, so that a restore that was cut short goes on from what it wrote.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dumont_gpu import native
from dumont_gpu.direct_io import write_at
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.manifest import EntryType, Extent, FileEntry
from dumont_gpu.paths import printable
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.existing import OVERWRITE_CHOICES, ExistingEntries, Overwrite
from dumont_gpu.tree.handles import DirectoryHandles, split
from dumont_gpu.tree.journal import Journal, JournalFile, begin_journal, find_journal
from dumont_gpu.tree.leftovers import Kind, Leftover, examine, fingerprint_of
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo put there must not block
_REREAD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PERMISSIONS: Final = 0o777
_ALL_MODE_BITS: Final = 0o7777


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    overwrite: Overwrite = "refuse"  # what to do with a target that is not empty
    preserve_special: bool = False  # setuid, setgid and sticky bits
    owner: bool = False  # user and group ids, where the snapshot has them
    sync: bool = True  # return only when everything is on disk


@dataclass(slots=True)
class _OpenFile:
    """A file some extents of which are still to come."""

    remaining: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    identity: tuple[int, int] | None = None  # device and inode, once it exists
    name: str = ""  # while it is written: its own, or a temporary one beside an older file


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
    ) -> None:
        """Opens the target, and creates it if need be.

        Args:
            journal: which snapshot, and which part of it.
            root: mode, time and owner of the target itself.
            names: those of the snapshot that no journal may have.

        Raises:
            UsageError: the target is not empty, or what stands in it is the beginning of another restore.
            DumontError: another process is at work there.
        """
        self._options, self._root_entry = options, root
        self._target = target
        self._journal, self._names = journal, names
        self._journal_file: JournalFile | None = None
        self._superseded: JournalFile | None = None  # the journal of another restore, which this one writes over
        self._fresh = self._open_target(target)
        self.resumed = self._journal_file is not None
        self._existing = ExistingEntries(self._handles, target, options.overwrite)
        self._lock = threading.Lock()
        self._open_files: dict[str, _OpenFile] = {}
        self._links: dict[str, tuple[int, ...] | None] = {}  # files that hard links will want -> their fingerprint
        self._entries: Sequence[FileEntry] = ()
        self._complete_files: dict[str, tuple[int, ...]] = {}  # of a former run -> their fingerprints

    def _open_target(self, target: str) -> bool:
        """Opens or creates the target directory; returns whether it was empty."""
        try:
            os.makedirs(target, exist_ok=True)
            root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{target}: exists and is not a directory") from None
        self._handles = DirectoryHandles(root_fd)
        try:
            found = find_journal(root_fd, self._names)
            if found is not None and not self._adopt_journal(found):
                self._superseded = found
            with os.scandir(root_fd) as listing:
                fresh = next(listing, None) is None
            if self._journal_file is not None:
                return self._journal.overwrite == "refuse"
            if not fresh and self._options.overwrite == "refuse":
                raise UsageError(
                    f"{target}: is not empty; choose another directory or --overwrite {'|'.join(OVERWRITE_CHOICES)}"
                )
        except BaseException as error:
            self.close()
            if type(error) is DumontError:
                raise DumontError(f"{target}: {error}") from None
            raise
        return fresh

    def _adopt_journal(self, found: JournalFile) -> bool:
        """Whether this restore goes on with that journal, rather than in spite of it.

        Raises:
            UsageError: it is another restore's, and nothing says that this one may write over it.
        """
        old, new = found.journal, self._journal
        same = (old.snapshot_id, old.selection) == (new.snapshot_id, new.selection)
        if same and old.overwrite in ("refuse", self._options.overwrite):
            self._journal, self._journal_file = old, found
            return True
        if self._options.overwrite == "always":
            return False
        found.close()
        what = "this snapshot with other options" if old.snapshot_id == new.snapshot_id else printable(old.snapshot_id)
        raise UsageError(
            f"{self._target}: holds an unfinished restore of {what}: give that command again to finish it, "
            "or --overwrite always to write over it"
        )

    def begin(self) -> None:
        """Leaves word of this restore in the target, before anything else is written."""
        if self._journal_file is not None:
            return
        with self._handles.lease("") as root_fd:
            if self._superseded is not None:
                self._superseded.remove(root_fd)
            self._journal_file = begin_journal(root_fd, self._names, self._journal, durable=self._options.sync)

    def prepare(self, entries: Sequence[FileEntry]) -> None:
        """Creates directories and files without extents."""
        self._entries = entries
        self._links = {
            entry.target: self._complete_files.get(entry.target)
            for entry in entries
            if entry.type is EntryType.HARDLINK
        }
        for entry in entries:
            if entry.type is EntryType.DIR:
                self._make_directory(entry.path)
            elif entry.type is EntryType.FILE and not entry.extents:
                self.write(entry, [])

    def write(self, entry: FileEntry, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Writes extents of a file, each at its offset; the file is complete once all of them have come."""
        folder, name = split(entry.path)
        with self._lock:
            state = self._open_files.get(entry.path)
            if state is None:
                state = self._open_files[entry.path] = _OpenFile(max(1, len(entry.extents)))
        try:
            with self._handles.lease(folder) as parent:
                fd = self._open_for_writing(parent, name, entry, state)
                try:
                    for offset, data in pieces:
                        write_at(fd, offset, data)
                    with state.lock:
                        state.remaining -= max(1, len(pieces))
                        complete = state.remaining <= 0
                    if complete:
                        self._complete(fd, parent, name, entry, state)
                finally:
                    os.close(fd)
        except OSError as error:
            raise self._existing.located(error, entry.path) from error

    def write_small(self, folder: str, files: Sequence[tuple[FileEntry, int]], content: memoryview) -> None:
        """Writes whole files of one directory, each from its offset in `content`: a fifth of what `write` takes."""
        batch = []
        for entry, begin in files:
            if self._options.owner or entry.path in self._links or entry.path in self._open_files:
                self.write(entry, [(0, content[begin : begin + entry.size])])
            else:
                batch.append((entry, begin))
        records = [
            native.NewFile(split(entry.path)[1], begin, entry.size, entry.mtime_ns, self._mode(entry))
            for entry, begin in batch
        ]
        with self._handles.lease(folder) as parent:
            for index, number in native.create_files(parent, records, content):
                entry, begin = batch[index]
                if number != errno.EEXIST:
                    raise self._existing.located(OSError(number, os.strerror(number)), entry.path)
                self.write(entry, [(0, content[begin : begin + entry.size])])

    def finish(self) -> None:
        """Creates symlinks and hard links, gives directories their modes and times, and syncs."""
        for entry in self._entries:
            if entry.type is EntryType.SYMLINK:
                self._guarded(entry, self._make_symlink)
        for entry in self._entries:
            if entry.type is EntryType.HARDLINK:
                self._guarded(entry, self._make_hard_link)
        self._finish_directories([entry for entry in self._entries if entry.type is EntryType.DIR])
        with self._handles.lease("") as root_fd:
            if self._options.sync:
                _sync_file_system(root_fd)  # before the journal goes: without it, nobody looks again
            if self._journal_file is not None:
                self._journal_file.remove(root_fd)
            if self._root_entry is not None and (self._fresh or self._options.overwrite != "never"):
                self._set_metadata(root_fd, self._root_entry)
            if self._options.sync:
                os.fsync(root_fd)

    def close(self) -> None:
        """Gives back the descriptors. What is not complete stays, for the next run."""
        for journal in (self._journal_file, self._superseded):
            if journal is not None:
                journal.close()
        self._handles.close()

    def statvfs(self) -> os.statvfs_result:
        with self._handles.lease("") as root_fd:
            return os.fstatvfs(root_fd)

    def resolve(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Returns `entries` without those that the overwrite policy keeps as they are.

        Raises:
            DumontError: something of another kind stands where an entry belongs.
            UsageError: something has been put there since this restore was interrupted.
        """
        if self.resumed:
            return self._existing.resolve_again(entries, self._journal.kept)
        if self._fresh:
            return list(entries)
        wanted, kept = self._existing.resolve(entries)
        self._journal = replace(self._journal, overwrite=self._options.overwrite, kept=kept)
        return wanted

    @property
    def kept(self) -> int:
        """Entries of the target that were left as they are."""
        return self._existing.kept

    # --- what a former run left -----------------------------------------------------------------------------------

    def leftover(self, entry: FileEntry) -> Leftover | None:
        """Returns what there is of a file that this restore wants to write, and whose content may be right."""
        folder, name = split(entry.path)
        owner = entry.owner if self._options.owner else None
        try:
            with self._handles.lease(folder) as parent:
                found = examine(parent, name, entry, self._mode(entry), owner)
                if found is None or found.kind is Kind.OTHER:
                    return examine(parent, _temporary_name(name), entry, None, owner) or found
                return found
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._existing.located(error, entry.path) from error

    def open_leftover(self, entry: FileEntry, leftover: Leftover) -> int | None:
        """Opens it for reading; None if it is gone, or not for us to read."""
        try:
            with self._handles.lease(split(entry.path)[0]) as parent:
                fd = os.open(leftover.name, _REREAD, dir_fd=parent)
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
            state = _OpenFile(max(1, len(missing)), identity=leftover.identity, name=leftover.name)
            self._open_files[entry.path] = state
            return entry._replace(extents=tuple(missing))
        if missing:
            return entry
        self._complete_files[entry.path] = leftover.fingerprint
        return None

    # --- files ----------------------------------------------------------------------------------------------------

    def _open_for_writing(self, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> int:
        with state.lock:
            if state.identity is None:
                return self._create(parent, name, entry, state)
        fd = os.open(state.name, _REOPEN, dir_fd=parent)
        status = os.fstat(fd)
        same = (status.st_dev, status.st_ino) == state.identity
        if not same or not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            os.close(fd)
            raise OSError(errno.ESTALE, "was replaced by another program during the restore")
        return fd

    def _create(self, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> int:
        state.name = name
        try:
            fd = os.open(name, _CREATE, UNFINISHED_MODE, dir_fd=parent)
        except FileExistsError:
            if not self._may_replace(entry):
                raise
            state.name = _temporary_name(name)
            with contextlib.suppress(FileNotFoundError):  # left behind by a run that was killed
                os.unlink(state.name, dir_fd=parent)
            fd = os.open(state.name, _CREATE, UNFINISHED_MODE, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if state.remaining > 1 or (entry.extents and entry.extents[-1].file_end < entry.size) or not entry.extents:
                os.ftruncate(fd, entry.size)
        except BaseException:
            os.close(fd)
            raise
        state.identity = status.st_dev, status.st_ino
        return fd

    def _complete(self, fd: int, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> None:
        self._set_metadata(fd, entry)
        if state.name != name:
            os.rename(state.name, name, src_dir_fd=parent, dst_dir_fd=parent)
            state.name = name
        if entry.path in self._links:
            self._links[entry.path] = fingerprint_of(os.fstat(fd))

    # --- everything else ------------------------------------------------------------------------------------------

    def _make_directory(self, path: str) -> None:
        folder, name = split(path)
        try:
            with self._handles.lease(folder) as parent:
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    if self._options.overwrite == "refuse" and not self.resumed:
                        raise
            with self._handles.lease(path) as fd:  # fails if it is a symlink
                if self.resumed and self._fresh:
                    os.fchmod(fd, 0o700)  # the former run may have finished it, and made it read-only
        except OSError as error:
            raise self._existing.located(error, path) from error

    def _make_symlink(self, entry: FileEntry, parent: int, name: str) -> None:
        def create(new: str) -> None:
            os.symlink(entry.target, new, dir_fd=parent)
            os.utime(new, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
            if self._options.owner and entry.owner is not None:
                os.chown(new, *entry.owner, dir_fd=parent, follow_symlinks=False)

        self._create_or_replace(create, parent, name, entry)

    def _make_hard_link(self, entry: FileEntry, parent: int, name: str) -> None:
        folder, leader = split(entry.target)
        fingerprint = self._links.get(entry.target)
        if self.resumed and entry.path in self._existing.replaceable and self._is_linked(parent, name, fingerprint):
            return  # renaming one link of a file over another does nothing

        def create(new: str) -> None:
            with self._handles.lease(folder) as leader_parent:
                os.link(leader, new, src_dir_fd=leader_parent, dst_dir_fd=parent, follow_symlinks=False)
            status = os.stat(new, dir_fd=parent, follow_symlinks=False)
            if fingerprint_of(status) != fingerprint:
                os.unlink(new, dir_fd=parent)
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")

        self._create_or_replace(create, parent, name, entry)

    @staticmethod
    def _is_linked(parent: int, name: str, fingerprint: tuple[int, ...] | None) -> bool:
        try:
            return fingerprint_of(os.stat(name, dir_fd=parent, follow_symlinks=False)) == fingerprint
        except FileNotFoundError:
            return False

    def _create_or_replace(self, create: Callable[[str], None], parent: int, name: str, entry: FileEntry) -> None:
        try:
            create(name)
        except FileExistsError:
            if not self._may_replace(entry):
                raise
            temporary = _temporary_name(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            create(temporary)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _may_replace(self, entry: FileEntry) -> bool:
        return self._options.overwrite in ("always", "if-changed") or entry.path in self._existing.replaceable

    def _finish_directories(self, entries: Sequence[FileEntry]) -> None:
        """Gives directories (`entries`, in path order) their modes and times: a parent last, as it may be read-only."""
        by_folder: dict[str, list[FileEntry]] = defaultdict(list)
        for entry in entries:
            by_folder[split(entry.path)[0]].append(entry)
        for folder, children in reversed(by_folder.items()):
            if self._options.owner:
                for entry in children:
                    self._guarded(entry, self._finish_directory)
                continue
            records = [native.Directory(split(entry.path)[1], entry.mtime_ns, self._mode(entry)) for entry in children]
            try:
                with self._handles.lease(folder) as parent:
                    failed = list(native.finish_directories(parent, records))
            except OSError as error:
                raise self._existing.located(error, folder) from error
            for index, number in failed:
                raise self._existing.located(OSError(number, os.strerror(number)), children[index].path)

    def _finish_directory(self, entry: FileEntry, parent: int, name: str) -> None:
        with self._handles.lease(entry.path) as fd:
            self._set_metadata(fd, entry)

    def _set_metadata(self, fd: int, entry: FileEntry) -> None:
        if self._options.owner and entry.owner is not None:
            os.fchown(fd, *entry.owner)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        os.fchmod(fd, self._mode(entry))  # last: until then a file is marked as unfinished

    def _mode(self, entry: FileEntry) -> int:
        return entry.mode & (_ALL_MODE_BITS if self._options.preserve_special else _PERMISSIONS)

    def _guarded(self, entry: FileEntry, make: Callable[[FileEntry, int, str], None]) -> None:
        folder, name = split(entry.path)
        try:
            with self._handles.lease(folder) as parent:
                make(entry, parent, name)
        except OSError as error:
            raise self._existing.located(error, entry.path) from error


def _temporary_name(name: str) -> str:
    """Of the file that will replace `name`: always the same, so that the next run replaces what a killed one left."""
    return f".dumont-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.partial"


def _sync_file_system(fd: int) -> None:
    """One syncfs instead of an fsync per file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
