"""Writes files: extent by extent as they come, or many small files at once."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu import native
from dumont_gpu.columns.placement import SmallFiles
from dumont_gpu.disk.direct_io import write_at
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.handles import CREATE, REREAD, split
from dumont_gpu.tree.target.links import Leaders
from dumont_gpu.tree.target.messages import located
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.plan import TreePlan
from dumont_gpu.tree.target.refusals import Refusals, creating, is_refusal, meaning_of_not_found
from dumont_gpu.tree.target.replacing import Replacing, identity_of
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import temporary_name
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_REOPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in the file's place must not block
# `write` handles these causes, file by file. Descriptors run short sooner in the kernel, which keeps directories open.
_TRY_SINGLY: Final = (errno.EEXIST, errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ENFILE)


@dataclass(slots=True)
class _OpenFile:
    """A file that still lacks extents."""

    remaining: int  # extents
    entry: FileEntry | None  # with the path that the file gets; None: the file cannot be written
    lock: threading.Lock = field(default_factory=threading.Lock)
    identity: tuple[int, int] | None = None  # device and inode; None until the file is created
    name: str = ""  # during the write: the entry's own name, or a temporary name beside an older file


class FileWriter:
    """Writes the files of a plan into directories that exist. Used from many threads."""

    def __init__(
        self,
        target: Target,
        plan: TreePlan,
        replacing: Replacing,
        leaders: Leaders,
        metadata: Metadata,
        refusals: Refusals,
        *,
        owner: bool,
    ) -> None:
        self._target, self._replacing, self._leaders = target, replacing, leaders
        self._metadata, self._refusals, self._owner = metadata, refusals, owner
        self._lock = threading.Lock()
        self._links = list(plan.todo.of_type(EntryType.HARDLINK))  # possible stand-ins
        self._open_files: dict[str, _OpenFile] = {}
        for path, begun in plan.begun.items():
            if (row := plan.todo.find(path)) is not None:
                entry = plan.todo[row]
                self._open_files[path] = _OpenFile(
                    max(1, len(entry.extents)), entry, identity=begun.identity, name=begun.name
                )

    def write(self, entry: FileEntry, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Writes extents of a file; the last call completes the file. A refusal by the file system is noted.

        Args:
            pieces: (offset in the file, bytes) of each extent.

        Raises:
            OSError: the file system fails, or another program changed the file.
        """
        with self._lock:
            state = self._open_files.get(entry.path)
            if state is None:
                state = self._open_files[entry.path] = _OpenFile(max(1, len(entry.extents)), entry)
        while (current := state.entry) is not None:
            reason = self._refusals.reason_not_there(current.path) or self._try_to_write(current, state, pieces)
            if reason is None:
                return
            self._give_up(entry.path, current, state, reason)

    def write_small(self, files: SmallFiles, content: memoryview) -> None:
        """Writes whole files, in a tenth of the time that `write` takes. Raises as `write`.

        Args:
            files: neither leaders of hard links nor files that an earlier run began.
            content: the raw bytes of their chunk.
        """
        traits = self._target.traits
        if self._owner or not traits.modes or traits.only_closed or self._refusals.of_folders:
            for entry, begin in files:
                self.write(entry, [(0, content[begin : begin + entry.size])])
            return
        columns, mask = files.table.columns, self._metadata.mode_mask
        with self._target.handles.lease("") as root:
            for index, number in native.create_files(root, columns, files.rows, content, mask):
                entry, begin = files[index]
                error = OSError(number, os.strerror(number))
                if number not in _TRY_SINGLY and not is_refusal(error):
                    raise located(error, self._target.path, entry.path)
                self.write(entry, [(0, content[begin : begin + entry.size])])

    def _try_to_write(self, entry: FileEntry, state: _OpenFile, pieces: Sequence[tuple[int, memoryview]]) -> str | None:
        """Writes extents of a file; returns the reason if the file system refuses the file, else None."""
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
            if complete and self._target.traits.only_closed:
                self._set_again(parent, name, entry, state)

        try:
            self._target.access.attempt(folder, write)
        except OSError as error:
            # If state.entry has changed, another thread met a refusal and discarded the file.
            if not is_refusal(error) and state.entry is entry:
                raise located(error, self._target.path, entry.path) from error
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
            if isinstance(error, OSError) and is_refusal(error):  # FAT cannot hold files of 4 GiB
                os.unlink(state.name, dir_fd=parent)
            raise
        state.identity = status.st_dev, status.st_ino
        return fd

    def _create_beside(self, parent: int, name: str, temporary: str, entry: FileEntry) -> int:
        try:
            return os.open(temporary, CREATE, UNFINISHED_MODE, dir_fd=parent)
        except FileExistsError:
            self._replacing.clear(parent, name, entry)
            return os.open(temporary, CREATE, UNFINISHED_MODE, dir_fd=parent)

    def _create_under_name(self, parent: int, name: str, entry: FileEntry) -> int | None:
        """Creates a file under its own name; returns None if the file needs a temporary name first."""
        try:
            if self._target.traits.modes:
                return os.open(name, CREATE, UNFINISHED_MODE, dir_fd=parent)
            if identity_of(parent, name) is None:  # without modes, only a temporary name marks an unfinished file
                if entry.path in self._leaders:
                    _try_name(parent, name)
                return None
        except FileExistsError:
            self._replacing.check(parent, name, entry)
            return None
        except FileNotFoundError as error:
            raise meaning_of_not_found(error, parent) from None
        self._replacing.check(parent, name, entry)
        return None

    def _complete(self, fd: int, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> None:
        self._metadata.set(fd, entry)
        if state.name != name:
            self._replacing.move(parent, state.name, name, entry)
            state.name = name
        self._leaders.note(entry.path, fd)

    def _set_again(self, parent: int, name: str, entry: FileEntry, state: _OpenFile) -> None:
        """Sets mode and time again: this file system forgets them when a file is closed after a write."""
        fd = os.open(name, REREAD, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != state.identity:
                raise OSError(errno.ESTALE, "was replaced by another program during the restore")
            self._metadata.set(fd, entry)
            self._leaders.note(entry.path, fd)
        finally:
            os.close(fd)

    def _give_up(self, path: str, entry: FileEntry, state: _OpenFile, reason: str) -> None:
        """Notes a refusal; if no byte of the file was written, one of its hard links takes the file's place."""
        with state.lock:
            if state.entry is not entry:
                return
            self._refusals.refuse(entry.path, reason)
            if state.identity is not None:
                self._discard(entry, state)
                state.entry = None
                return
            state.entry = self._stand_in(path, entry)

    def _stand_in(self, path: str, entry: FileEntry) -> FileEntry | None:
        if path not in self._leaders:
            return None
        for link in self._links:
            if link.target == path and not self._refusals.is_refused(link.path):
                self._leaders.stand_in(path, link.path)
                return entry._replace(path=link.path)
        return None

    def _discard(self, entry: FileEntry, state: _OpenFile) -> None:
        """Deletes a file that cannot be finished."""
        folder, name = split(entry.path)
        with self._target.handles.lease(folder) as parent:
            if state.name != name:
                self._replacing.clear(parent, name, entry)
            elif identity_of(parent, name) == state.identity:
                os.unlink(name, dir_fd=parent)


def _try_name(parent: int, name: str) -> None:
    """Raises OSError if no file can have this name, while a hard link can still take the file's place."""
    with creating(parent):
        os.close(os.open(name, CREATE, UNFINISHED_MODE, dir_fd=parent))
    os.unlink(name, dir_fd=parent)
