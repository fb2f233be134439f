"""Reads little-endian fields from a file, forward, through a window of bounded memory."""

from __future__ import annotations

import os
import struct
from typing import Final

from dumont_gpu.plan.tensors.tensor import UnsoundError
from dumont_gpu.sizes import KiB

_WINDOW: Final = 16 * KiB  # tables are read through it, and a little is read around each place that is jumped to
_U64: Final = struct.Struct("<Q")


class Cursor:
    """A place in a file of `size` bytes; every read moves the cursor behind what was read.

    `read`, `number` and the like raise UnsoundError where the file ends early, and OSError if it cannot be read.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self._fd = fd
        self._window, self._start, self._at = b"", 0, 0  # file bytes, their offset, the cursor within them

    @property
    def at(self) -> int:
        """Where the next read begins."""
        return self._start + self._at

    def move_to(self, offset: int) -> None:
        """Moves to a place in the file.

        Raises:
            UnsoundError: the place is outside the file.
        """
        if not 0 <= offset <= self.size:
            raise UnsoundError("an offset outside the file")
        if self._start <= offset <= self._start + len(self._window):
            self._at = offset - self._start
        else:
            self._window, self._start, self._at = b"", offset, 0

    def read(self, count: int) -> bytes:
        """Returns exactly `count` bytes."""
        self._need(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def number(self, width: int) -> int:
        """Returns an unsigned number of `width` bytes."""
        return int.from_bytes(self.read(width), "little")

    def varint(self) -> int:
        """Returns a number of protobuf: 7 bits a byte, the lowest first, in 10 bytes at most."""
        value = 0
        for shift in range(0, 70, 7):
            if self._at == len(self._window):
                self._need(1)
            byte = self._window[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF
        raise UnsoundError("a number of more than 10 bytes")

    def skip_strings(self, count: int, limit: int) -> None:
        """Moves behind `count` strings, each with its size in 8 bytes before it.

        Raises:
            UnsoundError: the strings do not end before the offset `limit`.
        """
        # A tokenizer has 400,000 strings: the loop is spelled out, because a call per string takes three times as long.
        for _ in range(count):
            if self._at + 8 > len(self._window):
                if self.at > limit:
                    break
                self._need(8)
            self._at += 8 + _U64.unpack_from(self._window, self._at)[0]
            if self._at > len(self._window):
                if self.at > limit:
                    break
                self.move_to(self.at)
        if self.at > limit:
            raise UnsoundError("strings that do not end")

    def _need(self, count: int) -> None:
        """Makes sure that the window holds the next `count` bytes."""
        if self._at + count <= len(self._window):
            return
        if count > self.size - self.at:
            raise UnsoundError("the file ends early")
        self._window, self._start, self._at = os.pread(self._fd, max(count, _WINDOW), self.at), self.at, 0
        if len(self._window) < count:
            raise UnsoundError("the file has become shorter")
