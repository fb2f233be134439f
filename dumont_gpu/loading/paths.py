"""What is at a path of a snapshot as fsspec's users know it: its fields, and the errors of an operating system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from dumont_gpu.errors import SnapshotNotFoundError, UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.tree import FORMATS, Node

_TYPES: Final = {EntryType.FILE: "file", EntryType.DIR: "directory", EntryType.SYMLINK: "link"}
_SECOND: Final = 1_000_000_000  # nanoseconds


@contextmanager
def not_found(path: str) -> Iterator[None]:
    """Makes a path that is not in the snapshot the error that every user of file systems expects."""
    try:
        yield
    except SnapshotNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def node_at(files: SnapshotFiles, path: str) -> Node:
    """Returns what stands at a path, itself; the directory that holds it may be reached through links."""
    folder, _, name = path.rpartition("/")
    with not_found(path):
        parent = files.followed(folder)
        node = files.tree.node(name if parent is None else f"{parent.path}/{name}")
        if node is None:
            raise SnapshotNotFoundError
        return node


def info_of(name: str, node: Node, files: SnapshotFiles, *, enter: bool = False) -> dict[str, Any]:
    """Returns what fsspec says of an entry; `enter`: of what a link to a directory leads to."""
    entry, more = node.entry, {}
    if entry.type is EntryType.SYMLINK:
        more = {"islink": True, "destination": entry.target}
        entry = _behind(entry, files, enter=enter)
    if entry.owner is not None:
        more["uid"], more["gid"] = entry.owner
    return {
        "name": name,
        "size": entry.size,
        "type": _TYPES[entry.type],
        "mode": FORMATS[entry.type] | entry.mode,
        "mtime": entry.mtime_ns / _SECOND,
        **more,
    }


def _behind(link: FileEntry, files: SnapshotFiles, *, enter: bool) -> FileEntry:
    """Returns what a link leads to; the link itself, if that is nothing, outside, or a directory and not to `enter`."""
    try:
        found = files.followed(link.path)
    except (SnapshotNotFoundError, UsageError):
        return link
    if found is not None and found.type is EntryType.FILE:
        return found
    return (found or files.tree.root) if enter else link


def name_below(folder: str, node: Node) -> str:
    name = node.entry.path.rpartition("/")[2]
    return f"{folder}/{name}" if folder else name


def file_at(files: SnapshotFiles, path: str) -> FileEntry:
    """Returns the file that a path leads to.

    Raises:
        FileNotFoundError, IsADirectoryError: there is none.
        UsageError: a link leads out of the snapshot, or in a circle.
    """
    with not_found(path):
        entry = files.followed(path)
    if entry is None or entry.type is not EntryType.FILE:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return entry
