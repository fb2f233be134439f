"""Which files of a table lie in which chunk, and tables of some of the entries."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from blake3 import blake3

from dumont_gpu import native
from dumont_gpu.columns.placement import Placement
from dumont_gpu.columns.table import EntryTable, as_table, changed_files, part_of, rows_at
from dumont_gpu.disk.direct_io import DIRECT_MINIMUM
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.sizes import KiB


def file(path: str, *extents: tuple[int, int, int, int], size: int | None = None, changed: bool = False) -> FileEntry:
    """A file of extents: (offset in the file, chunk, offset in the chunk, length)."""
    placed = tuple(Extent(*extent, digest=bytes(32)) for extent in extents)
    return FileEntry(
        path, EntryType.FILE, size=(placed[-1].file_end if placed else 0) if size is None else size,
        extents=placed, changed=changed,
    )  # fmt: skip


def paths(placed: Sequence[tuple[FileEntry, object]]) -> list[str]:
    return [entry.path for entry, _ in placed]


def test_whole_small_files_are_apart_from_the_others() -> None:
    table = EntryTable(
        [
            file("big", (0, 0, 0, DIRECT_MINIMUM)),
            FileEntry("d", EntryType.DIR),
            file("d/empty"),
            file("d/hole", size=5),
            file("d/sparse", (2, 0, 7, 3), size=9),
            file("d/tiny", (0, 0, 40, 8)),
            file("d/two", (0, 0, 3, 4), (4, 2, 5, 6)),
            FileEntry("e", EntryType.SYMLINK, target="big"),
            file("f", (0, 2, 1, 1)),
        ]
    )
    placement = Placement(table, 3)
    assert list(placement) == [0, 2]
    assert (len(placement), 0 in placement, 1 in placement, 2 in placement) == (2, True, False, True)
    assert [placement.count(chunk) for chunk in range(3)] == [4, 0, 2]
    assert [(entry.path, begin) for entry, begin in placement.small(0)] == [("d/tiny", 40)]
    assert paths(placement.others(0)) == ["big", "d/sparse", "d/two"]
    assert [Extent(4, 2, 5, 6, bytes(32))] == placement.others(2)[0][1]
    assert placement.largest(0) == Extent(0, 0, 0, DIRECT_MINIMUM, bytes(32))
    assert placement.largest(1) is None
    assert paths(placement.small(2)) == ["f"]
    assert [(entry.path, begin) for entry, begin in placement.small(None)] == [("d/empty", 0)]
    assert [(entry.path, extents) for entry, extents in placement.others(None)] == [("d/hole", [])]


def test_files_that_are_set_apart_are_never_small() -> None:
    table = EntryTable([file("a", (0, 0, 0, 1)), file("b", (0, 0, 1, 1)), file("c"), file("d")])
    placement = Placement(table, 1, [1, 2])
    assert (paths(placement.small(0)), paths(placement.others(0))) == (["a"], ["b"])
    assert (paths(placement.small(None)), paths(placement.others(None))) == (["d"], ["c"])


def test_no_file_and_no_chunk() -> None:
    placement = Placement(EntryTable(), 0)
    assert (list(placement), len(placement), list(placement.small(None)), placement.others(None)) == ([], 0, [], [])


def test_random_trees_are_placed_extent_by_extent() -> None:
    chance = random.Random(29)
    for _ in range(50):
        chunks = chance.randint(1, 5)
        entries, expected = [], defaultdict(list)
        for number in range(chance.randint(0, 60)):
            extents, at = [], 0
            for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
                at += chance.choice([0, 0, 2])
                extents.append((at, chance.randrange(chunks), chance.randrange(100), chance.randint(1, 9)))
                at += extents[-1][3]
            entries.append(file(f"{number:03d}", *extents))
            for extent in entries[-1].extents:
                expected[extent.chunk].append((entries[-1].path, extent))
        placement = Placement(EntryTable(entries), chunks)
        for chunk in range(chunks):
            found = [(entry.path, entry.extents[0]) for entry, _ in placement.small(chunk)]
            found += [(entry.path, extent) for entry, extents in placement.others(chunk) for extent in extents]
            assert expected[chunk] == sorted(found, key=lambda item: item[0])
            assert paths(placement.small(chunk)) == sorted(paths(placement.small(chunk)))


def test_parts_of_the_small_files_are_the_whole() -> None:
    small = Placement(EntryTable(file(f"{number}", (0, 0, number, 1)) for number in range(8)), 1).small(0)
    assert list(small) == [*small[:3], *small[3:6], *small[6:9]]
    with pytest.raises(IndexError):
        small[8]


def digested(path: str, content: bytes, begin: int, size: int) -> FileEntry:
    extent = Extent(0, 0, begin, size, blake3(content[begin : begin + size]).digest())
    return FileEntry(path, EntryType.FILE, size=size, extents=(extent,))


def test_small_pieces_are_checked_and_large_ones_are_left() -> None:
    content = random.Random(1).randbytes(200 * KiB)
    entries = [digested(f"{number:04d}", content, number * 7, 1 + number % 40) for number in range(700)]
    entries += [digested("x", content, 3, 16 * KiB), digested("y", content, 3, 16 * KiB), entries[5]._replace(path="z")]
    placement = Placement(EntryTable(entries), 1)
    left = placement.check_small_pieces(0, memoryview(content), 16 * KiB)
    assert [(3, 16 * KiB)] == [placement.piece(number)[:2] for number in left]


@pytest.mark.parametrize("wrong", [0, 255, 256, 699])
def test_a_wrong_byte_is_found_and_the_first_file_is_named(wrong: int) -> None:
    content = bytearray(random.Random(2).randbytes(10_000))
    entries = [digested(f"{number:04d}", content, number * 10, 10) for number in range(700)]
    entries.append(entries[wrong]._replace(path="a-copy"))
    placement = Placement(EntryTable(entries), 1)
    content[wrong * 10 + 9] ^= 1
    with pytest.raises(native.WrongPieceError) as caught:
        placement.check_small_pieces(0, memoryview(content), 16 * KiB)
    assert f"{wrong:04d}" == placement.owner_of(caught.value.number, 0).path


def test_a_piece_beyond_its_chunk_is_not_read() -> None:
    placement = Placement(EntryTable([file("a", (0, 0, 5, 6))]), 1)
    with pytest.raises(ValueError, match="leaves its chunk"):
        placement.check_small_pieces(0, memoryview(bytes(10)), 16)


def test_a_part_of_a_table_has_its_entries() -> None:
    owned = FileEntry("b", EntryType.DIR, owner=(1, 2))
    entries = [file("a", (0, 0, 0, 1)), owned, file("b/c", (0, 0, 1, 2)), file("d", changed=True)]
    table = EntryTable(entries)
    part = part_of(table, [1, 2])
    assert entries[1:3] == list(part)
    assert (part.find("b"), part.total_size(), part.find("a")) == (0, 2, None)
    assert paths(Placement(part, 1).small(0)) == ["b/c"]
    assert list(part_of(table, [])) == []


def test_changed_files_and_rows_of_a_type() -> None:
    table = EntryTable(
        [FileEntry("a", EntryType.DIR), file("b", changed=True), FileEntry("c", EntryType.DIR), file("d")]
    )
    assert [entry.path for entry in changed_files(table)] == ["b"]
    assert list(changed_files(part_of(table, [0, 3]))) == []
    assert tuple(list(table.rows_of(kind)) for kind in (EntryType.DIR, EntryType.FILE, EntryType.SYMLINK)) == (
        [0, 2],
        [1, 3],
        [],
    )
    assert as_table(table) is table


def test_rows_are_found_by_path() -> None:
    table = EntryTable(FileEntry(path, EntryType.DIR) for path in ("a", "a/é", "b", "b/\udcff"))
    assert list(rows_at(table, ["b/\udcff", "", "a", "a/", "c", "a/é"])) == [3, 0, 1]
    assert list(rows_at(table, [])) == []
    assert list(rows_at(EntryTable(), ["a"])) == []


def test_space_is_counted_in_blocks() -> None:
    table = EntryTable(
        [file("a", (0, 0, 0, 1)), file("b"), file("c", (0, 0, 0, 10), (10, 0, 10, 11)), file("d", size=50)]
    )
    assert native.size_in_blocks(table.columns, 10) == 10 + 10 + 20
