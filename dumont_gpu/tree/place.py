"""Creates the entries of a snapshot under a target directory: nothing outside it, nothing there lost.

Every component is opened from its parent's descriptor without following symlinks; symlinks and hard links come last.
A file that replaces another is written beside it and renamed over it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from dumont_gpu import native
from dumont_gpu.direct_io import write_at
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.manifest import EntryType, FileEntry, with_new_leaders
from dumont_gpu.paths import printable
from dumont_gpu.tree.handles import DirectoryHandles, split

Overwrite = Literal["refuse", "always", "if-changed", "never"]
OVERWRITE_CHOICES: Final = ("always", "if-changed", "never")

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo put there must not block
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

    >>> writer = TreeWriter(target, options)
    >>> entries = writer.resolve(entries)        # without those that stay as they are; nothing is written yet
    >>> writer.prepare(entries)                  # directories and files without extents exist now
    >>> writer.write(file, [(0, content)])       # for every extent of every file, in any order
    >>> writer.write_small("src", files, content)  # or for whole files of one directory
    >>> writer.finish()                          # links, directory modes and times, sync
    """

    def __init__(self, target: str, options: PlaceOptions, root: FileEntry | None = None) -> None:
        self._options, self._root_entry = options, root
        self._target = target
        self._fresh = self._open_target(target)
        self._lock = threading.Lock()
        self._open_files: dict[str, _OpenFile] = {}
        self._links: dict[str, tuple[int, ...] | None] = {}  # files that hard links will want -> their fingerprint
        self._entries: Sequence[FileEntry] = ()
        self.kept = 0  # entries of the target that were left as they are

    def _open_target(self, target: str) -> bool:
        """Opens or creates the target directory; returns whether it was empty."""
        try:
            os.makedirs(target, exist_ok=True)
            root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{target}: exists and is not a directory") from None
        self._handles = DirectoryHandles(root_fd)
        with os.scandir(root_fd) as listing:
            fresh = next(listing, None) is None
        if not fresh and self._options.overwrite == "refuse":
            self._handles.close()
            raise UsageError(
                f"{target}: is not empty; choose another directory or --overwrite {'|'.join(OVERWRITE_CHOICES)}"
            )
        return fresh

    def prepare(self, entries: Sequence[FileEntry]) -> None:
        """Creates directories and files without extents."""
        self._entries = entries
        self._links = {entry.target: None for entry in entries if entry.type is EntryType.HARDLINK}
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
            raise self._located(error, entry.path) from error

    def write_small(self, folder: str, files: Sequence[tuple[FileEntry, int]], content: memoryview) -> None:
        """Writes whole files of one directory, each from its offset in `content`: a fifth of what `write` takes."""
        batch = []
        for entry, begin in files:
            if self._options.owner or entry.path in self._links:
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
                    raise self._located(OSError(number, os.strerror(number)), entry.path)
                self.write(entry, [(0, content[begin : begin + entry.size])])

    def finish(self) -> None:
        """Creates symlinks and hard links, gives directories their modes and times, and syncs."""
        for entry in self._entries:
            if entry.type is EntryType.SYMLINK:
                self._guarded(entry, self._make_symlink)
        for entry in self._entries:
            if entry.type is EntryType.HARDLINK:
                self._guarded(entry, self._make_hard_link)
        for entry in reversed(self._entries):  # children before their parents, whose times they would change
            if entry.type is EntryType.DIR:
                self._guarded(entry, self._finish_directory)
        with self._handles.lease("") as root_fd:
            if self._root_entry is not None and (self._fresh or self._options.overwrite != "never"):
                self._set_metadata(root_fd, self._root_entry)
            if self._options.sync:
                _sync_file_system(root_fd)

    def close(self) -> None:
        """Removes temporary files that never became complete, and gives back the descriptors."""
        for path, state in self._open_files.items():
            folder, name = split(path)
            if state.name not in ("", name):
                with contextlib.suppress(OSError), self._handles.lease(folder) as parent:
                    os.unlink(state.name, dir_fd=parent)
        self._handles.close()

    def statvfs(self) -> os.statvfs_result:
        with self._handles.lease("") as root_fd:
            return os.fstatvfs(root_fd)

    # --- what is there already ------------------------------------------------------------------------------------

    def resolve(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Returns `entries` without those that the overwrite policy keeps as they are.

        Raises:
            DumontError: something of another kind stands where an entry belongs.
        """
        if self._fresh:
            return list(entries)
        wanted: list[FileEntry] = []
        files = {entry.path: entry for entry in entries if entry.type is EntryType.FILE}
        kept_files: dict[str, tuple[int, int]] = {}
        for entry in entries:
            status = self._existing(entry)
            if status is None:
                wanted.append(entry)
                continue
            if stat.S_ISDIR(status.st_mode) != (entry.type is EntryType.DIR):
                found = "a directory" if stat.S_ISDIR(status.st_mode) else "not a directory"
                raise DumontError(f"{self._shown(entry.path)}: is {found} there; move it away and run again")
            identity = status.st_dev, status.st_ino
            if self._keeps(entry, status) or (
                entry.type is EntryType.HARDLINK and kept_files.get(entry.target) == identity
            ):
                self.kept += entry.type is not EntryType.DIR
                kept_files[entry.path] = identity
            else:
                wanted.append(entry)
        return with_new_leaders(wanted, files)  # only files that this restore writes are linked to

    def _existing(self, entry: FileEntry) -> os.stat_result | None:
        folder, name = split(entry.path)
        try:
            with self._handles.lease(folder) as parent:
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._located(error, entry.path) from error

    def _keeps(self, entry: FileEntry, status: os.stat_result) -> bool:
        if self._options.overwrite == "never":
            return True
        if self._options.overwrite != "if-changed" or entry.type is EntryType.DIR:
            return False
        same_time = status.st_mtime_ns == entry.mtime_ns
        if entry.type is EntryType.FILE:
            return stat.S_ISREG(status.st_mode) and same_time and status.st_size == entry.size
        if entry.type is EntryType.SYMLINK and stat.S_ISLNK(status.st_mode):
            folder, name = split(entry.path)
            with self._handles.lease(folder) as parent:
                return os.readlink(name, dir_fd=parent) == entry.target
        return False

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
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            if self._options.overwrite not in ("always", "if-changed"):
                raise
            state.name = _temporary_name(name)
            with contextlib.suppress(FileNotFoundError):  # left behind by a run that was killed
                os.unlink(state.name, dir_fd=parent)
            fd = os.open(state.name, _CREATE, 0o600, dir_fd=parent)
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
            self._links[entry.path] = _fingerprint(os.fstat(fd))

    # --- everything else ------------------------------------------------------------------------------------------

    def _make_directory(self, path: str) -> None:
        folder, name = split(path)
        try:
            with self._handles.lease(folder) as parent:
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    if self._options.overwrite == "refuse":
                        raise
            with self._handles.lease(path):  # fails if it is a symlink
                pass
        except OSError as error:
            raise self._located(error, path) from error

    def _make_symlink(self, entry: FileEntry, parent: int, name: str) -> None:
        def create(new: str) -> None:
            os.symlink(entry.target, new, dir_fd=parent)
            os.utime(new, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
            if self._options.owner and entry.owner is not None:
                os.chown(new, *entry.owner, dir_fd=parent, follow_symlinks=False)

        self._create_or_replace(create, parent, name)

    def _make_hard_link(self, entry: FileEntry, parent: int, name: str) -> None:
        folder, leader = split(entry.target)
        fingerprint = self._links.get(entry.target)

        def create(new: str) -> None:
            with self._handles.lease(folder) as leader_parent:
                os.link(leader, new, src_dir_fd=leader_parent, dst_dir_fd=parent, follow_symlinks=False)
            status = os.stat(new, dir_fd=parent, follow_symlinks=False)
            if _fingerprint(status) != fingerprint:
                os.unlink(new, dir_fd=parent)
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")

        self._create_or_replace(create, parent, name)

    def _create_or_replace(self, create: Callable[[str], None], parent: int, name: str) -> None:
        try:
            create(name)
        except FileExistsError:
            if self._options.overwrite not in ("always", "if-changed"):
                raise
            temporary = _temporary_name(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            create(temporary)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _finish_directory(self, entry: FileEntry, parent: int, name: str) -> None:
        with self._handles.lease(entry.path) as fd:
            self._set_metadata(fd, entry)

    def _set_metadata(self, fd: int, entry: FileEntry) -> None:
        if self._options.owner and entry.owner is not None:
            os.fchown(fd, *entry.owner)
        os.fchmod(fd, self._mode(entry))
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _mode(self, entry: FileEntry) -> int:
        return entry.mode & (_ALL_MODE_BITS if self._options.preserve_special else _PERMISSIONS)

    def _guarded(self, entry: FileEntry, make: Callable[[FileEntry, int, str], None]) -> None:
        folder, name = split(entry.path)
        try:
            with self._handles.lease(folder) as parent:
                make(entry, parent, name)
        except OSError as error:
            raise self._located(error, entry.path) from error

    def _shown(self, path: str) -> str:
        return printable(f"{self._target.rstrip('/')}/{path}")

    def _located(self, error: OSError, path: str) -> OSError:
        reason = error.strerror or str(error)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = "a symlink or a file stands where the snapshot has a directory; it is not followed"
        return OSError(error.errno, reason, self._shown(path))


def _temporary_name(name: str) -> str:
    """Of the file that will replace `name`: always the same, so that the next run replaces what a killed one left."""
    return f".dumont-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.partial"


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    """Tells a file from another that got its inode number after it was deleted."""
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def _sync_file_system(fd: int) -> None:
    """One syncfs instead of an fsync per file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
