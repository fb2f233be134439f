"""The contract of a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dumont_gpu.codecs import Codec


@dataclass(frozen=True, slots=True)
class DigestCheck:
    """How the encoded bytes of a chunk are checked.

    Args:
        blake3: the digest that they must have, so that a device can check them; None: only the CPU can.
        on_cpu: raises DamagedError unless the bytes are right. It may fetch them again before. It alone decides: a
            device that finds another digest may be the one that is wrong.
    """

    blake3: bytes | None
    on_cpu: Callable[[], None]


class Backend(Protocol):
    """Where codecs run. Called from several threads at once."""

    @property
    def name(self) -> str:
        """ "cpu" or "cuda:N", with a remark if a user should know more."""

    @property
    def extra_threads(self) -> int:
        """How many chunks the backend can work on at once, beside those of the CPU's threads."""

    def prepare(self, chunk_size: int, *, encode: bool = False, decode: bool = False) -> None:
        """Called once, before the first chunk; no chunk will have more than `chunk_size` raw bytes."""

    def pin(self, memory: memoryview) -> None:
        """Called for each buffer that will hold chunks; the buffer stays until `close`. Never fails."""

    def close(self) -> None:
        """Releases all that the backend holds; called once, while no other call runs."""

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        """Writes the encoded chunk to `out` and returns its size, or 0 if the encoded chunk does not fit in `out`.

        Args:
            digest: becomes BLAKE3 of the encoded chunk if a device encoded it, or else empty: the caller hashes.
        """

    def decode(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> None:
        """Fills `out` with the raw bytes of a chunk.

        Args:
            check: how the encoded bytes are checked; None: they have been.

        Raises:
            DamagedError: the encoded bytes are not those that were packed, or malformed; `out` is worthless.
        """
