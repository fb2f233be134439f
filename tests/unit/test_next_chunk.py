"""Whoever reads a file from front to back finds the next chunk decoded; who looks at parts of it costs nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.snapshots import pack_tree

from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.read_ahead import FollowedFile
from dumont_gpu.sizes import KiB, MiB

CHUNK = 2 * MiB
SIZE = 12 * MiB
READ = 128 * KiB


@pytest.fixture
def files(source: Path, snapshot: Path) -> Iterator[SnapshotFiles]:
    (source / "large").write_bytes(os.urandom(SIZE))
    pack_tree(source, snapshot, chunk_size=CHUNK, method="none")
    with SnapshotFiles(str(snapshot)) as opened:
        yield opened


def asked(files: SnapshotFiles, offsets: Iterator[int] | range) -> list[int]:
    """Returns the offsets that are loaded ahead while a reader reads at these offsets."""
    file = FollowedFile(files.file("large"), files)
    found = []
    for offset in offsets:
        file.read_at(offset, memoryview(bytearray(READ)))
        if (want := file.next_want(CHUNK)) is not None:
            found.append(want.start)
    return found


def test_a_reader_of_all_of_it_finds_each_chunk_decoded(files: SnapshotFiles) -> None:
    ahead = asked(files, range(0, SIZE, READ))
    assert [start // CHUNK for start in ahead] == [3, 4, 5]
    assert all(start < SIZE for start in ahead)


def test_reads_of_the_kernel_may_come_in_another_order(files: SnapshotFiles) -> None:
    swapped = (offset ^ READ for offset in range(0, SIZE, READ))
    assert [start // CHUNK for start in asked(files, swapped)] == [3, 4, 5]


def test_a_header_or_single_places_cause_nothing(files: SnapshotFiles) -> None:
    assert asked(files, range(0, 3 * MiB, READ)) == []
    assert asked(files, (number * 5 * MiB % (SIZE - READ) for number in range(100))) == []
