"""The manifest in columns: a head, and pages of columns in zstd frames. FORMAT.md, section 6.2, is the specification.

The header covers the head, and the head every page: a page can be read and checked without the others.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from dumont_gpu import native
from dumont_gpu.codecs import ZSTD
from dumont_gpu.columns.rows import path_at
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format.digests import DIGEST_SIZE
from dumont_gpu.format.entries import MAX_EXTENTS, MAX_MTIME, MIN_MTIME
from dumont_gpu.format.entry_json import ENCODER, metadata_to_json, root_from_json
from dumont_gpu.format.header import ChunkRecord, Header
from dumont_gpu.format.manifest import MAX_ENTRIES, Manifest, check_chunk_digests
from dumont_gpu.format.paths import MAX_PATH, shown
from dumont_gpu.format.strict_json import as_object, parse_json, typed, whole_number
from dumont_gpu.sizes import GiB, KiB, MiB

_PAGE_ENTRIES: Final = 8192
_MAX_PAGE: Final = 16 * MiB  # raw bytes
_MAX_PAGES: Final = 1 << 20
_MAX_PAGES_SIZE: Final = 1 * GiB  # raw bytes of all pages; and the paths and targets of all entries
_MAX_ALL_EXTENTS: Final = 1 << 25  # of all files: 512 MiB of memory
_EXTENTS_AT: Final = 6  # which of a row's 32-bit words is its number of extents
_MAX_FACTS: Final = 1 * MiB
_MAX_HEAD: Final = 512 * MiB

_HEAD: Final = struct.Struct("<III")  # sizes of head and facts, number of pages
# Sizes of frame and page, entries, new pieces, digest, size of the first path:
_PAGE: Final = struct.Struct("<IIII32sH")

_REASONS: Final = {
    native.PageError.PATH: "not a plain relative path",
    native.PageError.ORDER: "twice in the manifest, or not in path order",
    native.PageError.PARENT: "its directory is not in the snapshot, or is not a directory",
    native.PageError.TYPE: "unknown entry type",
    native.PageError.MODE: "its mode is outside 0 to 4095",
    native.PageError.SIZE: "its size is above 2^63 - 1",
    native.PageError.EXTENTS: "too many extents, or extents overlap or leave the file",
    native.PageError.PIECE: "an extent in a piece that does not exist, or a piece that leaves its chunk",
    native.PageError.TARGET: "a symlink without a usable target",
    native.PageError.LEADER: "a hard link to something that is no file of this snapshot",
    native.PageError.OWNER: "an owner that is not a user and a group",
    native.PageError.CHANGED: "neither changed nor unchanged",
}


class PageRecord(NamedTuple):
    """A page as the head describes it. Sizes are bytes."""

    frame_size: int  # in the snapshot
    size: int  # decoded
    entries: int
    pieces: int  # that no page before has
    digest: bytes  # SHA-256 of the frame
    first_path: bytes


class Head(NamedTuple):
    """The head of a manifest."""

    size: int
    facts: dict[str, Any]
    chunk_digests: tuple[bytes, ...]
    pages: tuple[PageRecord, ...]


def encode_manifest(manifest: Manifest, table: EntryTable) -> tuple[bytes, bytes]:
    """Returns the manifest as FORMAT.md lays it out, and its digest for the header.

    Args:
        manifest: everything but the entries.
        table: the entries, sorted.

    Raises:
        DumontError: the manifest would break a limit, so that no reader would accept it.
    """
    _check_counts(table)
    facts: dict[str, Any] = {"method": manifest.method, "tool": manifest.tool, "created_ns": manifest.created_ns}
    if manifest.root is not None:
        facts["root"] = metadata_to_json(manifest.root)
    frames, records, raw_size = [], bytearray(), len(table.columns.names)
    for first, entries, pieces, page in native.write_pages(table.columns, _PAGE_ENTRIES):
        frame = _encode_page(page)
        path = path_at(table.columns, first)
        records += _PAGE.pack(len(frame), len(page), entries, pieces, hashlib.sha256(frame).digest(), len(path)) + path
        frames.append(frame)
        raw_size += len(page)
    if raw_size > _MAX_PAGES_SIZE:
        raise DumontError(f"a manifest of {raw_size} bytes is more than a snapshot can hold: pack less at once")
    text = ENCODER.encode(facts).encode()
    digests = b"".join(manifest.chunk_digests)
    size = _HEAD.size + len(text) + len(digests) + len(records)
    head = _HEAD.pack(size, len(text), len(frames)) + text + digests + records
    return b"".join([head, *frames]), hashlib.sha256(head).digest()


def limit_of_manifest(header: Header) -> int:
    """Returns how many bytes the manifest may take in a snapshot.

    Raises:
        DamagedError: the header declares more entries than a snapshot may have.
    """
    if header.num_files > MAX_ENTRIES:
        raise DamagedError(f"the snapshot declares {header.num_files} entries; the limit is {MAX_ENTRIES}")
    return _limit_of_head(header) + _MAX_PAGES_SIZE + _MAX_PAGES_SIZE // 128


def parse_head(data: memoryview, header: Header, chunks: Sequence[ChunkRecord]) -> Head:
    """Reads the head from the start of a manifest and checks it against the header and the chunk index.

    Args:
        data: the manifest, or as many bytes of its start as the head takes.

    Raises:
        DamagedError: the head does not match its digest, or breaks a rule.
    """
    size = head_size(data, header)
    head = bytes(data[:size])
    if len(head) != size or hashlib.sha256(head).digest() != header.manifest_sha256:
        raise DamagedError("the manifest does not match its SHA-256")
    _, facts_size, num_pages = _HEAD.unpack_from(head)
    digests_at = _HEAD.size + facts_size
    pages_at = digests_at + DIGEST_SIZE * header.num_chunks
    if facts_size > _MAX_FACTS or pages_at > size:
        raise DamagedError("malformed manifest: its head is too short for what it declares")
    facts = as_object(parse_json(head[_HEAD.size : digests_at]))
    digests = tuple(head[at : at + DIGEST_SIZE] for at in range(digests_at, pages_at, DIGEST_SIZE))
    check_chunk_digests(digests, chunks)
    return Head(size, facts, digests, tuple(_page_records(head, pages_at, num_pages, header)))


def head_size(data: memoryview, header: Header) -> int:
    """Returns the size of the head, from the first bytes of a manifest; believed only once the head's digest matches.

    Raises:
        DamagedError: no head is so short or so long.
    """
    if len(data) < _HEAD.size:
        raise DamagedError("malformed manifest: it breaks off")
    size: int = _HEAD.unpack_from(data)[0]
    if not _HEAD.size <= size <= min(header.manifest_size, _limit_of_head(header) + _HEAD.size):
        raise DamagedError(f"malformed manifest: a head of {size} bytes")
    return size


def decode_manifest(data: memoryview, header: Header, chunks: Sequence[ChunkRecord]) -> Manifest:
    """Reads a manifest and checks it against FORMAT.md, the header and the chunk index.

    Raises:
        DamagedError: bytes do not match their digest, or break a rule; the message names the entry.
    """
    head = parse_head(data, header, chunks)
    if head.size + sum(page.frame_size for page in head.pages) != len(data):
        raise DamagedError("malformed manifest: its pages do not end where it ends")
    table = EntryTable()
    sizes = array("I", [chunk.size_original for chunk in chunks])
    at = head.size
    for page in head.pages:
        _read_page(data[at : at + page.frame_size], page, sizes, table)
        at += page.frame_size
    if table.total_size() != header.total_size_original:
        raise DamagedError("the sizes of the files do not add up to the size in the header")
    facts = head.facts
    return Manifest(
        method=typed(facts, "method", str),
        tool=typed(facts, "tool", str),
        created_ns=whole_number(facts, "created_ns", MAX_MTIME, MIN_MTIME),
        chunk_digests=head.chunk_digests,
        entries=table,
        digest=header.digest,
        root=root_from_json(as_object(facts["root"])) if "root" in facts else None,
    )


def _check_counts(table: EntryTable) -> None:
    extents = len(table.columns.extents) // native.EXTENT.size
    if len(table) > MAX_ENTRIES or extents > _MAX_ALL_EXTENTS:
        raise DumontError(f"{len(table)} entries of {extents} extents; a snapshot may have {MAX_ENTRIES}")
    of_each = memoryview(table.columns.entries).cast("I")[_EXTENTS_AT :: native.ENTRY.size // 4].tolist()
    most = max(of_each, default=0)
    if most > MAX_EXTENTS:
        path = shown(table.path(of_each.index(most)))
        raise DumontError(f"{path}: {most} extents are more than a snapshot can hold: choose a larger --chunk-size")


def _encode_page(page: bytearray) -> memoryview:
    frame = memoryview(bytearray(len(page) + len(page) // 128 + 64 * KiB))
    return frame[: ZSTD.encode(memoryview(page), frame)]


def _page_records(head: bytes, at: int, count: int, header: Header) -> Iterator[PageRecord]:
    if count > _MAX_PAGES:
        raise DamagedError(f"malformed manifest: {count} pages; the limit is {_MAX_PAGES}")
    entries = raw_size = 0
    before = b""
    for _ in range(count):
        if len(head) - at < _PAGE.size:
            raise DamagedError("malformed manifest: its head breaks off")
        frame_size, size, of_page, pieces, digest, path_size = _PAGE.unpack_from(head, at)
        at += _PAGE.size
        path = head[at : at + min(path_size, MAX_PATH)]
        at += path_size
        entries, raw_size = entries + of_page, raw_size + size
        if (
            not of_page
            or size > _MAX_PAGE
            or raw_size > _MAX_PAGES_SIZE
            or path_size > MAX_PATH
            or len(path) != path_size
        ):
            raise DamagedError("malformed manifest: a page that breaks a limit")
        if path <= before:
            raise DamagedError("malformed manifest: its pages are not in path order")
        before = path
        yield PageRecord(frame_size, size, of_page, pieces, digest, path)
    if at != len(head):
        raise DamagedError("malformed manifest: something follows the pages in its head")
    if entries != header.num_files:
        raise DamagedError(f"the manifest has {entries} entries, the header says {header.num_files}")


def _read_page(frame: memoryview, record: PageRecord, chunk_sizes: array[int], table: EntryTable) -> None:
    """Appends the entries of a page to the table."""
    if hashlib.sha256(frame).digest() != record.digest:
        raise DamagedError("a page of the manifest does not match its SHA-256")
    page = memoryview(bytearray(record.size))
    ZSTD.decode(frame, page)
    first, columns = len(table), table.columns
    needs = native.page_needs(page, record.entries)
    # Entries and extents take bytes of their page, and a new piece its digest: no small page can ask for much memory.
    if (
        needs is None
        or record.entries > record.size
        or needs.extents > record.size
        or record.pieces * DIGEST_SIZE > record.size
    ):
        raise DamagedError("malformed manifest: a page whose columns do not fit together")
    extents = len(columns.extents) // native.EXTENT.size + needs.extents
    if extents > _MAX_ALL_EXTENTS or len(columns.names) + needs.names > _MAX_PAGES_SIZE:
        raise DamagedError("malformed manifest: a page that breaks a limit")
    wrong = native.read_page(page, record.entries, record.pieces, needs, chunk_sizes, columns)
    if wrong is not None:
        error, number = wrong
        if error is native.PageError.MALFORMED:
            raise DamagedError(f"malformed manifest: entry {first + number} of its columns")
        raise DamagedError(f"entry {first + number} of the manifest: {_REASONS[error]}")
    if path_at(table.columns, first) != record.first_path:
        raise DamagedError("malformed manifest: a page does not begin with the path that its head gives")


def _limit_of_head(header: Header) -> int:
    # A page of at least one entry, its record, and the longest path: what a hostile header may demand stays bounded.
    return min(_MAX_HEAD, _MAX_FACTS + DIGEST_SIZE * header.num_chunks + header.num_files * (_PAGE.size + MAX_PATH))
