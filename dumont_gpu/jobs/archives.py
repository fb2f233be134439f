"""Writes the archives that other programs read: tar (pax) and zip (zip64), forward, an entry at a time."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.names import to_utf8

_SECOND: Final = 10**9  # nanoseconds
_TYPES: Final = {
    EntryType.FILE: tarfile.REGTYPE,
    EntryType.DIR: tarfile.DIRTYPE,
    EntryType.SYMLINK: tarfile.SYMTYPE,
    EntryType.HARDLINK: tarfile.LNKTYPE,
}
_KINDS: Final = {EntryType.DIR: stat.S_IFDIR, EntryType.SYMLINK: stat.S_IFLNK}
_ZIP_YEARS: Final = range(1980, 2108)  # of a time in MS-DOS
_UNIX_TIME: Final = struct.Struct("<HHBi")  # the extra field 0x5455: seconds since 1970, which unzip and Python keep
_MADE_BY_UNIX: Final = 3


class Archive(Protocol):
    """What an export writes to, entry by entry."""

    links: bool  # whether hard links are entries; else the file's bytes come again
    folders_last: bool  # directories come after what is in them, the deepest first

    def add(self, entry: FileEntry, content: Iterable[memoryview]) -> None:
        """Adds an entry; `content` is the bytes of a file, and of nothing else.

        Raises:
            ValueError: the archive cannot hold such an entry; the message says why.
        """

    def close(self) -> None:
        """Writes the end."""

    def abort(self) -> None:
        """Writes nothing more: what was begun stays without an end."""


class TarArchive:
    """POSIX tar with pax headers: nanoseconds, names of any length and any bytes, files of any size."""

    links = True
    folders_last = True  # GNU tar sets the time of a directory at once when it meets an entry outside of it

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write, self._size = write, 0

    def add(self, entry: FileEntry, content: Iterable[memoryview]) -> None:
        info = tarfile.TarInfo(to_utf8(entry.path))
        info.type, info.mode, info.linkname = _TYPES[entry.type], entry.mode, to_utf8(entry.target)
        if entry.type is EntryType.SYMLINK:
            info.mode = 0o777
        if entry.owner is not None:
            info.uid, info.gid = entry.owner
        info.mtime = entry.mtime_ns // _SECOND
        if entry.mtime_ns % _SECOND:
            sign, (seconds, rest) = "-" * (entry.mtime_ns < 0), divmod(abs(entry.mtime_ns), _SECOND)
            info.pax_headers = {"mtime": f"{sign}{seconds}.{rest:09d}"}
        info.size = entry.size
        self._put(memoryview(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")))
        if entry.type is EntryType.FILE:
            for piece in content:
                self._put(piece)
            self._pad(tarfile.BLOCKSIZE)

    def close(self) -> None:
        self._put(memoryview(bytes(2 * tarfile.BLOCKSIZE)))
        self._pad(tarfile.RECORDSIZE)

    def abort(self) -> None:
        pass

    def _put(self, data: memoryview) -> None:
        self._write(data)
        self._size += len(data)

    def _pad(self, size: int) -> None:
        self._put(memoryview(bytes(-self._size % size)))


class ZipArchive:
    """A zip of deflated files, which needs no seeking. Its table of entries stays in memory until the end."""

    links = False  # there are none in a zip
    folders_last = False

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._output = _Forward(write)
        self._zip = zipfile.ZipFile(self._output, "w", zipfile.ZIP_DEFLATED)

    def add(self, entry: FileEntry, content: Iterable[memoryview]) -> None:
        name = to_utf8(entry.path) + "/" * (entry.type is EntryType.DIR)
        try:
            data = to_utf8(entry.target).encode("utf-8", "surrogateescape")
            if len(name.encode()) > 0xFFFF:
                raise ValueError("a zip has no room for a path of that length")
        except UnicodeEncodeError:
            raise ValueError("a zip holds names in UTF-8 alone") from None
        seconds = entry.mtime_ns // _SECOND
        info = zipfile.ZipInfo(name, _dos_time(seconds))
        info.create_system = _MADE_BY_UNIX
        mode = _KINDS.get(entry.type, stat.S_IFREG) | (0o777 if entry.type is EntryType.SYMLINK else entry.mode)
        info.external_attr = mode << 16 | (0x10 if entry.type is EntryType.DIR else 0)
        if -(1 << 31) <= seconds < 1 << 31:
            info.extra = _UNIX_TIME.pack(0x5455, 5, 1, seconds)
        if entry.type is EntryType.FILE:
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, entry.size
            file = self._zip.open(info, "w", force_zip64=entry.size >= 1 << 31)
            for piece in content:
                file.write(piece)
            file.close()  # not after an error: half a file would get the sum of a whole one
        else:
            info.compress_type = zipfile.ZIP_STORED
            self._zip.writestr(info, data if entry.type is EntryType.SYMLINK else b"")

    def close(self) -> None:
        self._zip.close()

    def abort(self) -> None:
        self._output.is_over = True  # zipfile writes an end when its objects are collected, whenever that is


class _Forward(io.RawIOBase):
    """What zipfile writes to: it finds that it cannot seek here, and does without."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self.is_over = False  # what comes from now on is dropped

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if not self.is_over:
            self._write(view)
        return len(view)


def _dos_time(seconds: int) -> tuple[int, int, int, int, int, int]:
    """Returns the UTC time for a zip, the nearest if the year has none."""
    if seconds < 315532800:
        return _ZIP_YEARS[0], 1, 1, 0, 0, 0
    if seconds >= 4354819200:
        return _ZIP_YEARS[-1], 12, 31, 23, 59, 58
    moment = time.gmtime(seconds)
    return moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec
