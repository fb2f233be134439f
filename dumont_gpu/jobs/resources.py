"""How many threads and chunk buffers a job uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.limits import core_limits, memory_limits, open_files
from dumont_gpu.sizes import MiB

_ROOT: Final = Path("/")
_SHARE: Final = 4  # buffers take a quarter of the memory that is left: other programs and the manifest need the rest
_THREAD_MEMORY: Final = 64 * MiB  # a thread's stack, its arena of the allocator, and memory that libraries keep for it
_THREAD_FILES: Final = 8  # descriptors: two files that a thread has open, and the directories on the way to them
_UNLIMITED: Final = 1 << 62  # bytes, where no limit is known
_MIN_WRITERS: Final = 2  # one thread writes while the other waits for the disk
_MAX_WRITERS: Final = 8  # more threads than that no file system serves faster


def default_threads(root: Path = _ROOT) -> int:
    """Returns the number of threads: one per core that this process may use, fewer where memory or descriptors ask."""
    cores = math.ceil(core_limits(root)[-1].value)
    memory = memory_limits(root)
    threads = int(memory[-1].left) // _SHARE // _THREAD_MEMORY if memory else cores
    return max(1, min(cores, threads, int(open_files().value) // _THREAD_FILES))


def thread_count(jobs: int) -> int:
    """Returns the threads that a job uses; `jobs` 0: as `default_threads` says."""
    return jobs or default_threads()


def writer_count(threads: int) -> int:
    """Returns how many threads write files while `threads` decode: into memory, one thread writes 2 to 3 GB/s."""
    return max(_MIN_WRITERS, min(_MAX_WRITERS, threads // 2))


def memory_share(root: Path = _ROOT) -> int:
    """Returns the bytes that chunk buffers may take, if nobody says more: a quarter of the memory that is left."""
    limits = memory_limits(root)
    return int(limits[-1].left) // _SHARE if limits else _UNLIMITED


@dataclass(frozen=True, slots=True)
class ChunkRoom:
    """The memory of a job's chunks: as many as its threads can use, and `memory` holds.

    One chunk per thread that encodes or decodes, and `others` that are read or written meanwhile: more chunks would
    only take more fresh pages, which cost 0.5 s per GiB.

    Args:
        memory: bytes for all chunks; 0: a quarter of the memory that is left, or what one chunk takes if that is more.
        chunk_size: raw bytes of the largest chunk.
        others: chunks that are read or written meanwhile.
        buffers: how many a chunk takes.
        context: bytes that an encoder takes while it runs, one in each thread.
    """

    memory: int
    chunk_size: int
    others: int = 1
    buffers: int = 2
    context: int = 0

    @classmethod
    def of_machine(
        cls, memory: int, chunk_size: int, *, others: int = 1, buffers: int = 2, context: int = 0, root: Path = _ROOT
    ) -> ChunkRoom:
        """Returns the room of a job that was told `memory`, 0 for the default: looks at the machine's limits, once."""
        memory = memory or max(buffers * chunk_size + context, memory_share(root))
        return cls(memory, chunk_size, others, buffers, context)

    def chunks(self, threads: int) -> int:
        """Returns how many chunks may be in memory at once while `threads` encode, or check and decode.

        Raises:
            UsageError: not even one chunk fits.
        """
        alone = self.buffers * self.chunk_size
        needed = alone + self.context
        encoding = min(threads, self.memory // needed)
        if not encoding:
            raise UsageError(f"this snapshot needs --memory of at least {needed // MiB + 1}MiB")
        if encoding < threads:
            return encoding
        return threads + min(self.others, (self.memory - threads * needed) // alone)

    def size(self, threads: int) -> int:
        """Returns the bytes that `chunks(threads)` take, with the encoders."""
        chunks = self.chunks(threads)
        return chunks * self.buffers * self.chunk_size + min(chunks, threads) * self.context
