"""The contract of a codec."""

from __future__ import annotations

from typing import Protocol


class Codec(Protocol):
    """Encodes one chunk into fewer bytes, and decodes it again.

    Codecs hold no state and are called from many threads at once; they never modify their input. `decode` on the CPU is
    the oracle for the device kernels. Equal codecs share chunks: the planner collects the ends of files for one codec
    in one chunk.
    """

    @property
    def id(self) -> int:
        """The compressor_id on disk: an id is never reused for another codec."""

    @property
    def name(self) -> str:
        """The name in reports and, for a codec of plain bytes, the value of `--method`."""

    @property
    def element_size(self) -> int:
        """Raw bytes of which every chunk holds a multiple; 1 for a codec of plain bytes."""

    @property
    def encode_rate(self) -> float:
        """About how many raw bytes one core encodes in a second: for the order of chunks, and a method's choice."""

    @property
    def decode_rate(self) -> float:
        """About how many raw bytes one core decodes in a second: for a method's choice."""

    def encoder_memory(self, size: int) -> int:
        """Returns the bytes that `encode` takes for a chunk of `size` raw bytes; 0 if they are less than a MiB."""

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        """Writes the encoded chunk to `out` and returns its size, or 0 if the encoded chunk does not fit in `out`."""

    def decode(self, encoded: memoryview, out: memoryview) -> None:
        """Fills `out`, whose size is the chunk's raw size, exactly.

        Raises:
            DamagedError: the encoded bytes are malformed, or decode to another number of bytes.
        """
