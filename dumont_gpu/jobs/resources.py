"""How many threads and buffers a job uses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.limits import core_limits, memory_limits, open_files
from dumont_gpu.sizes import MiB

DEFAULT_MEMORY: Final = 512 * MiB  # four chunks read and four chunks stored at the default chunk size
_SHARE: Final = 4  # the part of the memory that is left which buffers take: others need some, and so does the manifest
_THREAD_MEMORY: Final = 64 * MiB  # its stack, the allocator's arena for it, what libraries keep for it
_THREAD_FILES: Final = 8  # descriptors: a thread has two open at most, the directories on the way to them are others


def default_jobs(root: Path = Path("/")) -> int:
    """One thread per core that this process may use, as far as there are memory and descriptors for that many."""
    cores = math.ceil(core_limits(root)[-1].value)
    memory = memory_limits(root)
    threads = int(memory[-1].left) // _SHARE // _THREAD_MEMORY if memory else cores
    return max(1, min(cores, threads, int(open_files().value) // _THREAD_FILES))


def thread_count(jobs: int) -> int:
    """Returns the threads that a job uses; `jobs` 0: as `default_jobs` says."""
    return jobs or default_jobs()


def default_memory(needed: int = 0, root: Path = Path("/")) -> int:
    """Bytes for chunk buffers: DEFAULT_MEMORY, or a quarter of what is left where that is less, but `needed` if it can.

    Args:
        needed: with less there would be no job at all.
    """
    limits = memory_limits(root)
    share = int(limits[-1].left) // _SHARE if limits else DEFAULT_MEMORY
    return min(DEFAULT_MEMORY, max(needed, share))


def chunk_pairs(memory: int, chunk_size: int, jobs: int, others: int = 1, buffers: int = 2) -> int:
    """Returns how many chunks may be in memory at once, each as original and as stored bytes.

    One per job and `others` that are read or written meanwhile: more would only be more fresh pages, which cost 0.5 s
    per GiB.

    Args:
        memory: bytes for all of them; 0: as `default_memory` says.
        buffers: how many a chunk takes.

    Raises:
        UsageError: not even one fits.
    """
    needed = buffers * chunk_size
    pairs = (memory or default_memory(needed)) // needed
    if not pairs:
        raise UsageError(f"this snapshot needs --memory of at least {needed // MiB + 1}MiB")
    return min(pairs, jobs + others)
