"""The bytes of a tar from a file or a pipe: decompressed, forward, and never much at once."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from dumont_gpu.errors import DamagedError, DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.sizes import MiB
from dumont_gpu.storage import STANDARD_STREAM


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


PIECE: Final = 1 * MiB
MOST_OF_HEADERS: Final = 16 * MiB  # before an entry: no names need more, and hostile ones declare terabytes
BAD_STREAMS: Final = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, ArithmeticError)
_GZIP: Final = b"\x1f\x8b"
_OPENERS: Final[dict[bytes, Callable[[BinaryIO], _Stream]]] = {
    _GZIP: lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}


@contextlib.contextmanager
def opened_tar(location: str, name: str) -> Iterator[BinaryIO]:
    """Opens a tar at a path, or standard input at "-"; `name` is for messages.

    Raises:
        UsageError: standard input is a terminal.
        SnapshotNotFoundError: nothing is at `location`.
        DumontError: it cannot be opened.
    """
    if location == STANDARD_STREAM:
        if os.isatty(0):
            raise UsageError(f"{name} is a terminal: pipe a tar into this command, or name one")
        yield open(0, "rb", closefd=False)  # noqa: SIM115
        return
    try:
        file = Path(location).open("rb")  # noqa: SIM115
    except FileNotFoundError:
        raise SnapshotNotFoundError(f"{name}: no such tar") from None
    except OSError as error:
        raise DumontError(f"{name}: {error.strerror}") from None
    with file:
        yield file


def decompressed(raw: BinaryIO) -> _Stream:
    """Returns the bytes of a tar, whatever compressed them."""
    head = raw.peek(2)[:2]  # type: ignore[attr-defined]
    if head in _OPENERS:
        return _OPENERS[head](raw)
    return raw


class ForwardTar:
    """What tarfile reads from: it only goes forward, reads little at once, and remembers the last block."""

    mode = "rb"

    def __init__(self, stream: _Stream) -> None:
        self._stream, self._at, self.last = stream, 0, b""
        self.allowed = MOST_OF_HEADERS  # bytes that may be read before the next entry

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int) -> None:
        if offset < self._at:
            raise DamagedError("not a whole tar: parts of an entry are not in order")
        while self._at < offset and (skipped := len(self._read(min(PIECE, offset - self._at)))):
            self._at += skipped

    def read(self, size: int) -> bytes:
        if size > self.allowed:
            raise DamagedError(f"an entry with more than {MOST_OF_HEADERS} bytes of headers")
        self.allowed -= size
        self.last = self._read(size)
        self._at += len(self.last)
        return self.last

    def read_rest(self) -> None:
        """Reads to the end: whoever writes a tar into a pipe writes zeros after its end, too.

        Raises:
            DamagedError: more than zeros follow: another tar, or entries behind a header that was zeroed.
        """
        while piece := self._read(PIECE):
            if piece.count(0) != len(piece):
                raise DamagedError("something follows the end of the tar")

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        return data
