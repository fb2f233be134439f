"""The manifest of a snapshot: its tree entries, and where their bytes are. JSON to records and back, no I/O.

FORMAT.md, section 6.1, is the specification. Paths are `str` as from `os.fsdecode` (names.py says why).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format.entries import MAX_MTIME, MIN_MTIME, FileEntry
from dumont_gpu.format.entry_json import (
    ENCODER,
    MAX_LINE,
    entry_from_json,
    entry_line,
    metadata_to_json,
    root_from_json,
)
from dumont_gpu.format.header import ChunkRecord, Header
from dumont_gpu.format.strict_json import as_object, digest_from_json, parse_json, typed, whole_number
from dumont_gpu.format.tree_rules import TreeRules
from dumont_gpu.sizes import GiB, MiB

MAX_ENTRIES: Final = 1 << 24
_MAX_MANIFEST: Final = 1 * GiB
_OPEN: Final = b'"entries":['  # ends the first line; then a tree entry on each line, for readers and `grep`
_CLOSE: Final = b"]}"


@dataclass(frozen=True, slots=True)
class Manifest:
    method: str
    tool: str
    created_ns: int
    chunk_digests: tuple[bytes, ...]  # of every chunk's encoded bytes
    digest: str  # name of the digest of chunks and extents; the header has a flag for it
    entries: Sequence[FileEntry]  # in the byte order of their paths
    root: FileEntry | None = None  # mode, time and owner of the packed directory itself

    def to_json(self) -> bytearray:
        """Returns the manifest as FORMAT.md lays it out.

        Raises:
            DumontError: the manifest would break a limit, so that no reader would accept it.
        """
        head: dict[str, Any] = {"method": self.method, "tool": self.tool, "created_ns": self.created_ns}
        if self.root is not None:
            head["root"] = metadata_to_json(self.root)
        head["chunks"] = [digest.hex() for digest in self.chunk_digests]
        if len(self.entries) > MAX_ENTRIES:
            raise DumontError(f"{len(self.entries)} entries; a snapshot may have {MAX_ENTRIES}")
        data = bytearray(ENCODER.encode(head)[:-1].encode() + b"," + _OPEN)
        separator = b"\n"
        for entry in self.entries:
            data += separator + entry_line(entry, self.digest).encode()
            separator = b",\n"
        data += b"\n" + _CLOSE + b"\n"
        return data


def manifest_limit(header: Header) -> int:
    """Returns how many bytes of JSON a manifest may have; readers check the limit before they decode the manifest.

    Raises:
        DamagedError: the header declares more entries than a snapshot may have.
    """
    if header.num_files > MAX_ENTRIES:
        raise DamagedError(f"the snapshot declares {header.num_files} entries; the limit is {MAX_ENTRIES}")
    return json_limit(header.num_chunks, header.num_files)


def json_limit(num_chunks: int, num_entries: int) -> int:
    """Returns how many bytes of JSON a manifest of so many chunks and entries may have."""
    return min(_MAX_MANIFEST, _head_limit(num_chunks) + MAX_LINE * (num_entries + 1))


def parse_manifest(data: bytes | bytearray, header: Header, chunks: Sequence[ChunkRecord]) -> Manifest:
    """Reads a manifest's JSON and checks it against FORMAT.md, the header and the chunk index.

    Raises:
        DamagedError: the JSON is malformed, or breaks a rule; the message names the entry.
    """
    lines = _lines(data, _head_limit(header.num_chunks))
    more = True  # whether the previous line ended in a comma, which announces another entry
    first = next(lines, b"")
    if not first.endswith(_OPEN):
        raise DamagedError("malformed manifest: its first line does not open the entries")
    head = as_object(parse_json(first + _CLOSE))
    entries: list[FileEntry] = []
    tree = TreeRules(chunks)
    for line in lines:
        if line == _CLOSE:
            break
        if not more:
            raise DamagedError("malformed manifest: a comma is missing between entries")
        more = line.endswith(b",")
        if len(entries) == header.num_files:
            raise DamagedError(f"the manifest has more entries than the {header.num_files} of the header")
        entry = entry_from_json(parse_json(line.removesuffix(b",")), header.digest)
        tree.check(entry)
        entries.append(entry)
    else:
        raise DamagedError("malformed manifest: it breaks off")
    if entries and more:
        raise DamagedError("malformed manifest: a comma after the last entry")
    if next(lines, None) is not None:
        raise DamagedError("malformed manifest: something follows it")
    if len(entries) != header.num_files:
        raise DamagedError(f"the manifest has {len(entries)} entries, the header says {header.num_files}")
    if sum(entry.size for entry in entries) != header.total_size_original:
        raise DamagedError("the sizes of the files do not add up to the size in the header")
    return Manifest(
        method=typed(head, "method", str),
        tool=typed(head, "tool", str),
        created_ns=whole_number(head, "created_ns", MAX_MTIME, MIN_MTIME),
        chunk_digests=_chunk_digests(head, chunks),
        entries=tuple(entries),
        digest=header.digest,
        root=root_from_json(as_object(head["root"])) if "root" in head else None,
    )


def _chunk_digests(head: dict[str, Any], chunks: Sequence[ChunkRecord]) -> tuple[bytes, ...]:
    digests = tuple(digest_from_json(text) for text in typed(head, "chunks", list))
    check_chunk_digests(digests, chunks)
    return digests


def check_chunk_digests(digests: Sequence[bytes], chunks: Sequence[ChunkRecord]) -> None:
    """Raises DamagedError unless the manifest's digests of chunks begin as the index says."""
    if len(digests) != len(chunks):
        raise DamagedError(f"{len(digests)} chunk digests for {len(chunks)} chunks")
    for number, (digest, chunk) in enumerate(zip(digests, chunks, strict=True)):
        if digest[: len(chunk.checksum)] != chunk.checksum:
            raise DamagedError(f"chunk {number}: index and manifest give different digests")


def _head_limit(num_chunks: int) -> int:
    return 1 * MiB + 80 * num_chunks  # a digest per chunk, and room for the other fields


def _lines(data: bytes | bytearray, first_limit: int) -> Iterator[bytes]:
    """Yields the manifest's lines; refuses long lines unparsed, so that hostile JSON cannot grow in memory."""
    start = 0
    limit = first_limit
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            raise DamagedError("malformed manifest: its last line does not end")
        if end - start > limit:
            raise DamagedError(f"malformed manifest: a line of {end - start} bytes; the limit is {limit}")
        yield bytes(data[start:end])
        start = end + 1
        limit = MAX_LINE
