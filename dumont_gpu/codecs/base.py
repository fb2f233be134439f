"""What a codec is."""

from __future__ import annotations

from typing import Protocol


class Codec(Protocol):
    """Turns one chunk into fewer bytes, and back.

    Codecs hold no state and are called from many threads at once; inputs are never modified. On the CPU they are the
    oracle for the device kernels.
    """

    @property
    def id(self) -> int:
        """The compressor_id on disk: never reused for anything else."""

    @property
    def name(self) -> str:
        """What people call it."""

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        """Writes the encoded chunk to `out` and returns its size, or 0 if it does not fit there."""

    def decode(self, stored: memoryview, out: memoryview) -> None:
        """Fills `out`, whose size is the chunk's original size, exactly.

        Raises:
            DamagedError: the stored bytes are malformed or stand for another number of bytes.
        """
