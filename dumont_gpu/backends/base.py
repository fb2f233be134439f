"""What a backend is."""

from __future__ import annotations

from typing import Protocol

from dumont_gpu.codecs import Codec


class Backend(Protocol):
    """Where codecs run. Called from several threads at once."""

    @property
    def name(self) -> str:
        """ "cpu", or "cuda:N", and what is to be said of it."""

    @property
    def extra_jobs(self) -> int:
        """How many more chunks than those of the CPU's threads it can work on at once."""

    def prepare(self, chunk_size: int, *, encode: bool = False, decode: bool = False) -> None:
        """Called once, before any chunk: what will be asked for; none has more than `chunk_size` original bytes."""

    def pin(self, memory: memoryview) -> None:
        """Called for each buffer that chunks will come and go in; it stays until `close`. Never fails."""

    def close(self) -> None:
        """Gives back what the backend holds; called once, when no other call is running."""

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        """Writes the encoded chunk to `out` and returns its size, or 0 if it does not fit there."""

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        """Fills `out` with the original bytes of a chunk whose stored bytes have been checked.

        Raises:
            DamagedError: the stored bytes are malformed.
        """
