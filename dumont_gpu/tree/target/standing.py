"""Compares what stands in a target with the entries that a restore would bring there, and changes nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.messages import located
from dumont_gpu.tree.target.options import OVERWRITE_CHOICES
from dumont_gpu.tree.target.refusals import is_refusal
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.unfinished import is_unfinished

_IN_THE_WAY: Final = (errno.ELOOP, errno.ENOTDIR, errno.EACCES)  # on the way to the entry, not under its name
_NAMED: Final = 3  # paths of each kind that a message names


@dataclass(slots=True)
class Standing:
    """How the entries of a snapshot stand in a target: each path is in one of the lists."""

    same: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)  # files and links that would be written over
    blocked: list[str] = field(default_factory=list)  # a directory stands where a file belongs, or the reverse
    missing: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether a restore would find every entry there already."""
        return not (self.differing or self.blocked or self.missing)


def status_at(target: Target, entry: FileEntry) -> os.stat_result | None:
    """Returns the status of what stands under an entry's name; None if nothing does, or can.

    Raises:
        OSError: the target cannot be read; the message names the entry.
    """
    folder, name = split(entry.path)
    try:
        return target.access.attempt(folder, lambda parent: os.stat(name, dir_fd=parent, follow_symlinks=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        if is_refusal(error):  # no file of this name can exist here
            return None
        raise located(error, target.path, entry.path) from error


def link_at(target: Target, path: str) -> str:
    """Returns where the symlink at `path` leads."""
    folder, name = split(path)
    return target.access.attempt(folder, lambda parent: os.readlink(name, dir_fd=parent))


def compare(target: Target, entries: Iterable[FileEntry], *, owner: bool) -> Standing:
    """Compares a target with `entries`, in path order: types, sizes and times of files, what links lead to.

    Modes, and times of directories, do not count: whoever works in a tree changes them.

    Args:
        owner: whether user and group count.

    Raises:
        OSError: the target cannot be read.
    """
    standing = Standing()
    identities: dict[str, tuple[int, int]] = {}  # path of a file -> device and inode, for its hard links
    changes_modes, target.access.read_only = not target.access.read_only, True
    try:
        for entry in entries:
            _group(standing, target, entry, identities, owner=owner).append(entry.path)
    finally:
        target.access.read_only = not changes_modes
    return standing


def _group(
    standing: Standing, target: Target, entry: FileEntry, identities: dict[str, tuple[int, int]], *, owner: bool
) -> list[str]:
    """Returns the list of `standing` that an entry belongs to."""
    try:
        status = status_at(target, entry)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        return standing.blocked
    if status is None:
        return standing.missing
    if stat.S_ISDIR(status.st_mode) != (entry.type is EntryType.DIR):
        return standing.blocked
    identity = status.st_dev, status.st_ino
    if entry.type is EntryType.FILE:
        identities[entry.path] = identity
        same = is_same_file(entry, status)
    elif entry.type is EntryType.HARDLINK:
        same = identities.get(entry.target) == identity
    elif entry.type is EntryType.SYMLINK:
        same = stat.S_ISLNK(status.st_mode) and link_at(target, entry.path) == entry.target
    else:
        same = True
    if owner and entry.owner is not None:
        same = same and (status.st_uid, status.st_gid) == entry.owner
    return standing.same if same else standing.differing


def is_same_file(entry: FileEntry, status: os.stat_result) -> bool:
    """Whether a regular file has an entry's size and time, and no restore has only begun it."""
    same = (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
    return stat.S_ISREG(status.st_mode) and same and not is_unfinished(status)


def refused(target: Target, standing: Standing) -> UsageError:
    """Returns the error for a target that is neither empty nor complete: what a restore would do there."""
    clauses = [
        _clause("write over", standing.differing, "file or link", "files and links"),
        _clause("add", standing.missing, "entry", "entries"),
        f"keep {len(standing.same):,} that {'is' if len(standing.same) == 1 else 'are'} the same" * bool(standing.same),
        _clause("stop at", standing.blocked, "entry of another type", "entries of another type"),
    ]
    *first, last = filter(None, clauses)
    would = f"{', '.join(first)} and {last}" if first else last
    return UsageError(
        f"{target.path}: is not empty: --overwrite always would {would}; choose another directory or "
        f"--overwrite {'|'.join(OVERWRITE_CHOICES)}"
    )


def _clause(verb: str, paths: Sequence[str], one: str, many: str) -> str:
    if not paths:
        return ""
    more = ", …" if len(paths) > _NAMED else ""
    return f"{verb} {counted(len(paths), one, many)} ({', '.join(map(printable, paths[:_NAMED]))}{more})"
