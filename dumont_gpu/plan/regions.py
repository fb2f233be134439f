"""Finds the elements of each type in a file: from the file's own table of contents, or else from samples.

Nothing is unpickled or executed. A wrong answer costs size, never correctness.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dumont_gpu.codecs import Codec, ZipNN
from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import SAMPLE_SIZE, Method
from dumont_gpu.plan.tensors import find_tensors, safetensors, zip_members
from dumont_gpu.plan.tensors.cursor import Cursor
from dumont_gpu.plan.tensors.tensor import Tensor, UnsoundError
from dumont_gpu.sizes import KiB, MiB

_SMALL_REGION: Final = 64 * KiB  # shorter regions join a neighbour: an extent and its digest cost more than they save
_MAX_WINDOWS: Final = 4096  # samples of one file: 256 MiB read at most
_WINDOW: Final = 1 * MiB
_PREVAILING: Final = 0.75  # share of a tensor's bytes


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

    The tails of regions may share chunks with others, and be cut where a chunk is full.

    Args:
        fd: the file.
        ranges: what to cut.
        method: chooses the codecs.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(fd).st_size
    magic = os.pread(fd, 9, 0)
    tensors = _safetensors_runs(fd, size, method) if magic[8:] == b"{" else []
    members = _zip_members(fd, size) if magic[:4] == b"PK\x03\x04" else []
    regions: list[Region] = []
    for start, end in ranges:
        runs = _clip(tensors, start, end) if tensors else _between(fd, members, start, end, method)
        regions += _align(_merge(runs), method.plain)
    return regions


def find_tensor_regions(fd: int, ranges: Sequence[tuple[int, int]], method: Method, step: int) -> list[Region]:
    """Cuts a file's ranges of data at the borders of its tensors, and tensors at every `step` bytes from their start.

    The same tensor gives the same regions wherever it is in whatever file, so that its extents can be shared.

    Args:
        fd: the file.
        ranges: (start, end) of the file's data: all but its holes.
        method: chooses the codecs.
        step: the most bytes in a region of a tensor; a multiple of 4 KiB.

    Raises:
        OSError: the file cannot be read.
    """
    tensors = find_tensors(fd, os.fstat(fd).st_size)
    regions: list[Region] = []
    left = iter(tensors)
    tensor = next(left, None)
    for start, end in ranges:
        at = start
        while tensor is not None and tensor.start < end:
            if start <= tensor.start and tensor.end <= end:  # a tensor with a hole in it is as any other data
                regions += _other_regions(fd, at, tensor.start, method)
                regions += _regions_of_tensor(fd, tensor, method, step)
                at = tensor.end
            elif tensor.end > end:
                break
            tensor = next(left, None)
        regions += _other_regions(fd, at, end, method)
    return regions


def _regions_of_tensor(fd: int, tensor: Tensor, method: Method, step: int) -> Iterator[Region]:
    for start in range(tensor.start, tensor.end, step):
        end = min(start + step, tensor.end)
        if tensor.dtype is not None and (end - start) % tensor.dtype.size == 0:
            yield Region(start, end, ZipNN(tensor.dtype))
            continue
        runs = list(_sampled(fd, start, end, method))
        dtype = _prevailing_dtype(runs)
        if dtype is not None and (end - start) % dtype.size == 0:
            yield Region(start, end, ZipNN(dtype))
        else:
            yield from _align(_merge(runs), method.plain)


def _prevailing_dtype(runs: list[_Run]) -> Dtype | None:
    """Returns the type of elements that most bytes look like; None if most bytes do not look like floats.

    A file that names element types is not sampled. In a file that does not name them, some windows of a tensor may look
    like another type, like zeros, or like elements that begin two bytes later: the tensor still gets no borders within.
    """
    sizes: dict[Dtype, int] = defaultdict(int)
    for run in runs:
        if isinstance(run.codec, ZipNN):
            sizes[run.codec.dtype] += run.end - run.start
    prevails = sum(sizes.values()) >= _PREVAILING * (runs[-1].end - runs[0].start)
    return max(sizes, key=sizes.__getitem__) if prevails else None


def _other_regions(fd: int, start: int, end: int, method: Method) -> list[Region]:
    """Cuts the bytes that belong to no large tensor: headers, small tensors, or all of a file without tensors."""
    if end - start < _SMALL_REGION:
        return [Region(start, end, method.plain)] if start < end else []
    return _align(_merge(_sampled(fd, start, end, method)), method.plain)


def _safetensors_runs(fd: int, size: int, method: Method) -> list[_Run]:
    """Returns a run for each tensor of a safetensors file; an empty list if the file is not sound."""
    try:
        header_end, tensors = safetensors.header_and_tensors(Cursor(fd, size))
    except UnsoundError:
        return []
    plain = method.plain
    runs = [_Run(0, header_end, plain, 0)]
    for start, end, dtype in tensors:
        if start != runs[-1].end or not start <= end <= size:
            return []
        if dtype is not None:
            codec = ZipNN(dtype)
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
        ranges = sorted(zip_members.members(Cursor(fd, size)))
    except UnsoundError:
        return []
    sound = all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    return ranges if sound else []


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
