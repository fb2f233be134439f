"""How many threads and chunk buffers a job uses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.options import DEFAULT_MEMORY
from dumont_gpu.limits import core_limits, memory_limits, open_files
from dumont_gpu.sizes import MiB

_SHARE: Final = 4  # buffers take a quarter of the memory that is left: other programs and the manifest need the rest
_THREAD_MEMORY: Final = 64 * MiB  # a thread's stack, its arena of the allocator, and memory that libraries keep for it
_THREAD_FILES: Final = 8  # descriptors: two files that a thread has open, and the directories on the way to them


def default_threads(root: Path = Path("/")) -> int:
    """Returns the number of threads: one per core that this process may use, fewer where memory or descriptors ask."""
    cores = math.ceil(core_limits(root)[-1].value)
    memory = memory_limits(root)
    threads = int(memory[-1].left) // _SHARE // _THREAD_MEMORY if memory else cores
    return max(1, min(cores, threads, int(open_files().value) // _THREAD_FILES))


def thread_count(jobs: int) -> int:
    """Returns the threads that a job uses; `jobs` 0: as `default_threads` says."""
    return jobs or default_threads()


def default_memory(needed: int = 0, root: Path = Path("/"), *, contexts: int = 0) -> int:
    """Returns the bytes for chunk buffers: DEFAULT_MEMORY, or a quarter of the memory that is left if that is less.

    Args:
        needed: the fewest bytes that a job can do with: a small quarter is raised to them.
        contexts: of encoders, in bytes, which DEFAULT_MEMORY does not count.
    """
    limits, most = memory_limits(root), DEFAULT_MEMORY + contexts
    share = int(limits[-1].left) // _SHARE if limits else most
    return min(most, max(needed, share))


def chunk_pairs(memory: int, chunk_size: int, threads: int, others: int = 1, buffers: int = 2, context: int = 0) -> int:
    """Returns how many chunks may be in memory at once, each as raw and as encoded bytes.

    One chunk per thread, and `others` that are read or written meanwhile: more chunks would only take more fresh pages,
    which cost 0.5 s per GiB.

    Args:
        memory: bytes for all chunks; 0: as `default_memory` says.
        chunk_size: raw bytes of the largest chunk.
        threads: that encode, or check and decode.
        others: chunks that are read or written meanwhile.
        buffers: how many a chunk takes.
        context: bytes that an encoder takes while it runs, one in each thread.

    Raises:
        UsageError: not even one chunk fits.
    """
    alone = buffers * chunk_size
    needed = alone + context
    memory = memory or default_memory(needed, contexts=threads * context)
    encoding = min(threads, memory // needed)
    if not encoding:
        raise UsageError(f"this snapshot needs --memory of at least {needed // MiB + 1}MiB")
    if encoding < threads:
        return encoding
    return threads + min(others, (memory - threads * needed) // alone)
