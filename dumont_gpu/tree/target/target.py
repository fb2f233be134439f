"""The directory that a restore fills: whether the restore may fill it, and the journal that stands in it meanwhile."""

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
from dumont_gpu.tree.target.options import OVERWRITE_CHOICES, Overwrite
from dumont_gpu.tree.target.traits import Traits, traits_of
from dumont_gpu.tree.unfinished import is_unfinished

LOST_AND_FOUND: Final = "lost+found"  # every ext4 volume has one; a volume with nothing else is empty


class Target:
    """An open target directory, closed at the end of a `with` block. `handles` and `access` reach what is below it."""

    def __init__(
        self, path: str, journal: Journal, overwrite: Overwrite, names: Container[str], *, read_only: bool = False
    ) -> None:
        """Opens the directory at `path`, and creates it unless `read_only`.

        Args:
            journal: which snapshot, and which part of it.
            names: paths of entries that no journal may have.
            read_only: nothing is created, removed or changed.

        Raises:
            UsageError: the target is not empty, or what stands in it is the beginning of another restore.
            DumontError: another process is at work there.
            OSError: the directory cannot be opened.
        """
        self.path, self.journal = path, journal
        self._overwrite = overwrite
        self._names = frozenset(name for name in NAMES if name in names)
        self._journal_file: JournalFile | None = None
        self._superseded: JournalFile | None = None  # the journal of another restore, which this restore writes over
        self.traits = Traits()
        self.complete = False  # only the target's own time may still be missing
        try:
            if not read_only:
                with contextlib.suppress(FileExistsError):  # also said of a directory that could not be looked at
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
        self.follows_another = self.resumed or self._superseded is not None  # an earlier restore may have left files

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def begun(self) -> bool:
        """Whether the journal stands in the target, so that the same command continues."""
        return self._journal_file is not None

    def statvfs(self) -> os.statvfs_result:
        """Returns the state of the target's file system."""
        with self.handles.lease("") as root_fd:
            return os.fstatvfs(root_fd)

    def begin(self, *, kept: frozenset[int] | None, durable: bool) -> None:
        """Writes the journal of this restore, before anything else is written.

        Args:
            kept: indices of the entries that were there and stay as they are; None if the target was empty.
            durable: the journal outlives a power loss.
        """
        if kept is not None:
            self.journal = replace(self.journal, overwrite=self._overwrite, kept=kept)
        if self._journal_file is None:
            self._journal_file = self.access.attempt("", lambda root: self._begin(root, durable))
        fd, name = self._journal_file.fd, self._journal_file.name
        self.traits = self.access.attempt("", lambda root_fd: traits_of(fd, root_fd, name))

    def _begin(self, root_fd: int, durable: bool) -> JournalFile:
        begun = begin_journal(root_fd, self._names, self.journal, durable=durable)
        if self._superseded is not None:  # only now: one journal must always say that files may have been left behind
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
        if self._superseded is not None:  # runs that were killed while they began may have left more of them
            taken = self._names | ({own.name} if own is not None else set())
            while (other := find_journal(root_fd, taken)) is not None:
                other.remove(root_fd)
                other.close()
        if own is not None:
            own.remove(root_fd)

    def close(self) -> None:
        """Closes the descriptors. An incomplete tree stays for the next run."""
        if not self.complete:
            with contextlib.suppress(OSError):  # as far as possible: the error that ended the restore is on its way
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
        if not fresh and self._overwrite == "refuse":
            raise UsageError(
                f"{self.path}: is not empty; choose another directory or --overwrite {'|'.join(OVERWRITE_CHOICES)}"
            )
        return fresh

    def _adopt(self, found: JournalFile) -> bool:
        """Whether this restore continues the one of the journal; if not, it writes over that restore.

        Raises:
            UsageError: the journal is another restore's, and nothing allows this restore to write over it.
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
        what = "this snapshot with other options" if old.snapshot_id == new.snapshot_id else printable(old.snapshot_id)
        raise UsageError(
            f"{self.path}: holds an unfinished restore of {what}: give that command again to finish it, "
            "or --overwrite always to write over it"
        )


def check_creatable(path: str) -> Path:
    """Returns the innermost directory that exists on the way to `path`, where nothing stands yet.

    Raises:
        UsageError: it is no directory.
        OSError: this user cannot create anything there, or the file system is read-only.
    """
    place = Path(path).absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise _no_directory(path)
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(place))
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    return place


def _no_directory(path: str) -> UsageError:
    return UsageError(f"{path}: exists and is not a directory")


def is_empty(directory: str | int) -> bool:
    """Whether nothing is in a directory but, perhaps, a volume's own lost+found.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(directory) as listing:
        return all(item.name == LOST_AND_FOUND and item.is_dir(follow_symlinks=False) for item in listing)
