"""Finds out what of a snapshot is in a target already: every extent is read back and checked against its digest.

So a chunk counts as done exactly if all its bytes are in their files, whatever happened since: a kill, a power loss, a
file that was changed or deleted. Nothing is fetched again that is there, and nothing that is wrong is kept. What was
never written costs next to nothing: it is a hole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.format.digests import Digest
from dumont_gpu.format.entries import Extent, FileEntry
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.sizes import MiB
from dumont_gpu.tree.target.leftovers import Kind, Leftover
from dumont_gpu.tree.target.place import TreeWriter

_BATCH: Final = 16 * MiB  # of extents that a thread takes at a time: many small ones, or one
_MAX_BATCH: Final = 1000  # extents


class _Claim(NamedTuple):
    """An extent that may have been written."""

    entry: FileEntry
    leftover: Leftover
    extent: Extent
    found: set[Extent]  # of this file, so far


def remaining(
    files: Sequence[FileEntry],
    writer: TreeWriter,
    digest: Digest,
    jobs: int,
    memory: int,
    progress: ProgressCallback | None = None,
) -> tuple[list[FileEntry], float]:
    """Returns what is still to be written of `files`, each with the extents it lacks, and the busy seconds it took.

    Args:
        files: what this restore wants to have in the target.
        writer: the target.
        digest: of extents.
        jobs: threads that read and check.
        memory: bytes for what they read; one extent is always in memory.
        progress: told of the phase "check".

    Raises:
        UsageError: a file was changed since, and the restore was not told to replace it.
        DumontError: the target cannot be read.
    """
    leftovers = {entry.path: writer.leftover(entry) for entry in files}
    found, seconds = _find(files, leftovers, writer, digest, jobs, memory, progress)
    rests = []
    for entry in files:
        missing = [extent for extent in entry.extents if extent not in found[entry.path]]
        rest = writer.adopt(entry, leftovers[entry.path], missing)
        if rest is not None:
            rests.append(rest)
    return rests, seconds


def altered(
    files: Sequence[FileEntry],
    writer: TreeWriter,
    digest: Digest,
    jobs: int,
    memory: int,
    progress: ProgressCallback | None = None,
) -> tuple[set[str], float]:
    """Returns the paths of those `files` whose content in the target is not the snapshot's, and the busy seconds.

    Args:
        files: what stands in the target under these names, and looks right by size and time.

    The others, and what is raised, are as for `remaining`.
    """
    standing = {entry.path: writer.standing(entry) for entry in files}
    found, seconds = _find(files, standing, writer, digest, jobs, memory, progress)
    wrong = {
        entry.path
        for entry in files
        if len(found[entry.path]) < len(entry.extents) or not _holes_are_empty(entry, standing[entry.path], writer)
    }
    return wrong, seconds


def _find(
    files: Sequence[FileEntry],
    leftovers: Mapping[str, Leftover | None],
    writer: TreeWriter,
    digest: Digest,
    jobs: int,
    memory: int,
    progress: ProgressCallback | None,
) -> tuple[dict[str, set[Extent]], float]:
    """Returns which extents of each file are in the target, by path, and the busy seconds it took to find out."""
    found: dict[str, set[Extent]] = {entry.path: set() for entry in files}
    claims = [
        _Claim(entry, leftover, extent, found[entry.path])
        for entry in files
        if (leftover := leftovers[entry.path]) is not None
        for extent in entry.extents
    ]
    meter = Meter(progress, "check", sum(claim.extent.length for claim in claims), len(claims))
    largest = max((claim.extent.length for claim in claims), default=1)
    threads = max(1, min(jobs, memory // largest))
    pool = BufferPool(threads, largest)

    def check(item: tuple[list[_Claim], Buffer]) -> None:
        batch, buffer = item
        _check(batch, writer, digest, buffer.view)
        buffer.release()
        for claim in batch:
            meter.add(claim.extent.length)

    pipeline = Pipeline(pool)
    pipeline.stage("check", check, with_buffers(_batches(claims), pool), threads=threads)
    pipeline.run()
    return found, pipeline.seconds["check"]


def _batches(claims: Iterable[_Claim]) -> Iterator[list[_Claim]]:
    batch: list[_Claim] = []
    size = 0
    for claim in claims:
        batch.append(claim)
        size += claim.extent.length
        if size >= _BATCH or len(batch) == _MAX_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(batch: Sequence[_Claim], writer: TreeWriter, digest: Digest, buffer: memoryview) -> None:
    """Adds those extents to their files' `found` that are there."""
    opened: FileEntry | None = None
    fd: int | None = None
    try:
        for entry, leftover, extent, found in batch:
            if entry is not opened:
                if fd is not None:
                    done, fd = fd, None  # never closed twice: it might be another thread's by then
                    os.close(done)
                fd, opened = writer.open_leftover(entry, leftover), entry
            if fd is None or (leftover.kind is Kind.UNFINISHED and _is_hole(fd, extent.file_offset)):
                continue
            content = buffer[: extent.length]
            if read_at(fd, extent.file_offset, content) == extent.length and digest(content) == extent.digest:
                found.add(extent)
    finally:
        if fd is not None:
            os.close(fd)


def _is_hole(fd: int, offset: int) -> bool:
    """Whether nothing was ever written there."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) > offset
    except OSError as error:
        return error.errno == errno.ENXIO  # a hole up to the end of the file


def _holes_are_empty(entry: FileEntry, standing: Leftover | None, writer: TreeWriter) -> bool:
    """Whether the bytes that no extent covers are zeros."""
    ends = [0, *(extent.file_end for extent in entry.extents)]
    holes = zip(ends, (*(extent.file_offset for extent in entry.extents), entry.size), strict=True)
    gaps = [(begin, end) for begin, end in holes if begin < end]
    if not gaps:
        return standing is not None
    fd = None if standing is None else writer.open_leftover(entry, standing)
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
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # no holes to be told of here
                raise
        piece = os.pread(fd, min(MiB, max(0, end - begin)), begin)
        if piece != bytes(len(piece)):
            return False
        if not piece:
            break
        begin += len(piece)
    return True
