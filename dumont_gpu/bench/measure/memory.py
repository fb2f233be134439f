"""Memory before a timed run: buffers whose pages are there, files that lie in the page cache."""

from __future__ import annotations

import mmap
from pathlib import Path

from dumont_gpu.bench.measure.places import files_below
from dumont_gpu.sizes import MiB


def anonymous(size: int) -> memoryview:
    """Page-aligned memory, as the package's buffers are; its pages come when they are first touched."""
    return memoryview(mmap.mmap(-1, size))


def touched(size: int) -> memoryview:
    """Page-aligned memory whose pages are there."""
    memory = anonymous(size)
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1 + page % 251
    return memory


def warm(root: Path) -> None:
    """Reads a file, or every file below a directory, into the page cache (restic and borg drop files they read)."""
    buffer = bytearray(MiB)
    below = (Path(entry.path) for entry in files_below(root) if entry.is_file(follow_symlinks=False))
    for path in below if root.is_dir() else (root,):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
