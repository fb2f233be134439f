"""Creates the entries of a snapshot under a target directory: nothing outside it, nothing there lost.

Every component is opened from its parent's descriptor without following symlinks; symlinks and hard links come last.
A file that replaces another is written beside it and renamed over it. From `begin` to the end of `finish` a journal
stands in the target, so that a restore that was cut short goes on from what it wrote. An entry that the file system
refuses is a problem of that entry (`refusals`); everything else is restored.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu import native
from dumont_gpu.direct_io import write_at
from dumont_gpu.manifest import EntryType, Extent, FileEntry
from dumont_gpu.paths import printable
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.copies import copy_file
from dumont_gpu.tree.existing import ExistingEntries, Overwrite
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.journal import NAMES, Journal
from dumont_gpu.tree.leftovers import Kind, Leftover, examine, fingerprint_of
from dumont_gpu.tree.metadata import Metadata
from dumont_gpu.tree.refusals import Refusals, creating, is_refusal, meaning_of_not_found, refusal
from dumont_gpu.tree.same_names import SameNames
from dumont_gpu.tree.target import LOST_AND_FOUND, Target
from dumont_gpu.tree.temporary import is_ours, is_temporary_name, temporary_name
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo put there must not block
_REREAD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OWNER_WRITES: Final = 0o300
_NO_LINK: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)  # links here, or one more
_TRY_SINGLY: Final = (errno.EEXIST, errno.EACCES, errno.ENOENT)  # what is found out about by `write`
_NO_DIRECTORY_SYNC: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


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
    entry: FileEntry | None  # under the name it gets; None: it cannot be written
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
        self._handles, self._access = self.target.handles, self.target.access
        self._fresh, self.resumed = self.target.fresh, self.target.resumed
        self._same_names = SameNames(self._all_paths)
        self._existing = ExistingEntries(self._access, self._same_names, target, options.overwrite)
        self._kept: frozenset[int] | None = None  # entries that stay as they are; None: nothing was there
        self.refusals = Refusals()
        self._metadata = Metadata(
            self.refusals, lambda: self.target.traits, root, owner=options.owner, special=options.preserve_special
        )
        self.copied_links = 0  # hard links that became files of their own
        self._lock = threading.Lock()
        self._open_files: dict[str, _OpenFile] = {}
        self._links: dict[str, tuple[int, ...] | None] = {}  # files that hard links will want -> their fingerprint
        self._stand_ins: dict[str, str] = {}  # of these, those refused -> the hard link that got the content
        self._selected: Sequence[FileEntry] = ()
        self._paths: frozenset[str] = frozenset()  # of these, once they matter
        self._entries: Sequence[FileEntry] = ()
        self._complete_files: dict[str, tuple[int, ...]] = {}  # of a former run -> their fingerprints
        self._adopted: set[tuple[int, int]] = set()  # files of a former run that are gone on with
        self._placed: set[tuple[int, int]] = set()  # files that are complete, some of them: not to be replaced

    def begin(self) -> None:
        """Leaves word of this restore in the target, before anything else is written."""
        self.target.begin(kept=self._kept, durable=self._options.sync)

    def prepare(self, entries: Sequence[FileEntry]) -> None:
        """Creates directories and files without extents."""
        self._entries = entries
        self._links = {
            entry.target: self._complete_files.get(entry.target)
            for entry in entries
            if entry.type is EntryType.HARDLINK
        }
        if not self.target.traits.modes:
            self._refuse_own_names(entries)
        for entry in entries:
            if entry.type is EntryType.DIR:
                self._make_directory(entry.path)
            elif entry.type is EntryType.FILE and not entry.extents:
                self.write(entry, [])

    def write(self, entry: FileEntry, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Writes extents of a file, each at its offset; the file is complete once all of them have come."""
        with self._lock:
            state = self._open_files.get(entry.path)
            if state is None:
                state = self._open_files[entry.path] = _OpenFile(max(1, len(entry.extents)), entry)
        while (current := state.entry) is not None:
            reason = self.refusals.reason_not_there(current.path) or self._try_to_write(current, state, pieces)
            if reason is None:
                return
            self._give_up(entry.path, current, state, reason)

    def write_small(self, folder: str, files: Sequence[tuple[FileEntry, int]], content: memoryview) -> None:
        """Writes whole files of one directory, each from its offset in `content`: a fifth of what `write` takes."""
        traits = self.target.traits
        singly = self._options.owner or not traits.modes or traits.only_closed or self.refusals.lacks(folder)
        batch = []
        for entry, begin in files:
            if singly or entry.path in self._links or entry.path in self._open_files:
                self.write(entry, [(0, content[begin : begin + entry.size])])
            else:
                batch.append((entry, begin))
        if not batch:
            return
        records = [
            native.NewFile(split(entry.path)[1], begin, entry.size, entry.mtime_ns, self._metadata.mode(entry))
            for entry, begin in batch
        ]
        with self._handles.lease(folder) as parent:
            for index, number in native.create_files(parent, records, content):
                entry, begin = batch[index]
                error = OSError(number, os.strerror(number))
                if number not in _TRY_SINGLY and not is_refusal(error):
                    raise self._existing.located(error, entry.path)
                self.write(entry, [(0, content[begin : begin + entry.size])])

    def finish(self) -> None:
        """Creates symlinks and hard links, gives directories their modes and times, and syncs."""
        entries = self.refusals.present(self._entries)
        for entry in entries:
            if entry.type is EntryType.SYMLINK:
                self._guarded(entry, self._make_symlink)
        for entry in entries:
            if entry.type is EntryType.HARDLINK:
                self._guarded(entry, self._make_hard_link)
        if self.target.follows_another:
            self._remove_leftovers()
        self._finish_directories([entry for entry in entries if entry.type is EntryType.DIR])
        self._access.put_back()
        if self.target.begun:
            traits = self.target.traits
            self.refusals.ignored |= {name for name in ("modes", "times") if not getattr(traits, name)}
        with self._handles.lease("") as root_fd:
            if self._options.sync:
                _sync_file_system(root_fd)  # before the journal goes: without it, nobody looks again
            self._finish_target(root_fd)

    def close(self) -> None:
        """Gives back the descriptors. What is not complete stays, for the next run."""
        if not self.target.complete:
            with contextlib.suppress(OSError):  # as far as possible: another error is on its way
                self._access.put_back()
        self.target.close()

    def statvfs(self) -> os.statvfs_result:
        with self._handles.lease("") as root_fd:
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
        self._selected = entries
        self._existing.keeps_modes = self.target.traits.modes
        if self.resumed:
            kept = self.target.journal.kept
            if distrusted:
                kept = frozenset(index for index in kept if entries[index].path not in distrusted)
            return self._existing.resolve_again(entries, kept)
        if self._fresh:
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

    # --- what a former run left -----------------------------------------------------------------------------------

    def leftover(self, entry: FileEntry) -> Leftover | None:
        """Returns what there is of a file that this restore wants to write, and whose content may be right."""
        name = split(entry.path)[1]
        owner = entry.owner if self._options.owner else None
        modes = self.target.traits.modes

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

    def _look(self, entry: FileEntry, look: Callable[[int], Leftover | None]) -> Leftover | None:
        try:
            return self._access.attempt(split(entry.path)[0], look)
        except FileNotFoundError:
            return None
        except OSError as error:
            if is_refusal(error):  # no such name can be there
                return None
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
            if leftover.identity in self._adopted:  # two names that are one here
                return entry
            self._adopted.add(leftover.identity)
            state = _OpenFile(max(1, len(missing)), entry, identity=leftover.identity, name=leftover.name)
            self._open_files[entry.path] = state
            return entry._replace(extents=tuple(missing))
        if missing:
            return entry
        self._complete_files[entry.path] = leftover.fingerprint
        self._placed.add(leftover.identity)
        return None

    def _remove_leftovers(self) -> None:
        """Takes away what an interrupted run left beside entries that need no replacing any more."""
        for entry in self._selected:
            if entry.type is not EntryType.DIR:
                self._remove_leftover(entry)

    def _remove_leftover(self, entry: FileEntry) -> None:
        folder, name = split(entry.path)
        try:
            self._access.attempt(folder, lambda parent: self._clear(parent, name, entry))
        except FileNotFoundError:  # a directory that is not there
            pass
        except OSError as error:
            if not is_refusal(error):  # somebody else's file; or a directory that cannot be
                raise self._existing.located(error, entry.path) from error

    def _clear(self, parent: int, name: str, entry: FileEntry) -> None:
        """Makes room under the temporary name of `entry`.

        Raises:
            OSError: a refusal, if what stands there is not ours to delete.
        """
        temporary = temporary_name(name)
        try:
            status = os.stat(temporary, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        file = self._file(entry.path)
        owner = file.owner[0] if file is not None and file.owner is not None and self._options.owner else None
        if not is_ours(status, file, owner, modes=self.target.traits.modes):
            raise refusal(f"{temporary} beside it is not of this program; move it away")
        os.unlink(temporary, dir_fd=parent)

    def _file(self, path: str) -> FileEntry | None:
        """Returns the file that `path` is, or is a hard link of."""
        entry = next((entry for entry in self._selected if entry.path == path), None)
        return self._file(entry.target) if entry is not None and entry.type is EntryType.HARDLINK else entry

    # --- files ----------------------------------------------------------------------------------------------------

    def _try_to_write(self, entry: FileEntry, state: _OpenFile, pieces: Sequence[tuple[int, memoryview]]) -> str | None:
        """Writes extents of a file; returns why this file system refuses it, or None."""
        folder, name = split(entry.path)

        def write(parent: int) -> None:
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
            if complete and self.target.traits.only_closed:
                self._set_again(parent, name, entry, state)

        try:
            self._access.attempt(folder, write)
        except OSError as error:
            if not is_refusal(error) and state.entry is entry:  # else refused meanwhile, by another extent
                raise self._existing.located(error, entry.path) from error
            return error.strerror or str(error)
        return None

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
        fd = self._create_under_name(parent, name, entry)
        state.name = name
        if fd is None:
            state.name = temporary_name(name)
            fd = self._create_beside(parent, name, state.name, entry)
        try:
            status = os.fstat(fd)
            if state.remaining > 1 or (entry.extents and entry.extents[-1].file_end < entry.size) or not entry.extents:
                os.ftruncate(fd, entry.size)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError) and is_refusal(error):  # FAT has no files of 4 GiB
                os.unlink(state.name, dir_fd=parent)
            raise
        state.identity = status.st_dev, status.st_ino
        return fd

    def _create_beside(self, parent: int, name: str, temporary: str, entry: FileEntry) -> int:
        try:
            return os.open(temporary, _CREATE, UNFINISHED_MODE, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, entry)
            return os.open(temporary, _CREATE, UNFINISHED_MODE, dir_fd=parent)

    def _create_under_name(self, parent: int, name: str, entry: FileEntry) -> int | None:
        """Creates a file under its own name; None if it has to be written beside it first."""
        try:
            if self.target.traits.modes:
                return os.open(name, _CREATE, UNFINISHED_MODE, dir_fd=parent)
            if _identity(parent, name) is None:  # only its name can tell an unfinished file from others here
                if entry.path in self._links:
                    _try_name(parent, name)
                return None
        except FileExistsError:
            self._check_place(parent, name, entry)
            return None
        except FileNotFoundError as error:
            raise meaning_of_not_found(error, parent) from None
        self._check_place(parent, name, entry)
        return None

    def _complete(self, fd: int, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> None:
        self._set_metadata(fd, entry)
        if state.name != name:
            self._move(parent, state.name, name, entry)
            state.name = name
        self._note_fingerprint(fd, entry)

    def _set_again(self, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> None:
        """Gives a file its mode and time once more, where they were lost as it was closed."""
        fd = os.open(name, _REREAD, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != state.identity:
                raise OSError(errno.ESTALE, "was replaced by another program during the restore")
            self._set_metadata(fd, entry)
            self._note_fingerprint(fd, entry)
        finally:
            os.close(fd)

    def _note_fingerprint(self, fd: int, entry: FileEntry) -> None:
        leader = self._leader(entry.path)
        if leader in self._links:
            self._links[leader] = fingerprint_of(os.fstat(fd))

    def _leader(self, path: str) -> str:
        """Returns the path by which hard links know a file."""
        if not self._stand_ins:
            return path
        return next((leader for leader, link in self._stand_ins.items() if link == path), path)

    def _give_up(self, path: str, entry: FileEntry, state: _OpenFile, reason: str) -> None:
        """A file cannot be under its name: if nothing of it was written, one of its hard links takes its place."""
        with state.lock:
            if state.entry is not entry:
                return
            self.refusals.refuse(entry.path, reason)
            if state.identity is not None:
                self._discard(entry, state)
                state.entry = None
                return
            state.entry = self._stand_in(path, entry)

    def _stand_in(self, path: str, entry: FileEntry) -> FileEntry | None:
        if path not in self._links:
            return None
        for link in self._entries:
            if link.type is EntryType.HARDLINK and link.target == path and not self.refusals.is_refused(link.path):
                self._stand_ins[path] = link.path
                return entry._replace(path=link.path)
        return None

    def _discard(self, entry: FileEntry, state: _OpenFile) -> None:
        """Takes away what was written of a file that cannot be finished."""
        folder, name = split(entry.path)
        with self._handles.lease(folder) as parent:
            if state.name != name:
                self._clear(parent, name, entry)
            elif _identity(parent, name) == state.identity:
                os.unlink(name, dir_fd=parent)

    # --- what stands in the way -----------------------------------------------------------------------------------

    def _check_place(self, parent: int, name: str, entry: FileEntry) -> None:
        """Something exists under the name of `entry`: may it be replaced?

        Raises:
            OSError: no; a refusal if another entry of the snapshot stands there.
        """
        folder = split(entry.path)[0]
        replaceable = self._may_replace(entry)
        other = self._same_names.owner(parent, folder, name)
        if other is None and not replaceable:
            other = self._same_names.alike(parent, folder, name)
        if other is not None:
            raise refusal(f"this file system takes its name for that of {printable(other)}")
        if not replaceable:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _may_replace(self, entry: FileEntry) -> bool:
        return self._options.overwrite in ("always", "if-changed") or entry.path in self._existing.replaceable

    def _move(self, parent: int, temporary: str, name: str, entry: FileEntry) -> None:
        """Renames a finished entry over what it replaces."""
        traits = self.target.traits
        if traits.modes and not traits.one_case:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            return
        with self._lock:  # two names may be one here, and both on their way
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if there.st_nlink == 1 and (there.st_dev, there.st_ino) in self._placed:
                    raise refusal("this file system takes its name for that of another entry")
                self._check_place(parent, name, entry)
            moved = _identity(parent, temporary)
            with creating(parent) if moved is not None else contextlib.nullcontext():
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            if moved is not None:
                self._placed.add(moved)

    def _all_paths(self) -> frozenset[str]:
        if not self._paths:
            self._paths = frozenset(entry.path for entry in self._selected)
        return self._paths

    def _refuse_own_names(self, entries: Sequence[FileEntry]) -> None:
        """Without modes, names alone say what is a restore's own: no entry may have them."""
        for entry in entries:
            name = split(entry.path)[1]
            if entry.type is not EntryType.DIR and (name in NAMES or is_temporary_name(name)):
                self.refusals.refuse(entry.path, "a name that only dumont-gpu itself may use on this file system")

    # --- everything else ------------------------------------------------------------------------------------------

    def _make_directory(self, path: str) -> None:
        folder, name = split(path)
        reason = self.refusals.reason_not_there(path)
        try:
            if reason is None:
                self._access.attempt(folder, lambda parent: self._make_directory_in(parent, name, path))
                self._access.attempt(path, lambda fd: self._make_private(fd, path))  # fails if it is a symlink
        except OSError as error:
            if not is_refusal(error):
                raise self._existing.located(error, path) from error
            reason = error.strerror or str(error)
        if reason is not None:
            self.refusals.refuse_folder(path, reason)

    def _make_directory_in(self, parent: int, name: str, path: str) -> None:
        try:
            with creating(parent):
                os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            folder = split(path)[0]
            unexpected = self._options.overwrite == "refuse" and not self.resumed and path != LOST_AND_FOUND
            other = self._same_names.owner(parent, folder, name)
            if other is None and unexpected:
                other = self._same_names.alike(parent, folder, name)
            if other is not None:
                raise refusal(f"this file system takes its name for that of {printable(other)}") from None
            if unexpected:
                raise

    def _make_private(self, fd: int, path: str) -> None:
        if self.resumed and self._fresh:
            # The former run may have finished it, and made it read-only.
            self._metadata.attempt(path, "modes", lambda: os.fchmod(fd, 0o700))

    def _make_symlink(self, entry: FileEntry, parent: int, name: str) -> None:
        def set_time(new: str) -> None:
            os.utime(new, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

        def give(new: str, uid: int, gid: int) -> None:
            os.chown(new, uid, gid, dir_fd=parent, follow_symlinks=False)

        def create(new: str) -> None:
            try:
                with creating(parent):
                    os.symlink(entry.target, new, dir_fd=parent)
            except OSError as error:
                if error.errno in _NO_LINK:
                    raise refusal(f"there can be no symlink here: {error.strerror}") from None
                raise
            self._metadata.attempt(entry.path, "times", lambda: set_time(new))
            self._metadata.give_owner(entry, lambda uid, gid: give(new, uid, gid))

        self._create_or_replace(create, parent, name, entry)

    def _make_hard_link(self, entry: FileEntry, parent: int, name: str) -> None:
        path = self._stand_ins.get(entry.target, entry.target)
        if path == entry.path:
            return  # it has become the file
        if self.refusals.is_refused(path):
            raise refusal("the file that it is a hard link of could not be restored")
        folder, leader = split(path)
        fingerprint = self._links.get(entry.target)
        if self.resumed and entry.path in self._existing.replaceable and self._is_linked(parent, name, fingerprint):
            return  # renaming one link of a file over another does nothing

        def create(new: str) -> None:
            with self._handles.lease(folder) as leader_parent:
                try:
                    os.link(leader, new, src_dir_fd=leader_parent, dst_dir_fd=parent, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _NO_LINK:
                        raise
                    beside = new == name and not self.target.traits.modes  # half a copy would pass for a file
                    if beside:
                        self._clear(parent, name, entry)
                        new = temporary_name(name)
                    self._copy(leader_parent, leader, fingerprint, parent, new, entry.path)
                    if beside:
                        self._move(parent, new, name, entry)
                    return
            status = os.stat(new, dir_fd=parent, follow_symlinks=False)
            if fingerprint_of(status) != fingerprint:
                os.unlink(new, dir_fd=parent)
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")

        self._create_or_replace(create, parent, name, entry)

    def _copy(
        self, leader_parent: int, leader: str, fingerprint: tuple[int, ...] | None, parent: int, new: str, path: str
    ) -> None:
        """Makes a file of what cannot be a hard link."""
        source = os.open(leader, _REREAD, dir_fd=leader_parent)
        try:
            status = os.fstat(source)
            if fingerprint_of(status) != fingerprint:
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")
            with creating(parent):
                out = os.open(new, _CREATE, UNFINISHED_MODE, dir_fd=parent)
            try:
                copy_file(source, out)
                self._metadata.set_like(out, status, path)
                if self.target.traits.only_closed:
                    os.close(out)
                    out = os.open(new, _REREAD, dir_fd=parent)
                    self._metadata.set_like(out, status, path)
            except BaseException:
                os.unlink(new, dir_fd=parent)
                raise
            finally:
                os.close(out)
        finally:
            os.close(source)
        self.copied_links += 1

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
            self._check_place(parent, name, entry)
            self._clear(parent, name, entry)
            temporary = temporary_name(name)
            create(temporary)
            try:
                self._move(parent, temporary, name, entry)
            except OSError:
                os.unlink(temporary, dir_fd=parent)
                raise

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
            records = [
                native.Directory(split(entry.path)[1], entry.mtime_ns, self._metadata.mode(entry)) for entry in children
            ]
            try:
                with self._handles.lease(folder) as parent:
                    failed = list(native.finish_directories(parent, records))
            except OSError as error:
                raise self._existing.located(error, folder) from error
            for index, _ in failed:
                self._guarded(children[index], self._finish_directory)  # which says why, or does without
        self._access.forget(entry.path for entry in entries)

    def _finish_directory(self, entry: FileEntry, parent: int, name: str) -> None:
        self._access.attempt(entry.path, lambda fd: self._set_metadata(fd, entry))

    def _finish_target(self, root_fd: int) -> None:
        """The very last steps. When the journal goes, only the target's own time, or a mode to keep it, is missing."""
        entry = self._root_entry if self._fresh or self._options.overwrite != "never" else None
        early = entry is not None and self._metadata.mode(entry) & _OWNER_WRITES == _OWNER_WRITES
        if entry is not None and early:
            self._set_metadata(root_fd, entry)
        self.target.remove_journal()  # which changes the time
        if entry is not None:
            if early:
                self._metadata.attempt(".", "times", lambda: os.utime(root_fd, ns=(entry.mtime_ns, entry.mtime_ns)))
            else:
                self._set_metadata(root_fd, entry)
            self._access.forget([""])
        self._access.put_back()
        if self._options.sync:
            try:
                os.fsync(root_fd)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY_SYNC:
                    raise

    def _set_metadata(self, fd: int, entry: FileEntry) -> None:
        self._metadata.set(fd, entry)

    def _guarded(self, entry: FileEntry, make: Callable[[FileEntry, int, str], None]) -> None:
        folder, name = split(entry.path)
        try:
            self._access.attempt(folder, lambda parent: make(entry, parent, name))
        except OSError as error:
            if not is_refusal(error):
                raise self._existing.located(error, entry.path) from error
            self.refusals.refuse(entry.path, error.strerror or str(error))


def _try_name(parent: int, name: str) -> None:
    """Finds out whether a file can have this name, before it matters."""
    with creating(parent):
        os.close(os.open(name, _CREATE, UNFINISHED_MODE, dir_fd=parent))
    os.unlink(name, dir_fd=parent)


def _identity(parent: int, name: str) -> tuple[int, int] | None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _sync_file_system(fd: int) -> None:
    """One syncfs instead of an fsync per file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
