"""Finds the elements of each type in a file: from the file's own table of contents, or else from samples.

Nothing is unpickled or executed. A wrong answer costs size, never correctness.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from dumont_gpu.codecs import Codec
from dumont_gpu.plan.methods import SAMPLE_SIZE, Method, codec_for_dtype
from dumont_gpu.sizes import KiB, MiB

_SMALL_REGION: Final = 64 * KiB  # shorter regions join a neighbour: an extent and its digest cost more than they save
_MAX_WINDOWS: Final = 4096  # samples of one file: 256 MiB read at most
_WINDOW: Final = 1 * MiB
_MAX_SAFETENSORS_HEADER: Final = 100_000_000  # the limit of the safetensors library
_MAX_ZIP_MEMBERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Region:
    """File bytes from `start` to `end` that one codec suits; its elements start at `start`."""

    start: int
    end: int
    codec: Codec


@dataclass(frozen=True, slots=True)
class _Run:
    """A region whose ends are not yet on element boundaries: elements start at `phase` modulo their size."""

    start: int
    end: int
    codec: Codec
    phase: int


def find_regions(fd: int, ranges: Sequence[tuple[int, int]], method: Method) -> list[Region]:
    """Cuts a file's (start, end) ranges of data, all but its holes, into regions that cover the ranges.

    Args:
        fd: the file.
        ranges: what to cut.
        method: chooses the codecs.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(fd).st_size
    magic = os.pread(fd, 9, 0)
    tensors = _safetensors_runs(fd, magic, size, method)
    members = _zip_members(fd, size) if magic[:4] == b"PK\x03\x04" else []
    regions: list[Region] = []
    for start, end in ranges:
        runs = _clip(tensors, start, end) if tensors else _between(fd, members, start, end, method)
        regions += _align(_merge(runs), method.plain)
    return regions


def _safetensors_runs(fd: int, magic: bytes, size: int, method: Method) -> list[_Run]:
    """Returns a run for each tensor of a safetensors file; an empty list if the file is not sound."""
    if len(magic) < 9 or magic[8:] != b"{":
        return []
    (header_size,) = struct.unpack("<Q", magic[:8])
    data_start = 8 + header_size
    if header_size > _MAX_SAFETENSORS_HEADER or data_start > size:
        return []
    try:
        tensors = [
            (data_start + begin, data_start + end, str(tensor["dtype"]))
            for name, tensor in json.loads(os.pread(fd, header_size, 8)).items()
            if name != "__metadata__"
            for begin, end in [map(operator.index, tensor["data_offsets"])]
        ]
        tensors.sort()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    plain = method.plain
    runs = [_Run(0, data_start, plain, 0)]
    for start, end, dtype in tensors:
        if start != runs[-1].end or end < start:
            return []
        codec = codec_for_dtype(dtype)
        if codec is not None:
            runs.append(_Run(start, end, codec, start % codec.element_size))
        elif end - start >= _SMALL_REGION:
            runs.extend(_sampled(fd, start, end, method))
        else:
            runs.append(_Run(start, end, plain, 0))
    if runs[-1].end < size:
        runs.append(_Run(runs[-1].end, size, plain, 0))
    return runs


def _zip_members(fd: int, size: int) -> list[tuple[int, int]]:
    """Returns the data ranges of a zip file's larger members (.pt, .npz, .whl); an empty list for a damaged file."""
    try:
        with zipfile.ZipFile(cast(Any, _Reader(fd, size))) as archive:
            members = [info for info in archive.infolist() if info.compress_size >= _SMALL_REGION]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OverflowError):
        return []
    ranges = []
    for info in members[:_MAX_ZIP_MEMBERS]:
        local = os.pread(fd, 30, info.header_offset) if 0 <= info.header_offset < size else b""
        if len(local) == 30:
            name_size, extra_size = struct.unpack("<HH", local[26:])
            begin = info.header_offset + 30 + name_size + extra_size
            ranges.append((begin, begin + info.compress_size))
    ranges.sort()
    sound = all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    return ranges if sound and ranges and ranges[-1][1] <= size else []


def _between(fd: int, members: list[tuple[int, int]], start: int, end: int, method: Method) -> Iterator[_Run]:
    """Samples each member by itself: every tensor storage has its own element type and phase."""
    if not members:
        yield from _sampled(fd, start, end, method)
        return
    at = start
    for member_start, member_end in members:
        member_start, member_end = max(member_start, at), min(member_end, end)
        if member_start >= member_end:
            continue
        if at < member_start:
            yield _Run(at, member_start, method.plain, 0)
        yield from _sampled(fd, member_start, member_end, method)
        at = member_end
    if at < end:
        yield _Run(at, end, method.plain, 0)


def _sampled(fd: int, start: int, end: int, method: Method) -> Iterator[_Run]:
    """Chooses a codec for each window, from a sample in the middle of the window."""
    window = max(_WINDOW, -(-(end - start) // _MAX_WINDOWS))
    decision = None
    for at in range(start, end, window):
        window_end = min(at + window, end)
        sample_at = at + max(0, (window_end - at - SAMPLE_SIZE) // 2)
        sample = os.pread(fd, min(SAMPLE_SIZE, window_end - sample_at), sample_at)
        decision = method.for_sample(memoryview(sample), sample_at, decision)
        yield _Run(at, window_end, *decision)


def _clip(runs: Iterable[_Run], start: int, end: int) -> Iterator[_Run]:
    for run in runs:
        low, high = max(run.start, start), min(run.end, end)
        if low < high:
            yield _Run(low, high, run.codec, run.phase)


def _merge(runs: Iterable[_Run]) -> list[_Run]:
    """Joins neighbouring runs of one codec and phase, and short runs with the run before them."""
    merged: list[_Run] = []
    for run in runs:
        before = merged[-1] if merged else None
        alike = before is not None and (before.codec, before.phase) == (run.codec, run.phase)
        if before is not None and (alike or run.end - run.start < _SMALL_REGION):
            merged[-1] = _Run(before.start, run.end, before.codec, before.phase)
        else:
            merged.append(run)
    return merged


def _align(runs: list[_Run], plain: Codec) -> list[Region]:
    """Moves the ends of runs to element boundaries; the few bytes between two runs become regions of `plain`."""
    regions: list[Region] = []
    for run in runs:
        size = run.codec.element_size
        start = run.start + (run.phase - run.start) % size
        end = start + (run.end - start) // size * size
        if start >= end:
            start = end = run.end
        for piece in (Region(run.start, start, plain), Region(start, end, run.codec), Region(end, run.end, plain)):
            if piece.start < piece.end:
                regions.append(piece)
    return regions


class _Reader:
    """The methods of a file object that zipfile needs, through pread: the descriptor's own position does not move."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size, self._at = fd, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = os.pread(self._fd, left if count < 0 else min(count, left), self._at) if left else b""
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True
