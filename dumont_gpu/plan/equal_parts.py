"""Finds equal parts of files, by length, then by samples, then by digest."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from blake3 import blake3

from dumont_gpu.plan.cutter import PlannedChunk, PlannedExtent
from dumont_gpu.shortages import is_shortage
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.tree.source.files import SourceFile

SHARE_MINIMUM: Final = 16 * KiB  # bytes; a shorter part costs more to compare and to remember than its bytes cost
_SAMPLES: Final = 4  # checkpoints of one model have the same size and header, but differ in their samples
_SAMPLE_SIZE: Final = 4 * KiB
_HASH_PIECE: Final = 1 * MiB

T = TypeVar("T")


def groups_of_equal(keyed: Iterable[tuple[Hashable, T]]) -> list[list[T]]:
    """Returns the groups of two or more items that have the same key."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for key, item in keyed:
        groups[key].append(item)
    return [group for group in groups.values() if len(group) > 1]


def sample_digest(file: SourceFile, start: int, length: int) -> bytes:
    """Returns a digest of samples of at least SHARE_MINIMUM bytes of a file."""
    digest = blake3()
    with file.open() as fd:
        for sample in range(_SAMPLES):
            digest.update(os.pread(fd, _SAMPLE_SIZE, start + (length - _SAMPLE_SIZE) * sample // (_SAMPLES - 1)))
    return digest.digest()


def content_digest(file: SourceFile, start: int, length: int) -> bytes:
    """Returns the digest of a file's bytes, as far as the file has them."""
    digest = blake3()
    with file.open() as fd:
        for offset in range(start, start + length, _HASH_PIECE):
            digest.update(os.pread(fd, min(_HASH_PIECE, start + length - offset), offset))
    return digest.digest()


def repeated_extents(
    files: Sequence[SourceFile], chunks: Iterable[PlannedChunk], threads: int
) -> frozenset[PlannedExtent]:
    """Foretells which extents a pack will not store, because equal extents come before them.

    Args:
        files: of the plan.
        chunks: the whole plan.
        threads: how many extents are read at once.

    Raises:
        OSError: the machine is short of memory or descriptors. An extent that cannot be read is equal to none.
    """
    parts = (extent for chunk in chunks for extent in chunk.extents if extent.length >= SHARE_MINIMUM)
    groups = groups_of_equal((part.length, part) for part in parts)
    with ThreadPoolExecutor(threads) as pool:
        for digest in (sample_digest, content_digest):
            candidates = [part for group in groups for part in group]
            digests = pool.map(partial(_key_of, files, digest), candidates)
            groups = groups_of_equal(zip(digests, candidates, strict=True))
    return frozenset(part for group in groups for part in group[1:])


def _key_of(
    files: Sequence[SourceFile], digest: Callable[[SourceFile, int, int], bytes], part: PlannedExtent
) -> Hashable:
    try:
        return part.length, digest(files[part.file], part.file_offset, part.length)
    except OSError as error:
        if is_shortage(error.errno):
            raise
        return part
