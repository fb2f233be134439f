"""Measures a disk for `doctor --disk`: a large file, and many small ones."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from dumont_gpu.backends.requirements import Finding
from dumont_gpu.errors import DumontError
from dumont_gpu.sizes import MiB

_PIECE: Final = 8 * MiB
_PIECES: Final = 32  # 256 MiB: more than a disk's own cache holds
_FILES: Final = 2000


def measure_disk(folder: str) -> Finding:
    """Writes 256 MiB and 2,000 small files below a folder, reads the former back, and leaves nothing there.

    Raises:
        DumontError: the folder cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".dumont-disk-", dir=folder) as scratch:
            writes, reads = _large(Path(scratch))
            files = _small(Path(scratch))
    except OSError as error:
        raise DumontError(f"{folder}: {error.strerror or error}") from None
    size = _PIECE * _PIECES / MiB
    text = f"writes {size / writes:,.0f} MiB/s, reads {size / reads:,.0f} MiB/s, makes {_FILES / files:,.0f} files/s"
    return Finding("Disk", True, f"{folder}: {text}")


def _large(scratch: Path) -> tuple[float, float]:
    """Returns the seconds that it takes to write a file until it is on the disk, and to read it from there."""
    content = random.Random(1).randbytes(_PIECE)  # zeros would look fast on a file system that compresses
    path = scratch / "large"
    started = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(_PIECES):
            file.write(content)
        os.fsync(file.fileno())
        written = time.monotonic()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or memory would be read, not the disk
    began = time.monotonic()
    buffer = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return written - started, time.monotonic() - began


def _small(scratch: Path) -> float:
    started = time.monotonic()
    for number in range(_FILES):
        (scratch / str(number)).write_bytes(b"small")
    os.sync()
    return time.monotonic() - started
