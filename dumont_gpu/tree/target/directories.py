"""Creates directories, and gives them and the target their modes and times when their content is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from dumont_gpu import native
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.messages import located
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.refusals import Refusals, creating, is_refusal
from dumont_gpu.tree.target.replacing import Replacing
from dumont_gpu.tree.target.target import Target

_OWNER_WRITES: Final = 0o300
_NO_DIRECTORY_SYNC: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class DirectoryWriter:
    """Creates the directories of a target, and finishes them. Used by a single thread."""

    def __init__(
        self,
        target: Target,
        replacing: Replacing,
        metadata: Metadata,
        refusals: Refusals,
        *,
        owner: bool,
    ) -> None:
        self._target, self._replacing = target, replacing
        self._metadata, self._refusals, self._owner = metadata, refusals, owner

    def make_all(self, entries: EntryTable) -> None:
        """Creates all directories among the entries. Raises as `make`."""
        if self._target.resumed and self._target.fresh:  # the interrupted run may have finished directories
            for row in entries.rows_of(EntryType.DIR):
                self.make(entries.path(row))
            return
        with self._target.handles.lease("") as root:
            for row, _ in native.make_directories(root, entries.columns):
                self.make(entries.path(row))
                if self._refusals.of_folders:  # something else may stand where they belong
                    break
            else:
                return
        for other in entries.rows_of(EntryType.DIR):
            if other > row:
                self.make(entries.path(other))

    def make(self, path: str) -> None:
        """Creates a directory, or accepts an existing directory; a refusal by the file system is noted.

        Raises:
            OSError: the directory cannot be created or opened.
        """
        folder, name = split(path)
        reason = self._refusals.reason_not_there(path)
        try:
            if reason is None:
                self._target.access.attempt(folder, lambda parent: self._make_directory_in(parent, name, path))
                self._target.access.attempt(path, lambda fd: self._make_private(fd, path))  # fails for a symlink
        except OSError as error:
            if not is_refusal(error):
                raise located(error, self._target.path, path) from error
            reason = error.strerror or str(error)
        if reason is not None:
            self._refusals.refuse_folder(path, reason)

    def _make_directory_in(self, parent: int, name: str, path: str) -> None:
        try:
            with creating(parent):
                os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            self._replacing.check_directory(parent, name, path)

    def _make_private(self, fd: int, path: str) -> None:
        if self._target.resumed and self._target.fresh:
            # The interrupted run may have finished the directory and made it read-only.
            self._metadata.attempt(path, "modes", lambda: os.fchmod(fd, 0o700))

    def finish(self, entries: EntryTable) -> None:
        """Gives directories their owners, times and modes; a parent after its content, as it may become read-only.

        Args:
            entries: the directories, among other entries.

        Raises:
            OSError: the file system fails; a refusal is noted as a problem of the entry.
        """
        if self._owner:
            for entry in reversed(list(entries.of_type(EntryType.DIR))):
                self.guarded(entry, self._finish_directory)
        else:
            with self._target.handles.lease("") as root:
                for row, _ in native.finish_directories(root, entries.columns, self._metadata.mode_mask):
                    self.guarded(entries[row], self._finish_directory)  # notes the reason, or does without the metadata
        self._target.access.forget(entries.path(row) for row in entries.rows_of(EntryType.DIR))

    def _finish_directory(self, entry: FileEntry, parent: int, name: str) -> None:
        self._target.access.attempt(entry.path, lambda fd: self._metadata.set(fd, entry))

    def guarded(self, entry: FileEntry, make: Callable[[FileEntry, int, str], None]) -> None:
        """Calls `make` with an entry, its parent's descriptor and its name; a refusal is a problem of that entry.

        Raises:
            OSError: the file system fails rather than refuses; the message names the entry.
        """
        folder, name = split(entry.path)
        try:
            self._target.access.attempt(folder, lambda parent: make(entry, parent, name))
        except OSError as error:
            if not is_refusal(error):
                raise located(error, self._target.path, entry.path) from error
            self._refusals.refuse(entry.path, error.strerror or str(error))

    def finish_target(self, root_fd: int, entry: FileEntry | None, *, sync: bool) -> None:
        """Takes the last steps: the target's metadata, the journal's removal, a sync.

        When the journal goes, only the target's own time is missing, or its mode if that forbids the removal.

        Args:
            root_fd: descriptor of the target.
            entry: mode, time and owner of the target; None leaves them.
            sync: whether to sync the target to disk.

        Raises:
            OSError: the file system fails.
        """
        early = entry is not None and self._metadata.mode(entry) & _OWNER_WRITES == _OWNER_WRITES
        if entry is not None and early:
            self._metadata.set(root_fd, entry)
        self._target.remove_journal()  # this changes the target's time
        if entry is not None:
            if early:
                self._metadata.attempt(".", "times", lambda: os.utime(root_fd, ns=(entry.mtime_ns, entry.mtime_ns)))
            else:
                self._metadata.set(root_fd, entry)
            self._target.access.forget([""])
        self._target.access.put_back()
        if sync:
            try:
                os.fsync(root_fd)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY_SYNC:
                    raise
