"""The manifest in columns: entries to bytes and back, at its limits, in parts, and with bytes that nobody wrote."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import independent_reader
from support.column_manifest import in_columns
from support.hostile import MTIME, Archive, small_archive
from support.snapshots import GOLDEN
from support.trees import NAMES

import dumont_gpu
from dumont_gpu import native
from dumont_gpu.columns import manifest as columns_manifest
from dumont_gpu.columns.manifest import decode_manifest, encode_manifest, parse_head
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format.entries import MAX_EXTENTS, EntryType, Extent, FileEntry
from dumont_gpu.format.header import FLAG_BLAKE3, FLAG_COLUMNS, ChunkRecord, Header
from dumont_gpu.format.manifest import Manifest
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import LocalSource, MemorySource

DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(4)]
CHUNKS = [ChunkRecord(4096 * number, 1, 1 << 30, 0, DIGESTS[number][:8]) for number in range(3)]
MAX_TIME = (1 << 63) - 1

# --- trees of entries -------------------------------------------------------------------------------------------------

TIMES = st.one_of(st.sampled_from([0, -1, MTIME, MAX_TIME, -MAX_TIME - 1]), st.integers(-MAX_TIME - 1, MAX_TIME))
OWNERS = st.none() | st.tuples(*[st.sampled_from([0, 1000, (1 << 32) - 2])] * 2)
PLACES = st.sampled_from([0, 1, 4096, (1 << 30) - 500])
RUNS = st.tuples(
    st.sampled_from([0, 0, 0, 7, 1 << 40]),  # a hole, then a piece
    st.integers(0, 2), PLACES, st.integers(1, 500), st.sampled_from(DIGESTS),
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> FileEntry:
    extents, end = [], 0
    for hole, chunk, at, length, digest in draw(st.lists(RUNS, max_size=5)):
        extents.append(Extent(end + hole, chunk, at, length, digest))
        end = extents[-1].file_end
    size = end + draw(st.sampled_from([0, 0, 1, 1 << 50]))
    return FileEntry("", EntryType.FILE, draw(st.integers(0, 0o7777)), draw(TIMES), size, tuple(extents),
                     owner=draw(OWNERS), changed=draw(st.booleans()))  # fmt: skip


LEAVES = st.one_of(
    files(),
    st.builds(
        lambda mode, mtime, target, owner: FileEntry(
            "", EntryType.SYMLINK, mode, mtime, target=os.fsdecode(target), owner=owner
        ),
        st.sampled_from([0, 0o777]),
        TIMES,
        NAMES,
        OWNERS,
    ),
    st.integers(0, 9),  # a hard link
)
FOLDERS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=6),
    lambda inner: st.dictionaries(NAMES, LEAVES | inner, max_size=6),
    max_leaves=25,
)


def flat(folder: dict[bytes, object], prefix: str = "") -> list[FileEntry]:
    """The entries of a folder, in path order, hard links as numbers in `mode`."""
    entries = []
    for name, value in folder.items():
        path = prefix + os.fsdecode(name)
        if isinstance(value, dict):
            entries.append(FileEntry(path, EntryType.DIR, 0o755, MTIME))
            entries += flat(value, f"{path}/")
        elif isinstance(value, FileEntry):
            entries.append(value._replace(path=path))
        else:
            assert isinstance(value, int)
            entries.append(FileEntry(path, EntryType.HARDLINK, mode=value))
    return entries


def linked(entries: list[FileEntry]) -> list[FileEntry]:
    """Gives hard links an earlier file; those that have none are left out."""
    result: list[FileEntry] = []
    leaders: list[str] = []
    for entry in sorted(entries, key=lambda entry: entry.sort_key):
        if entry.type is EntryType.HARDLINK:
            if leaders:
                result.append(entry._replace(mode=0, target=leaders[entry.mode % len(leaders)]))
            continue
        result.append(entry)
        if entry.type is EntryType.FILE:
            leaders.append(entry.path)
    return result


TREES = FOLDERS.map(flat).map(linked)


def encoded(entries: Sequence[FileEntry], root: FileEntry | None = None) -> tuple[bytes, Header]:
    """A manifest in columns, and a header that fits."""
    digests = tuple(DIGESTS[: len(CHUNKS)])
    manifest = Manifest("hybrid", "test", -1, digests, "blake3", entries, root)
    data, digest = encode_manifest(manifest, EntryTable(entries))
    header = Header(
        num_chunks=len(CHUNKS),
        num_files=len(entries),
        total_size_compressed=0,
        total_size_original=sum(entry.size for entry in entries),
        chunk_size=1 << 30,
        manifest_offset=0,
        manifest_size=len(data),
        index_sha256=b"",
        manifest_sha256=digest,
        flags=FLAG_COLUMNS | FLAG_BLAKE3,
    )
    return data, header


def assert_same(entries: Sequence[FileEntry], root: FileEntry | None = None) -> Header:
    """Encodes entries, and compares what the program and the independent reader make of the bytes."""
    data, header = encoded(entries, root)
    manifest = decode_manifest(memoryview(data), header, CHUNKS)
    assert list(manifest.entries) == list(entries)
    assert (manifest.root, manifest.method, manifest.tool, manifest.created_ns) == (root, "hybrid", "test", -1)
    assert list(manifest.chunk_digests) == DIGESTS[: len(CHUNKS)]
    other = independent_reader.Header(
        len(CHUNKS), len(entries), 0, header.total_size_original, 1 << 30, 0, len(data), b"", header.manifest_sha256, 3
    )
    chunks = [independent_reader.Chunk(c.offset, 1, 1 << 30, 0, c.checksum) for c in CHUNKS]
    _, found = independent_reader.parse_manifest(data, other, chunks)
    assert [(e.path, e.kind, e.size, e.target) for e in found] == [
        (entry.sort_key, entry.type.value, entry.size, os.fsencode(entry.target)) for entry in entries
    ]
    assert [tuple(x.digest for x in e.extents) for e in found] == [tuple(x.digest for x in e.extents) for e in entries]
    return header


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from([1, 2, 3, 8192]), st.booleans())
def test_entries_come_back_as_they_were(entries: list[FileEntry], page_entries: int, with_root: bool) -> None:
    root = FileEntry("root", EntryType.DIR, 0o700, 5, owner=(1, 2)) if with_root else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_manifest, "_PAGE_ENTRIES", page_entries)
        assert_same(entries, root)


@settings(max_examples=50, deadline=None)
@given(TREES)
def test_a_table_sorts_finds_and_counts(entries: list[FileEntry]) -> None:
    table = EntryTable(reversed(entries))
    table.sort()
    assert list(table) == entries
    assert [table.find(entry.path) for entry in entries] == list(range(len(entries)))
    assert table.find("\x7f/not there") is None
    assert table.total_size() == sum(entry.size for entry in entries)


# --- limits -----------------------------------------------------------------------------------------------------------


def folders(count: int, name_size: int = 6) -> list[FileEntry]:
    return [FileEntry(f"{number:0{name_size}}", EntryType.DIR, 0o755, MTIME) for number in range(count)]


def pages_of(entries: Sequence[FileEntry]) -> list[int]:
    data, header = encoded(entries)
    return [page.entries for page in parse_head(memoryview(data), header, CHUNKS).pages]


@pytest.mark.parametrize(
    ("count", "pages"),
    [(0, []), (1, [1]), (8191, [8191]), (8192, [8192]), (8193, [8192, 1]), (16384, [8192, 8192])],
)
def test_a_page_has_8192_entries_at_most(count: int, pages: list[int]) -> None:
    entries = folders(count)
    assert pages_of(entries) == pages
    assert_same(entries)


def test_a_page_ends_after_4_mib() -> None:
    entries = [FileEntry(f"{number:04}", EntryType.SYMLINK, 0, 0, target="x" * (32 << 10)) for number in range(300)]
    assert pages_of(entries) == [128, 128, 44]
    assert_same(entries)


def many_extents(count: int) -> FileEntry:
    extents = tuple(Extent(at * 3, at % 3, at * 7, 1 + at % 2, DIGESTS[at % 4]) for at in range(count))
    return FileEntry("f", EntryType.FILE, 0o644, MTIME, 3 * count, extents)


def test_a_file_has_100000_extents_at_most() -> None:
    assert_same([FileEntry("e", EntryType.DIR, 0o755, MTIME), many_extents(MAX_EXTENTS)])
    with pytest.raises(DumontError, match="f: 100001 extents are more than a snapshot can hold"):
        encoded([many_extents(MAX_EXTENTS + 1)])


def test_extents_of_all_files_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    data, header = encoded([many_extents(100)])
    monkeypatch.setattr(columns_manifest, "_MAX_ALL_EXTENTS", 99)
    with pytest.raises(DamagedError, match="limit"):
        decode_manifest(memoryview(data), header, CHUNKS)
    with pytest.raises(DumontError, match="100 extents"):
        encoded([many_extents(100)])


def test_paths_of_all_entries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [FileEntry("x" * 200 + f"{number:03}", EntryType.DIR, 0o755, 0) for number in range(100)]
    data, header = encoded(entries)
    monkeypatch.setattr(columns_manifest, "_MAX_PAGES_SIZE", 100 * 204 - 1)
    with pytest.raises(DamagedError, match="limit"):
        decode_manifest(memoryview(data), header, CHUNKS)
    with pytest.raises(DumontError, match="pack less at once"):
        encoded(entries)


def test_entries_are_limited() -> None:
    _, header = encoded([])
    with pytest.raises(DamagedError, match="limit"):
        columns_manifest.limit_of_manifest(replace(header, num_files=(1 << 24) + 1))


HUGE = 1 << 40  # bytes


class Endless(MemorySource):
    """A source that is said to be huge; only its start is there."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = HUGE


