"""Finds the extents that are in a target already: each extent is read back and checked against its digest.

A chunk counts as done exactly if all its bytes are in their files, whatever happened in the meantime: a kill, a power
loss, a file changed or deleted. No byte that is there is fetched again, and no wrong byte is kept. An extent that was
never written costs next to nothing, because a hole need not be read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.format.digests import Digest
from dumont_gpu.format.entries import Extent, FileEntry
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.sizes import MiB
from dumont_gpu.tree.target.leftovers import Fingerprint, Kind, Leftover, Leftovers
from dumont_gpu.tree.target.messages import changed

_BATCH_SIZE: Final = 16 * MiB  # bytes of extents that a thread takes at a time
_BATCH_EXTENTS: Final = 1000


@dataclass(slots=True)
class Remaining:
    """How a restore continues the files of an interrupted run."""

    todo: dict[str, FileEntry] = field(default_factory=dict)  # path -> the file, with the extents still to be written
    begun: dict[str, Leftover] = field(default_factory=dict)  # path -> the unfinished file that gets these extents
    complete: dict[str, Fingerprint] = field(default_factory=dict)  # path of a complete file -> its fingerprint


class _Claim(NamedTuple):
    """An extent that an earlier run may have written."""

    entry: FileEntry
    leftover: Leftover
    extent: Extent
    found: set[Extent]  # the file's extents that are there, so far


def remaining(files: Sequence[FileEntry], checker: Checker, foreign: Container[str], target: str) -> Remaining:
    """Returns the extents still to be written of `files`, which an interrupted run of this restore may have begun.

    Args:
        files: the files that this restore wants in the target.
        checker: reads the target's files.
        foreign: paths of files that another program may have changed.
        target: the target's path, for messages.

    Raises:
        UsageError: a file was changed after the interruption, and the overwrite policy does not replace it.
        DumontError: the target cannot be read.
    """
    leftovers = {entry.path: checker.leftovers.find(entry) for entry in files}
    found = checker.find(files, leftovers)
    rest = Remaining()
    identities: set[tuple[int, int]] = set()  # of unfinished files that are continued
    for entry in files:
        path, leftover = entry.path, leftovers[entry.path]
        missing = tuple(extent for extent in entry.extents if extent not in found[path])
        if path in foreign and (leftover is None or (leftover.kind is Kind.OTHER and missing)):
            raise changed(target, path)
        if leftover is not None and leftover.kind is Kind.COMPLETE and not missing:
            rest.complete[path] = leftover.fingerprint
        elif leftover is not None and leftover.kind is Kind.UNFINISHED and leftover.identity not in identities:
            # On a file system that ignores case, two names may lead to the same file: only the first is continued.
            identities.add(leftover.identity)
            rest.begun[path] = leftover
            rest.todo[path] = entry._replace(extents=missing)
        else:
            rest.todo[path] = entry
    return rest


def altered(files: Sequence[FileEntry], checker: Checker) -> set[str]:
    """Returns the paths of the files whose content in the target differs from the snapshot's.

    Args:
        files: files that stand in the target with the right size and time.
        checker: reads the target's files.

    Raises:
        DumontError, OSError: the target cannot be read.
    """
    standing = {entry.path: checker.leftovers.standing(entry) for entry in files}
    found = checker.find(files, standing)
    return {
        entry.path
        for entry in files
        if len(found[entry.path]) < len(entry.extents)
        or not _holes_are_empty(entry, standing[entry.path], checker.leftovers)
    }


class Checker:
    """Reads extents of a target's files and compares them with their digests, in several threads.

    Args:
        leftovers: the files of the target.
        digest: the digest function of extents.
        threads: number of threads that read and check.
        memory: bytes for the extents being read; at least a single extent is always in memory.
        progress: called during the phase "check".
    """

    def __init__(
        self,
        leftovers: Leftovers,
        digest: Digest,
        threads: int,
        memory: int,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.leftovers = leftovers
        self.seconds: float | None = None  # busy time so far; None: nothing was checked
        self._digest, self._threads, self._memory, self._progress = digest, threads, memory, progress

    def find(self, files: Sequence[FileEntry], leftovers: Mapping[str, Leftover | None]) -> dict[str, set[Extent]]:
        """Returns, by path, the extents of each file that its leftover holds."""
        found: dict[str, set[Extent]] = {entry.path: set() for entry in files}
        claims = [
            _Claim(entry, leftover, extent, found[entry.path])
            for entry in files
            if (leftover := leftovers[entry.path]) is not None
            for extent in entry.extents
        ]
        meter = Meter(self._progress, "check", sum(claim.extent.length for claim in claims), len(claims))
        largest = max((claim.extent.length for claim in claims), default=1)
        threads = max(1, min(self._threads, self._memory // largest))
        pool = BufferPool(threads, largest)

        def check(item: tuple[list[_Claim], Buffer]) -> None:
            batch, buffer = item
            _check(batch, self.leftovers, self._digest, buffer.view)
            buffer.release()
            for claim in batch:
                meter.add(claim.extent.length)

        pipeline = Pipeline(pool)
        pipeline.stage("check", check, with_buffers(_batches(claims), pool), threads=threads)
        pipeline.run()
        self.seconds = (self.seconds or 0.0) + pipeline.seconds["check"]
        return found


def _batches(claims: Iterable[_Claim]) -> Iterator[list[_Claim]]:
    batch: list[_Claim] = []
    size = 0
    for claim in claims:
        batch.append(claim)
        size += claim.extent.length
        if size >= _BATCH_SIZE or len(batch) == _BATCH_EXTENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(batch: Sequence[_Claim], leftovers: Leftovers, digest: Digest, buffer: memoryview) -> None:
    """Adds the extents that are in their files to each claim's `found`."""
    opened: FileEntry | None = None
    fd: int | None = None
    try:
        for entry, leftover, extent, found in batch:
            if entry is not opened:
                if fd is not None:
                    done, fd = fd, None  # a second close could hit another thread's descriptor of that number
                    os.close(done)
                fd, opened = leftovers.open(entry, leftover), entry
            if fd is None or (leftover.kind is Kind.UNFINISHED and _is_hole(fd, extent.file_offset)):
                continue
            content = buffer[: extent.length]
            if read_at(fd, extent.file_offset, content) == extent.length and digest(content) == extent.digest:
                found.add(extent)
    finally:
        if fd is not None:
            os.close(fd)


