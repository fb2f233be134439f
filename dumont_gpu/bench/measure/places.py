"""Finds places on a disk where files are created at full speed, run after run.

On ext4 without a journal, as many cloud machines have it, creating a file takes up to twenty times as long where files
were deleted within the last minutes: the inodes of deleted files are looked at and passed over one by one. So nothing
is deleted before the end, and every run gets the quickest of several new directories in different parts of the disk.
Memory has no such trouble: a place there is deleted when it is given back.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from dumont_gpu.bench.report.machine import file_system

LARGE = 64 << 10  # bytes; smaller files keep their space until the end
CANDIDATES = 6
TRIAL_FILES = 100
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_TOPDIR_FL = 0x00020000


class Places:
    """Hands out new directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._in_memory = file_system(root) == "tmpfs"
        _spread_directories(root)

    def new(self) -> Path:
        """Returns a directory that holds nothing but `trial`."""
        return min((self._candidate() for _ in range(CANDIDATES)), key=lambda found: found[0])[1]

    def give_back(self, place: Path) -> None:
        """Frees the space of large files below `place`; in memory, where that slows nothing down, deletes `place`."""
        if self._in_memory:
            _remove(place)
        else:
            _cut_large_files(place)

    def _candidate(self) -> tuple[float, Path]:
        place = self._root / token_hex(8)  # ext4 takes the part of the disk from the name
        trial = place / "trial"
        trial.mkdir(parents=True)
        start = time.perf_counter()
        for number in range(TRIAL_FILES):
            (trial / str(number)).touch()
        return time.perf_counter() - start, place


@contextmanager
def places(scratch: Path) -> Iterator[Places]:
    """Places below a new directory in `scratch`; all are deleted at the end."""
    root = Path(tempfile.mkdtemp(prefix="dumont-bench-", dir=scratch)).resolve()
    try:
        yield Places(root)
    finally:
        _remove(root)


def files_below(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yields everything below `root` that is not a directory."""
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry


def _cut_large_files(place: Path) -> None:
    """Cuts the large files of a place to nothing, which deletes no inode."""
    for entry in files_below(place):
        if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size >= LARGE:
            with contextlib.suppress(PermissionError):  # a read-only file: it waits for the end
                os.truncate(entry.path, 0)


def _remove(root: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwX", str(root)], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", str(root)], check=False)


def _spread_directories(root: Path) -> None:
    """Asks ext4 to place the directories in `root` far from each other; other file systems ignore or refuse it."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        flags = array.array("l", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
            flags[0] |= FS_TOPDIR_FL
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, flags)
    finally:
        os.close(descriptor)