@pytest.mark.parametrize(("num_files", "room"), [(2, (1 << 20) + 32 * 3 + 2 * 32_818), (1 << 24, 512 << 20)])
def test_the_size_of_a_manifest_is_limited_before_it_is_read(num_files: int, room: int) -> None:
    _, sound = encoded([])
    limit = room + (1 << 30) + (8 << 20)
    for size, reason in (
        (limit, "SHA-256"),
        (limit + 1, "a stored manifest of"),
    ):  # the digest of the index is wrong, too
        header = replace(
            sound,
            num_files=num_files,
            manifest_offset=HUGE - size,
            manifest_size=size,
            index_sha256=bytes(32),
        )
        with pytest.raises(DamagedError, match=reason):
            read_snapshot(Endless(header.to_bytes() + bytes(25 * len(CHUNKS))))


# --- parts ------------------------------------------------------------------------------------------------------------


class Reads:
    """Reads a snapshot in parts, and remembers which of its pages were wanted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.whole = data, independent_reader.read_table(data)
        self.pages: set[int] = set()  # offsets

    def __call__(self, offset: int, size: int) -> bytes:
        if offset > self.whole.header.manifest_offset:  # where the head is
            self.pages.add(offset)
        return self.data[offset : offset + size]

    def below(self, directory: bytes) -> list[independent_reader.Entry]:
        self.pages.clear()
        return independent_reader.read_directory(self, len(self.data), directory)


def test_a_directory_is_read_from_the_pages_that_have_it() -> None:
    archive = Archive()
    for folder in range(40):
        archive.directory(f"d{folder:02}")
        for number in range(20):
            archive.file(f"d{folder:02}/f{number:02}", b"content %d" % (20 * folder + number))
    reads = Reads(in_columns(archive, 50).to_bytes())
    for folder in (0, 17, 39):
        name = b"d%02d" % folder
        found = reads.below(name)
        assert found == [entry for entry in reads.whole.entries if entry.path.startswith(name + b"/")]
        assert len(found) == 20
        assert 1 <= len(reads.pages) <= 2
    assert reads.below(b"nothing") == reads.below(b"d") == []


def test_pieces_of_earlier_pages_are_fetched_where_extents_need_them() -> None:
    archive = Archive()
    first = archive.file("a", b"the same in both")
    for number in range(10):
        archive.directory(f"b{number}")
    archive.directory("c")
    archive.entries.append({**first, "path": "c/a"})
    reads = Reads(in_columns(archive, 2).to_bytes())
    (entry,) = reads.below(b"c")
    assert entry.path == b"c/a"
    assert entry.extents == reads.whole.entries[0].extents
    assert len(reads.pages) == 3  # of seven: b9 and c, c/a, and a, whose piece it is


def test_the_table_of_a_page_in_the_specification_is_what_is_written() -> None:
    text = (Path(dumont_gpu.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
    table = text.split("**Example.**")[1].split("###")[0]
    shown = dict(re.findall(r"^\| (\w+) \| ([0-9a-f ]+?) \|$", table, re.MULTILINE))
    entries = read_snapshot(LocalSource(str(GOLDEN / "example.dumont"))).manifest.entries
    ((_, _, _, page),) = native.write_pages(EntryTable(entries).columns, 8192)
    columns = independent_reader.split_columns(bytes(page))
    assert columns.pop("digest").data == entries[0].extents[0].digest
    assert shown == {name: column.data.hex(" ") for name, column in columns.items()}


# --- bytes that nobody wrote ------------------------------------------------------------------------------------------

BYTES = st.binary(max_size=4) | st.sampled_from([b"\0", b"/", b"..\0", b"\xff" * 9 + b"\1", b"\x80\0", b"\x90\x4e"])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([1, 3, 8192]),
    st.lists(
        st.tuples(st.integers(0), st.integers(0), st.integers(0), st.integers(0, 3), BYTES), min_size=1, max_size=3
    ),
)
def test_a_column_of_any_bytes_gets_the_verdict_of_the_independent_reader(
    page_entries: int, cuts: list[tuple[int, int, int, int, bytes]]
) -> None:
    built = in_columns(small_archive(), page_entries)
    for page, name, at, length, instead in cuts:
        columns = built.pages[page % len(built.pages)].columns
        chosen = sorted(columns)[name % len(columns)]
        at %= len(columns[chosen]) + 1
        columns[chosen] = columns[chosen][:at] + instead + columns[chosen][at + length :]
    data = built.to_bytes()
    try:
        expected = [(e.path, e.kind, e.size, e.target) for e in independent_reader.read_table(data).entries]
    except ValueError:
        with pytest.raises(DamagedError):
            read_snapshot(MemorySource(data))
        return
    entries = read_snapshot(MemorySource(data)).manifest.entries
    assert [(e.sort_key, e.type.value, e.size, os.fsencode(e.target)) for e in entries] == expected


def test_every_changed_byte_of_a_manifest_is_noticed() -> None:
    built = in_columns(small_archive(), 3)
    sound = built.to_bytes()
    for at in range(built.archive.to_bytes().index(built.archive.stored_manifest or b""), len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        with pytest.raises(DamagedError):
            read_snapshot(MemorySource(bytes(damaged)))
        with pytest.raises(ValueError, match="damaged"):
            independent_reader.read_table(bytes(damaged))


def test_every_missing_end_is_noticed() -> None:
    built = in_columns(small_archive(), 3)
    built.place()
    whole = built.archive.stored_manifest or b""
    for size in range(len(whole)):
        built.manifest = whole[:size]
        data = built.to_bytes()
        with pytest.raises(DamagedError):
            read_snapshot(MemorySource(data))
        with pytest.raises(ValueError, match="damaged"):
            independent_reader.read_table(data)
