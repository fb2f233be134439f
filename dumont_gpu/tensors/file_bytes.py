"""Reads exact ranges of a file object, and none outside the file."""

from __future__ import annotations

from typing import BinaryIO

from dumont_gpu.tensors.faults import MalformedError


class FileBytes:
    """A seekable file of `size` bytes. Nothing is kept: the file object is the one that caches."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def read(self, start: int, count: int) -> bytes:
        """Returns exactly `count` bytes from the offset `start` on.

        Raises:
            MalformedError: they are not all in the file.
        """
        if start < 0 or count < 0 or count > self.size - start:
            raise MalformedError("the file ends before something that it points to")
        self.file.seek(start)
        data = self.file.read(count)
        while len(data) < count:
            more = self.file.read(count - len(data))
            if not more:
                raise MalformedError("the file has become shorter")
            data += more
        return data

    def head(self, start: int, limit: int) -> bytes:
        """Returns up to `limit` bytes from the offset `start` on: fewer where the file ends."""
        return self.read(start, max(0, min(limit, self.size - start)))
