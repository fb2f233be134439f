"""Tree entries and extents: what a manifest consists of."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MAX_FILE_SIZE: Final = (1 << 63) - 1
MAX_EXTENTS: Final = 100_000  # of one file; keeps its tree entry below the limit of a line
_MTIME_LIMIT: Final = 1 << 63
MIN_MTIME: Final = -_MTIME_LIMIT  # in September 1677
MAX_MTIME: Final = _MTIME_LIMIT - 1  # in April 2262


class EntryType(str, enum.Enum):
    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


class Extent(NamedTuple):  # like FileEntry: a tuple is made in half the time of a frozen dataclass
    """A run of a file's bytes inside one chunk. Offsets and length are bytes."""

    file_offset: int
    chunk: int
    chunk_offset: int
    length: int
    digest: bytes  # of these bytes

    @property
    def file_end(self) -> int:
        return self.file_offset + self.length


class FileEntry(NamedTuple):
    """One tree entry. Bytes of a file that no extent covers are zero: holes."""

    path: str
    type: EntryType
    mode: int = 0  # permission bits with setuid, setgid and sticky; 0 for links
    mtime_ns: int = 0
    size: int = 0
    extents: tuple[Extent, ...] = ()
    target: str = ""  # of a symlink: its text; of a hard link: the path of a file entry
    owner: tuple[int, int] | None = None  # uid, gid
    changed: bool = False  # the file changed while it was packed: its bytes may be of two moments

    @property
    def sort_key(self) -> bytes:
        return os.fsencode(self.path)


def with_new_leaders(entries: Iterable[FileEntry], files: Mapping[str, FileEntry]) -> list[FileEntry]:
    """Gives hard links whose file is not among `entries` a new file: the first of the links becomes that file.

    Args:
        entries: a selection, in path order.
        files: every file entry of the snapshot, by path.
    """
    leaders: dict[str, str] = {}  # path of the snapshot's file -> path of the selection's file
    result = []
    for entry in entries:
        if entry.type is EntryType.FILE:
            leaders[entry.path] = entry.path
        elif entry.type is EntryType.HARDLINK:
            leader = leaders.setdefault(entry.target, entry.path)
            entry = (
                files[entry.target]._replace(path=entry.path) if leader == entry.path else entry._replace(target=leader)
            )
        result.append(entry)
    return result


def clamp_mtime(mtime_ns: int) -> int:
    """Returns the nearest time that the format can express: a signed 64-bit number of nanoseconds."""
    return max(MIN_MTIME, min(mtime_ns, MAX_MTIME))
