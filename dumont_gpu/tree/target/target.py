"""The target directory of a restore, and the journal that stands in the target during the restore."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Final

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.paths import printable
from dumont_gpu.tree.handles import DirectoryHandles
from dumont_gpu.tree.target.access import FolderAccess
from dumont_gpu.tree.target.journal import NAMES, Journal, JournalFile, begin_journal, find_journal
from dumont_gpu.tree.target.options import Overwrite
from dumont_gpu.tree.target.traits import Traits, traits_of
from dumont_gpu.tree.unfinished import is_unfinished

LOST_AND_FOUND: Final = "lost+found"  # every ext4 volume has this directory; a volume with nothing else is empty


class Target:
    """An open target directory, closed at the end of a `with` block. `handles` and `access` open its directories."""

    def __init__(
        self, path: str, journal: Journal, overwrite: Overwrite, names: Container[str], *, read_only: bool = False
    ) -> None:
        """Opens the directory at `path`, and creates it unless `read_only`.

        Args:
            journal: identifies the snapshot and the selection of the restore.
            overwrite: policy for existing files.
            names: paths of the snapshot's entries, which no journal may have.
            read_only: creates, removes and changes nothing.

        Raises:
            UsageError: the target is no directory, or holds another unfinished restore.
            DumontError: another process is restoring into the target.
            OSError: the directory cannot be opened.
        """
        self.path, self.journal = path, journal
        self._overwrite = overwrite
        self._names = frozenset(name for name in NAMES if name in names)
        self._journal_file: JournalFile | None = None
        self._superseded: JournalFile | None = None  # the journal of another restore, which this restore writes over
        self.traits = Traits()
        self.occupied = (
            False  # True: not empty, and nothing may be written over: `Policy` decides whether it is complete
        )
        self.complete = False  # True: at most the target's own time is missing
        try:
            if not read_only:
                with contextlib.suppress(FileExistsError):  # also raised for a directory that cannot be examined
                    os.makedirs(path)
            self.handles = DirectoryHandles(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except NotADirectoryError:
            raise _no_directory(path) from None
        except FileNotFoundError:
            if os.path.lexists(path):  # a symlink to nothing
                raise _no_directory(path) from None
            raise
        self.access = FolderAccess(self.handles)
        self.access.read_only = read_only
        try:
            self.fresh = self._examine(read_only)
        except BaseException as error:
            self.close()
            if type(error) is DumontError:
                raise DumontError(f"{path}: {error}") from None
            raise
        self.resumed = self._journal_file is not None
        self.follows_another = self.resumed or self._superseded is not None  # an earlier run may have left files

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def begun(self) -> bool:
        """Whether the journal stands in the target: the same command then continues the restore."""
        return self._journal_file is not None

    def statvfs(self) -> os.statvfs_result:
        """Returns the state of the target's file system."""
        with self.handles.lease("") as root_fd:
            return os.fstatvfs(root_fd)

    def begin(self, *, kept: frozenset[int] | None, durable: bool) -> None:
        """Writes the journal of this restore, before any other write.

        Args:
            kept: indices of the entries that existed and stay as they are; None if the target was empty.
            durable: whether the journal must survive a power loss.

        Raises:
            DumontError: no name is free for the journal, or another process is restoring into the target.
            OSError: the target cannot be written to.
        """
        if kept is not None:
            self.journal = replace(self.journal, overwrite=self._overwrite, kept=kept)
        if self._journal_file is None:
            self._journal_file = self.access.attempt("", lambda root: self._begin(root, durable))
        fd, name = self._journal_file.fd, self._journal_file.name
        self.traits = self.access.attempt("", lambda root_fd: traits_of(fd, root_fd, name))

    def _begin(self, root_fd: int, durable: bool) -> JournalFile:
        begun = begin_journal(root_fd, self._names, self.journal, durable=durable)
        if self._superseded is not None:  # only now: a journal must stand as long as leftovers may exist
            self._superseded.remove(root_fd)
        return begun

    def check_writable(self) -> None:
        """Raises OSError if the file system is read-only or the directory is another user's."""
        with self.handles.lease("") as root_fd:
            if os.fstatvfs(root_fd).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.path)
            mine = os.fstat(root_fd).st_uid == os.geteuid()
        if not mine and not os.access(self.path, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.path)

    def remove_journal(self) -> None:
        """Removes the journal: the restore is complete."""
        self.access.attempt("", self._remove_journals)
        self.complete = True

    def _remove_journals(self, root_fd: int) -> None:
        own = self._journal_file
        if self._superseded is not None:  # runs that were killed at their start may have left further journals
            taken = self._names | ({own.name} if own is not None else set())
            while (other := find_journal(root_fd, taken)) is not None:
                other.remove(root_fd)
                other.close()
        if own is not None:
            own.remove(root_fd)

    def close(self) -> None:
        """Closes the descriptors. An incomplete tree stays for the next run."""
        if not self.complete:
            with contextlib.suppress(OSError):  # must not hide the error that ended the restore
                self.access.put_back()
        for journal in (self._journal_file, self._superseded):
            if journal is not None:
                journal.close()
        self.handles.close()

    def _examine(self, read_only: bool) -> bool:
        """Looks for a journal; returns whether the target was empty when its restore began."""
        with self.handles.lease("") as root_fd:
            found = find_journal(root_fd, self._names, read_only=read_only)
            if found is not None and not self._adopt(found):
                self._superseded = found
            fresh = is_empty(root_fd)
        if self._journal_file is not None:
            return self.journal.overwrite == "refuse"
        self.occupied = not fresh and self._overwrite == "refuse"
        return fresh

    def _adopt(self, found: JournalFile) -> bool:
        """Whether this restore continues the restore of the journal; if not, this restore writes over the other.

        Raises:
            UsageError: the journal belongs to another restore, and the policy does not allow to write over its files.
        """
        old, new = found.journal, self.journal
        same = (old.snapshot_id, old.selection) == (new.snapshot_id, new.selection)
        if same and old.overwrite in ("refuse", self._overwrite):
            self.journal, self._journal_file = old, found
            self.traits = Traits(modes=is_unfinished(os.fstat(found.fd)))
            return True
        if self._overwrite == "always":
            return False
        found.close()
        other = "this snapshot with other options" if old.snapshot_id == new.snapshot_id else printable(old.snapshot_id)
        raise UsageError(
            f"{self.path}: holds an unfinished restore of {other}: give that command again to finish it, "
            "or --overwrite always to write over it"
        )


def check_creatable(path: str) -> Path:
    """Returns the innermost existing directory on the way to `path`, which does not exist yet.

    Raises:
        UsageError: a file stands on the way.
        OSError: this user cannot create anything in that directory, or the file system is read-only.
    """
    parent = Path(path).absolute()
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise _no_directory(path)
    if os.statvfs(parent).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(parent))
    if not os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))
    return parent


def _no_directory(path: str) -> UsageError:
    return UsageError(f"{path}: exists and is not a directory")


def is_empty(directory: str | int) -> bool:
    """Whether a directory (path or descriptor) is empty, apart from a volume's own lost+found.

    Raises:
        OSError: the directory cannot be listed.
    """
    with os.scandir(directory) as listing:
        return all(item.name == LOST_AND_FOUND and item.is_dir(follow_symlinks=False) for item in listing)