def _is_hole(fd: int, offset: int) -> bool:
    """Whether nothing was ever written at `offset`."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) > offset
    except OSError as error:
        return error.errno == errno.ENXIO  # a hole up to the end of the file


def _holes_are_empty(entry: FileEntry, standing: Leftover | None, leftovers: Leftovers) -> bool:
    """Whether the file exists, with zeros wherever no extent covers its bytes."""
    ends = [0, *(extent.file_end for extent in entry.extents)]
    holes = zip(ends, (*(extent.file_offset for extent in entry.extents), entry.size), strict=True)
    gaps = [(begin, end) for begin, end in holes if begin < end]
    if not gaps:
        return standing is not None
    fd = None if standing is None else leftovers.open(entry, standing)
    if fd is None:
        return False
    try:
        return all(_is_zero(fd, begin, end) for begin, end in gaps)
    finally:
        os.close(fd)


def _is_zero(fd: int, begin: int, end: int) -> bool:
    while begin < end:
        try:
            begin = max(begin, os.lseek(fd, begin, os.SEEK_DATA))
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end of the file
                return True
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # this file system reports no holes
                raise
        piece = os.pread(fd, min(MiB, max(0, end - begin)), begin)
        if piece != bytes(len(piece)):
            return False
        if not piece:
            break
        begin += len(piece)
    return True
