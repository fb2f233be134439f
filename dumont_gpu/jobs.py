"""How many threads and buffers a job uses."""

from __future__ import annotations

import os
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.format import MiB

DEFAULT_MEMORY: Final = 512 * MiB  # four chunks read and four chunks stored at the default chunk size


def default_jobs() -> int:
    """One thread per core that this process may use."""
    return len(os.sched_getaffinity(0))


def chunk_pairs(memory: int, chunk_size: int, jobs: int, others: int = 1) -> int:
    """Returns how many chunks may be in memory at once, each as original and as stored bytes.

    One per job and `others` that are read or written meanwhile: more would only be more fresh pages, which cost 0.5 s
    per GiB.

    Raises:
        UsageError: not even one fits.
    """
    pairs = memory // (2 * chunk_size)
    if not pairs:
        raise UsageError(f"this snapshot needs --memory of at least {2 * chunk_size // MiB + 1}MiB")
    return min(pairs, jobs + others)
