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


def nobody_joins(threads: int) -> None:
    """For callers whose number of threads stays."""


class Backend(Protocol):
    """Where codecs run. Called from several threads at once."""

    @property
    def name(self) -> str:
        """ "cpu" or "cuda:N", with a remark if a user should know more; complete once the backend is closed."""

    @property
    def extra_threads(self) -> int:
        """How many chunks the backend can work on at once from the start, beside those of the CPU's threads."""

    def prepare(
        self,
        chunk_size: int,
        *,
        encode: bool = False,
        decode: bool = False,
        on_join: Callable[[int], None] = nobody_joins,
    ) -> None:
        """Called once, before the first chunk; no chunk will have more than `chunk_size` raw bytes.

        Args:
            on_join: called at most once, from a thread of the backend, when a device has joined: with the number of
                threads that should bring chunks beside those that do.
        """

    def expect(self, size: int) -> None:
        """Tells how many raw bytes the job is going to bring in all, of chunks that are `fit_for_devices`.

        A device is woken only for jobs that are large enough. What is expected may change as the job goes on.
        """

    def pin(self, memory: memoryview) -> None:
        """Called for each buffer that will hold chunks; the buffer stays until `close`. Never fails, never waits."""

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
