"""Written from dumont_gpu/FORMAT.md alone, as a second opinion: a reader of .dumont files in pure Python.

It shares no code with the program and borrows only LZ4 frames and the blocks of zstd frames, so the two agree only where
the document says the same to both. It holds everything in memory and is slow: for tests. "Section" in a comment means a
section of FORMAT.md.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import itertools
import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import lz4.frame
import zstandard
from blake3 import blake3

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ALIGNMENT = 4 * KIB
MOST_HELD = GIB  # original bytes; more are sound, but too many for a reader that returns them

NONCE = 32  # bytes after the header in both blocks of a stream
HEADER = struct.Struct("<8s4I5Q32s32s352s32s")
CHUNK = struct.Struct("<QIIB8s")
ZIPNN = struct.Struct("<2s2sBBBBB4sBBBQQ")

Fetch = Callable[[int, int], bytes]  # takes an offset in the file and a size


class Unsupported(Exception):  # noqa: N818 - the document's word
    """The file needs something that this reader does not know."""


def read(data: bytes) -> dict[str, object]:
    """Return the tree in a snapshot: path to bytes (files, hard links), str (a symlink's target) or None (directories).

    Raises:
        ValueError: the file is damaged, or is no snapshot.
        Unsupported: the snapshot has another version, or needs a flag or codec unknown here.
    """
    snapshot = read_table(data)
    check_stored(data, snapshot)
    return read_contents(data, snapshot)


def read_table(data: bytes) -> Snapshot:
    """Check header, index and manifest, as `info` and `ls` do. Raises as `read`."""
    header = parse_header(lambda offset, size: data[offset : offset + size], len(data))
    chunks = parse_index(data[header.index_start : header.index_end], header)
    digests, entries = parse_manifest(data, header, chunks)
    return Snapshot(header, chunks, digests, entries)


def check_stored(data: bytes, snapshot: Snapshot) -> None:
    """Check the encoded bytes of every chunk, and the zeros between chunks, as `verify` does. Raises as `read`."""
    check_padding(data, snapshot.header, snapshot.chunks)
    for chunk, digest in zip(snapshot.chunks, snapshot.digests, strict=True):
        must(snapshot.header.digest_of(chunk.stored(data)) == digest, "chunk digest")


def read_contents(data: bytes, snapshot: Snapshot, used_only: bool = False) -> dict[str, object]:
    """Decode all chunks (if `used_only`, the chunks that files need), and return the tree as `read` does."""
    header, entries = snapshot.header, snapshot.entries
    if header.total_size_original > MOST_HELD:
        raise Unsupported(f"{header.total_size_original} original bytes are too many to return")

    contents = {entry.path: bytearray(entry.size) for entry in entries if entry.kind == "file"}
    users: list[list[tuple[Entry, Extent]]] = [[] for _ in snapshot.chunks]
    for entry in entries:
        for extent in entry.extents:
            users[extent.chunk].append((entry, extent))
    for chunk, digest, uses in zip(snapshot.chunks, snapshot.digests, users, strict=True):
        if used_only and not uses:
            continue
        stored = chunk.stored(data)
        must(header.digest_of(stored) == digest, "chunk digest")
        original = decode_chunk(stored, chunk)
        for entry, extent in uses:
            piece = original[extent.chunk_offset : extent.chunk_offset + extent.length]
            must(header.digest_of(piece) == extent.digest, "extent digest")
            contents[entry.path][extent.file_offset : extent.file_offset + extent.length] = piece

    tree: dict[str, object] = {}
    for entry in entries:
        value: object = None
        if entry.kind == "symlink":
            value = os.fsdecode(entry.target)
        elif entry.kind != "dir":
            value = bytes(contents[entry.target or entry.path])
        tree[os.fsdecode(entry.path)] = value
    return tree


def must(holds: object, rule: str) -> None:
    """Raise ValueError with the broken `rule` unless it holds."""
    if not holds:
        raise ValueError(f"damaged: {rule}")


# --- Header: section 3


@dataclass(frozen=True, slots=True)
class Header:
    num_chunks: int
    num_files: int
    total_size_compressed: int
    total_size_original: int
    chunk_size: int
    manifest_offset: int
    manifest_size: int
    index_sha256: bytes
    manifest_sha256: bytes
    flags: int

    @property
    def digest_name(self) -> str:
        return "blake3" if self.flags & 1 else "sha256"

    def digest_of(self, data: bytes) -> bytes:
        return blake3(data).digest() if self.flags & 1 else hashlib.sha256(data).digest()

    @property
    def in_columns(self) -> bool:
        return bool(self.flags & 2)

    @property
    def most_head(self) -> int:
        """The L of section 6.2."""
        return min(512 * MIB, MIB + 32 * self.num_chunks + 32_818 * self.num_files)

    @property
    def is_stream(self) -> bool:
        return bool(self.flags & 4)

    @property
    def manifest_end(self) -> int:
        return self.manifest_offset + self.manifest_size

    @property
    def index_start(self) -> int:
        return self.manifest_end if self.is_stream else HEADER.size

    @property
    def index_end(self) -> int:
        return self.index_start + CHUNK.size * self.num_chunks

    @property
    def first_chunk(self) -> int:
        """Where the first chunk may start, at the earliest."""
        return ALIGNMENT if self.is_stream else aligned(self.index_end)

    @property
    def file_size(self) -> int:
        return aligned(self.index_end) + ALIGNMENT if self.is_stream else self.manifest_end


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def parse_header(fetch: Fetch, file_size: int) -> Header:
    """Check the header of a file; of a stream, its first block and its last."""
    first = fetch(0, min(HEADER.size, file_size))
    header = parse_fields(first)
    if header.is_stream:
        must(file_size >= 2 * ALIGNMENT, "the two blocks of a stream")
        last = file_size - ALIGNMENT
        must(fetch(HEADER.size, NONCE) == fetch(last + HEADER.size, NONCE), "nonce")
        header = parse_closing(fetch(last, HEADER.size), header)
    must(header.file_size == file_size, "size of the file")
    most = min(GIB, MIB + 80 * header.num_chunks + 16 * MIB * (header.num_files + 1))
    most += most // 128 + 64 * KIB
    must(header.manifest_size <= (header.most_head + GIB + 8 * MIB if header.in_columns else most), "manifest_size")
    room = header.manifest_offset - header.first_chunk
    must(room >= 0 and header.total_size_compressed <= room, "room for chunks")
    return header


def parse_closing(data: bytes, opening: Header) -> Header:
    """Check the last block of a stream against the first: section 3.1."""
    try:
        header = parse_fields(data)
    except Unsupported as error:
        raise ValueError(f"damaged: last block of a stream: {error}") from None
    must(opening == Header(0, 0, 0, 0, header.chunk_size, 0, 0, bytes(32), bytes(32), header.flags), "first block")
    return header


def parse_fields(data: bytes) -> Header:
    """Check the 512 bytes of a header, but not where the parts of the file lie."""
    if data[:8] != b"DUMONT02":
        if re.fullmatch(rb"DUMONT[0-9]{2}", data[:8]):
            raise Unsupported(f"magic {data[:8]!r}")
        raise ValueError("no snapshot")
    must(len(data) >= HEADER.size, "header is cut short")
    _, version, flags, *fields, reserved, own_sha256 = HEADER.unpack_from(data)
    must(hashlib.sha256(data[:480]).digest() == own_sha256, "header_sha256")
    if version != 2:
        raise Unsupported(f"version {version}")
    if flags & 0xFFF8:
        raise Unsupported(f"flags {flags:#x}")

    header = Header(*fields, flags)
    must(not any(reserved), "reserved bytes")
    must(header.num_chunks <= 4_194_304 and header.num_files <= 16_777_216, "counts")
    must(4 * KIB <= header.chunk_size <= GIB, "chunk_size")
    return header


# --- Chunk index: section 4


@dataclass(frozen=True, slots=True)
class Chunk:
    offset: int
    size_compressed: int
    size_original: int
    codec: int
    checksum: bytes

    def stored(self, data: bytes) -> bytes:
        return data[self.offset : self.offset + self.size_compressed]


def parse_index(index: bytes, header: Header) -> list[Chunk]:
    must(hashlib.sha256(index).digest() == header.index_sha256, "index_sha256")
    chunks = [Chunk(*fields) for fields in CHUNK.iter_unpack(index)]
    for chunk in chunks:
        must(chunk.offset % ALIGNMENT == 0, "offset of a chunk")
        must(1 <= chunk.size_compressed <= chunk.size_original <= header.chunk_size, "sizes of a chunk")
    must(sum(chunk.size_compressed for chunk in chunks) == header.total_size_compressed, "total_size_compressed")
    for end, offset in gaps(header, chunks):
        must(offset >= end, "parts overlap")
    for chunk in chunks:
        if chunk.codec not in DECODERS:
            raise Unsupported(f"codec {chunk.codec}")
    return chunks


def gaps(header: Header, chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Return where each part ends and the next part begins, from the index (or the first block) to the manifest."""
    parts = sorted((chunk.offset, chunk.offset + chunk.size_compressed) for chunk in chunks)
    before = [(0, ALIGNMENT)] if header.is_stream else [(0, header.index_end)]
    parts = [*before, *parts, (header.manifest_offset, header.manifest_end)]
    return [(end, start) for (_, end), (start, _) in itertools.pairwise(parts)]


def check_padding(data: bytes, header: Header, chunks: list[Chunk]) -> None:
    """Check that zeros stand between the parts."""
    for end, offset in gaps(header, chunks):
        must(not any(data[end:offset]), "bytes between the parts")
    if header.is_stream:
        must(not any(data[HEADER.size + NONCE : ALIGNMENT]), "rest of the first block")
        must(not any(data[header.index_end : -ALIGNMENT]), "bytes before the last block")
        must(not any(data[HEADER.size + NONCE - ALIGNMENT :]), "rest of the last block")


# --- Codecs: section 5


def decode_chunk(stored: bytes, chunk: Chunk) -> bytes:
    original = DECODERS[chunk.codec](stored, chunk.size_original)
    must(len(original) == chunk.size_original, "size_original")
    return original


def decode_lz4(stored: bytes, most: int) -> bytes:
    """Decode an LZ4 frame with a content size of at most `most` bytes."""
    must(len(stored) >= 15 and stored[:4] == b"\x04\x22\x4d\x18", "magic of an LZ4 frame")
    # Version 1, independent blocks, content size, no dictionary; bits 2 and 4 are the checksums. Blocks of 64 KiB.
    must(stored[4] & 0b11101011 == 0b01101000 and stored[5] == 0x40, "kind of LZ4 frame")
    size = int.from_bytes(stored[6:14], "little")
    must(size <= most, "content size")
    frame = lz4.frame.LZ4FrameDecompressor()  # lz4.frame.decompress would take the memory that the frame declares
    try:
        original = bytes(frame.decompress(stored))
    except RuntimeError as error:
        raise ValueError(f"damaged: {error}") from None
    must(frame.eof and not frame.unused_data and len(original) == size, "LZ4 frame")
    return original


@dataclass(frozen=True, slots=True)
class Dtype:
    """A ZipNN dtype. In `word`, 32 bits after the sign was moved, lie the exponents, the signs and the mantissas."""

    element: int
    byte_order: int = 10
    sign_moved: int | None = None
    word: tuple[int, int, int] | None = None


DTYPES = {
    1: Dtype(4, 220, 1, (0xFF000000, 0x00800000, 0x007FFFFF)),  # fp32
    4: Dtype(2, sign_moved=0),  # fp16
    6: Dtype(2, sign_moved=1, word=(0xFF00FF00, 0x00800080, 0x007F007F)),  # bf16
    29: Dtype(1),  # fp8 e4m3
    30: Dtype(1),  # fp8 e5m2
}
DTYPES |= {2: DTYPES[1], 5: DTYPES[4]}


def decode_zipnn(stored: bytes, original_size: int) -> bytes:
    """Decode a ZipNN stream of `original_size` original bytes, or a sequence of streams: section 5.2."""
    original = b""
    at = 0
    while at < len(stored) or at == 0:
        dtype, sequence, block_log2, size, total = parse_zipnn_header(stored[at:])
        must(sequence or (at == 0 and total == len(stored)), "bytes after a ZipNN stream that stands alone")
        must(size <= original_size - len(original), "original bytes of a ZipNN stream")
        original += decode_stream(stored[at : at + total], dtype, block_log2, size)
        at += total
    must(len(original) == original_size, "original bytes of a ZipNN stream")
    return original


def decode_zstd(stored: bytes, original_size: int) -> bytes:
    """Check the header of a zstd frame and where its blocks end, and have a library decode them: section 5.3."""
    must(stored[:4] == b"\x28\xb5\x2f\xfd" and len(stored) >= 6, "magic of a zstd frame")
    flags, exponent, eighths = stored[4], stored[5] >> 3, stored[5] & 7
    must(flags & 0b1011 == 0, "dictionary or reserved bit of a zstd frame")
    single = flags >> 5 & 1
    start = 6 - single
    width = (single, 2, 4, 8)[flags >> 6]
    at = start + width
    must(width and at <= len(stored), "content size of a zstd frame is missing")
    size = int.from_bytes(stored[start:at], "little") + (256 if width == 2 else 0)
    must(size == original_size, "content size of a zstd frame")
    must((size if single else (8 + eighths << 10 + exponent) // 8) <= 128 * MIB, "window of a zstd frame")
    last = 0
    while not last:
        must(at + 3 <= len(stored), "last block of a zstd frame")
        block = int.from_bytes(stored[at : at + 3], "little")
        last, kind, length = block & 1, block >> 1 & 3, block >> 3
        must(kind < 3, "type of a zstd block")
        at += 3 + (1 if kind == 1 else length)
    must(at + (4 if flags & 4 else 0) == len(stored), "end of a zstd frame")
    try:
        return bytes(zstandard.ZstdDecompressor().stream_reader(stored).read(size + 1))
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged: {error}") from None


DECODERS: dict[int, Callable[[bytes, int], bytes]] = {
    0: lambda stored, size: stored,
    1: decode_lz4,
    2: decode_lz4,
    3: decode_zipnn,
    4: decode_zstd,
}


def parse_zipnn_header(stream: bytes) -> tuple[Dtype, int, int, int, int]:
    """Return dtype, byte 13, log2 of the block size, original bytes and bytes of the stream that begins here."""
    must(len(stream) >= ZIPNN.size, "ZipNN header is cut short")
    (magic, version, _, order, moved, method, plain, zero, sequence, block_log2, number, size, total) = (
        ZIPNN.unpack_from(stream)
    )
    must(magic == b"ZN", "magic of a ZipNN stream")
    dtype = DTYPES.get(number)
    if dtype is None or version != b"\x00\x05" or method > 1 or plain != 1 or any(zero) or 0 < sequence < 128:
        raise Unsupported("kind of ZipNN stream")
    if order != dtype.byte_order or dtype.sign_moved not in (moved, None):
        raise Unsupported("bytes 5 and 6 of a ZipNN stream of this dtype")
    if not dtype.element <= 1 << block_log2 <= 1 << 62:
        raise Unsupported("block size of a ZipNN stream")
    must(ZIPNN.size <= total <= len(stream), "bytes of a ZipNN stream")
    return dtype, sequence, block_log2, size, total


def decode_stream(stream: bytes, dtype: Dtype, block_log2: int, size: int) -> bytes:
    """Decode the tables and blocks of a stream whose header has been checked."""
    planes = dtype.element
    block_size = min(1 << block_log2, 128 * KIB) if planes == 1 else 1 << block_log2
    blocks = -(-size // block_size)
    tables_end = ZIPNN.size + planes * blocks * 9
    must(tables_end <= len(stream), "ZipNN tables are cut short")
    types = stream[ZIPNN.size : ZIPNN.size + planes * blocks]
    ends = struct.unpack_from(f"<{planes * blocks}Q", stream, ZIPNN.size + planes * blocks)

    sizes = [min(block_size, size - start) for start in range(0, size, block_size)]
    originals = [bytearray(length) for length in sizes]
    at = tables_end
    for plane in range(planes):
        start = at
        for block, length in enumerate(sizes):
            end = start + ends[plane * blocks + block]
            must(at <= end <= len(stream), "bounds of a ZipNN block")
            count = length // planes + (plane < length % planes)
            originals[block][plane::planes] = decode_plane(types[plane * blocks + block], stream[at:end], count)
            at = end
    must(at == len(stream), "bytes left over in a ZipNN stream")
    return b"".join(restore_signs(original, dtype) for original in originals)


def restore_signs(block: bytearray, dtype: Dtype) -> bytes:
    """Move the sign bits of a block back to the top: all its 32-bit words at once, as one long integer."""
    if dtype.word is None:
        return bytes(block)
    words = len(block) // 4
    exponents, signs, mantissas = (int.from_bytes(mask.to_bytes(4, "little") * words, "little") for mask in dtype.word)
    moved = int.from_bytes(block[: 4 * words], "little")
    restored = (moved & exponents) >> 1 | (moved & signs) << 8 | moved & mantissas
    return restored.to_bytes(4 * words, "little") + block[4 * words :]


def decode_plane(kind: int, stored: bytes, count: int) -> bytes:
    """Decode a block of a group to `count` bytes."""
    must(kind in (0, 1), "type of a ZipNN block")
    if len(stored) == count:
        return stored
    must(kind == 1 and 1 <= len(stored) < count, "size of a ZipNN block")
    if len(stored) == 1:
        return stored * count
    return decode_huff0(stored, count)


# --- Huff0


def decode_huff0(stored: bytes, count: int) -> bytes:
    """Decode a tree description, a jump table and four bit streams to `count` symbols."""
    must(count <= 128 * KIB, "size of a Huff0 block")
    weights, used = parse_weights(stored)
    cells, width = decoding_table(weights)
    at = used + 6
    must(at <= len(stored), "jump table is cut short")
    sizes = struct.unpack_from("<3H", stored, used)
    quarter = -(-count // 4)
    original = bytearray()
    for size in sizes:
        must(at + size <= len(stored), "jump table")
        original += decode_symbols(stored[at : at + size], cells, width, quarter)
        at += size
    return bytes(original + decode_symbols(stored[at:], cells, width, count - 3 * quarter))


def backward_bits(stream: bytes) -> str:
    """Return the bits of a stream that is read backwards, in reading order, as digits; the marker is left out."""
    must(stream and stream[-1], "end mark of a bit stream")
    return f"{int.from_bytes(stream, 'little'):b}"[1:]


def decode_symbols(stream: bytes, cells: dict[str, tuple[int, int]], width: int, count: int) -> bytes:
    bits = backward_bits(stream)
    end = len(bits)
    bits += "0" * width  # the last codes may be shorter than a look-up
    symbols = bytearray()
    at = 0
    while at < end:
        symbol, length = cells[bits[at : at + width]]
        symbols.append(symbol)
        at += length
    must(at == end and len(symbols) == count, "symbols of a bit stream")
    return bytes(symbols)


def decoding_table(weights: list[int]) -> tuple[dict[str, tuple[int, int]], int]:
    """Return the cells, (symbol, bits of its code) by their binary digits, and tableLog: how many digits."""
    must(len(weights) < 256 and all(weight < 12 for weight in weights), "weights")
    total = sum(1 << weight >> 1 for weight in weights)
    must(total, "a tree without symbols")
    width = total.bit_length()
    rest = (1 << width) - total
    must(width <= 12 and rest & (rest - 1) == 0, "sum of weights")
    weights = [*weights, rest.bit_length()]
    must(weights.count(1) >= 2 and weights.count(1) % 2 == 0, "symbols of weight 1")

    cells = [
        (symbol, width + 1 - weight)
        for weight in range(1, width + 1)
        for symbol in range(len(weights))
        if weights[symbol] == weight
        for _ in range(1 << weight - 1)
    ]
    return {f"{number:0{width}b}": cell for number, cell in enumerate(cells)}, width


def parse_weights(data: bytes) -> tuple[list[int], int]:
    """Return the written weights, and the bytes that the tree description takes."""
    must(data, "tree description is cut short")
    first = data[0]
    used = 1 + first if first < 128 else 1 + (first - 127 + 1) // 2
    must(used <= len(data), "tree description is cut short")
    if first < 128:
        return fse_weights(data[1:used]), used
    halves = [half for byte in data[1:used] for half in (byte >> 4, byte & 15)]
    return halves[: first - 127], used


# --- FSE: RFC 8878, sections 4.1 and 4.2.1.2


def fse_weights(data: bytes) -> list[int]:
    """Decode weights that two states read in turn from a backward stream, until an update finds too few bits."""
    accuracy, counts, used = fse_counts(data)
    must(accuracy <= 6, "accuracy log of weights")
    cells = fse_table(accuracy, counts)
    bits = backward_bits(data[used:])
    at = 2 * accuracy
    must(at <= len(bits), "states of weights")
    states = [int(bits[:accuracy], 2), int(bits[accuracy:at], 2)]
    weights: list[int] = []
    while len(weights) < 255:
        symbol, length, base = cells[states[0]]
        weights.append(symbol)
        if at + length > len(bits):
            return [*weights, cells[states[1]][0]]
        states = [states[1], base + int("0" + bits[at : at + length], 2)]
        at += length
    raise ValueError("damaged: too many weights")


def fse_counts(data: bytes) -> tuple[int, list[int], int]:
    """Return accuracy log, normalised counts (-1: "less than one") and the bytes that they take."""
    number = int.from_bytes(data, "little")
    accuracy = (number & 15) + 5
    at = 4
    counts: list[int] = []
    left = 1 << accuracy
    while left > 0:
        must(len(counts) < 256, "symbols of an FSE table")
        width = (left + 1).bit_length()
        spare = (1 << width) - 1 - (left + 1)  # so many values take a bit less
        value = number >> at & (1 << width) - 1
        low = value & (1 << width - 1) - 1
        if low < spare:
            value, width = low, width - 1
        elif value != low:
            value -= spare
        at += width
        counts.append(value - 1)
        left -= abs(value - 1)
        repeat = 3 if value == 1 else 0
        while repeat == 3:
            repeat = number >> at & 3
            at += 2
            must(at <= 8 * len(data), "FSE table is cut short")
            counts += [0] * repeat
    must(left == 0 and at <= 8 * len(data), "FSE table")
    return accuracy, counts, -(-at // 8)


def fse_table(accuracy: int, counts: list[int]) -> list[tuple[int, int, int]]:
    """Return for each state its symbol, the bits that the next state takes, and the base that they are added to."""
    size = 1 << accuracy
    symbols = [-1] * size
    rare = [symbol for symbol, count in enumerate(counts) if count == -1]
    symbols[size - len(rare) :] = reversed(rare)
    at = 0
    for symbol, count in enumerate(counts):
        for _ in range(count):
            symbols[at] = symbol
            at = (at + (size >> 1) + (size >> 3) + 3) % size
            while at >= size - len(rare):
                at = (at + (size >> 1) + (size >> 3) + 3) % size

    following = [abs(count) for count in counts]
    cells = []
    for symbol in symbols:
        length = accuracy + 1 - following[symbol].bit_length()
        cells.append((symbol, length, (following[symbol] << length) - size))
        following[symbol] += 1
    return cells


# --- Manifest: section 6


@dataclass(frozen=True, slots=True)
class Extent:
    file_offset: int
    chunk: int
    chunk_offset: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    path: bytes
    kind: str
    size: int = 0
    extents: tuple[Extent, ...] = ()
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Snapshot:
    header: Header
    chunks: list[Chunk]
    digests: list[bytes]
    entries: list[Entry]


def parse_manifest(data: bytes, header: Header, chunks: list[Chunk]) -> tuple[list[bytes], list[Entry]]:
    """Return the digests of the chunks, and the entries."""
    parse = parse_columns if header.in_columns else parse_json
    digests, entries = parse(data, header, chunks)
    check_tree(entries)
    must(len(entries) == header.num_files, "num_files")
    must(sum(entry.size for entry in entries) == header.total_size_original, "total_size_original")
    return digests, entries


def check_tree(entries: list[Entry]) -> None:
    """Check the rules of section 6.3 that hold between entries."""
    kinds: dict[bytes, str] = {b"": "dir"}
    before = b""
    for entry in entries:
        must(before < entry.path, "order of paths")
        must(kinds.get(entry.path.rpartition(b"/")[0]) == "dir", "directory of an entry")
        must(entry.kind != "hardlink" or kinds.get(entry.target) == "file", "target of a hard link")
        kinds[entry.path] = entry.kind
        before = entry.path


def check_path(path: bytes) -> bytes:
    must(len(path) <= 32 * KIB and b"\0" not in path, "path")
    for component in path.split(b"/"):
        must(component not in (b"", b".", b"..") and len(component) <= 255, "component of a path")
    return path


def check_extent(extent: Extent, end: int, size: int, chunks: list[Chunk]) -> int:
    """Check an extent that follows another, which ends at `end`, in a file of `size` bytes; return its own end."""
    must(extent.length > 0 and end <= extent.file_offset, "order of extents")
    end = extent.file_offset + extent.length
    must(end <= size and extent.chunk < len(chunks), "extent outside its file, or of no chunk")
    must(extent.chunk_offset + extent.length <= chunks[extent.chunk].size_original, "extent outside its chunk")
    return end


def check_facts(facts: dict[str, object]) -> None:
    string(facts.get("method"))
    string(facts.get("tool"))
    integer(facts.get("created_ns"), -(1 << 63), (1 << 63) - 1)
    if "root" in facts:
        root = facts["root"]
        must(isinstance(root, dict), "root")
        check_metadata(dict(root))  # type: ignore[call-overload]


# --- Manifest in JSON: section 6.1


def parse_json(data: bytes, header: Header, chunks: list[Chunk]) -> tuple[list[bytes], list[Entry]]:
    stored = data[header.manifest_offset : header.manifest_end]
    must(hashlib.sha256(stored).digest() == header.manifest_sha256, "manifest_sha256")
    all_lines = decode_lz4(stored, GIB).split(b"\n")
    must(len(all_lines) >= 3, "lines of the manifest")
    first, *lines, last, nothing = all_lines
    must(first.endswith(b'"entries":[') and last == b"]}" and nothing == b"", "layout of the manifest")
    must(len(first) <= MIB + 80 * header.num_chunks, "length of the manifest's first line")
    must(len(lines) == header.num_files, "num_files")

    head = json_object(first + b"]}")
    check_facts(head)
    digests = [digest(value) for value in array(head.get("chunks"))]
    must([chunk.checksum for chunk in chunks] == [value[:8] for value in digests], "digests of chunks")

    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        must(len(line) <= 16 * MIB, "length of a manifest's line")
        must(line.endswith(b",") == (number < len(lines)), "comma after an entry")
        entries.append(parse_entry(json_object(line.removesuffix(b",")), chunks, header))
    return digests, entries


def parse_entry(record: dict[str, object], chunks: list[Chunk], header: Header) -> Entry:
    path = check_path(name(record, "path"))
    kind = string(record.get("type"))
    must(kind in ("file", "dir", "symlink", "hardlink"), "type of an entry")
    if kind == "hardlink":
        return Entry(path, kind, target=name(record, "target"))
    check_metadata(record)
    if kind == "dir":
        return Entry(path, kind)
    if kind == "symlink":
        target = name(record, "target")
        must(1 <= len(target) <= 32 * KIB and b"\0" not in target, "target of a symlink")
        return Entry(path, kind, target=target)
    size = integer(record.get("size"), 0, (1 << 63) - 1)
    must(type(record.get("changed", False)) is bool, "changed")
    return Entry(path, kind, size, parse_extents(record, size, chunks, header))


def check_metadata(record: dict[str, object]) -> None:
    """Check mode, time and owner of an entry, or of the root."""
    integer(record.get("mode"), 0, 0o7777)
    integer(record.get("mtime_ns"), -(1 << 63), (1 << 63) - 1)
    if "owner" in record:
        owner = array(record["owner"])
        must(len(owner) == 2, "owner")
        for number in owner:
            integer(number, 0, (1 << 32) - 2)


def parse_extents(record: dict[str, object], size: int, chunks: list[Chunk], header: Header) -> tuple[Extent, ...]:
    places, digests = array(record.get("extents")), array(record.get(header.digest_name))
    must(len(places) == len(digests) and len(places) <= 100_000, "one digest per extent, 100,000 extents")
    extents = []
    end = 0
    for place, text in zip(places, digests, strict=True):
        numbers = array(place)
        must(len(numbers) == 4, "fields of an extent")
        at, chunk, chunk_offset, length = (integer(number, 0, (1 << 63) - 1) for number in numbers)
        extent = Extent(at, chunk, chunk_offset, length, digest(text))
        end = check_extent(extent, end, size, chunks)
        extents.append(extent)
    return tuple(extents)


def json_object(text: bytes) -> dict[str, object]:
    must(text[:1] == b"{" and text[-1:] == b"}", "nothing around a JSON object")
    try:
        value = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=no_json)
    except RecursionError:
        raise ValueError("damaged: JSON is nested too deeply") from None
    must(isinstance(value, dict), "a JSON object")
    return dict(value)


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    must(len(dict(pairs)) == len(pairs), "a key twice in a JSON object")
    return dict(pairs)


def no_json(constant: str) -> object:
    raise ValueError(f"damaged: {constant} is not JSON")


def array(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("damaged: a JSON array is missing")
    return value


def string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("damaged: a JSON string is missing")
    return value


def integer(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:  # a bool is an int, but not here
        raise ValueError("damaged: a JSON number is missing or out of bounds")
    return value


def digest(value: object) -> bytes:
    text = string(value)
    must(re.fullmatch("[0-9a-f]{64}", text), "digits of a digest")
    return bytes.fromhex(text)


def name(record: dict[str, object], key: str) -> bytes:
    """Return the bytes of `key`, or of its base64 field if the bytes are not UTF-8."""
    must((key in record) != (f"{key}_b64" in record), f"{key} is missing or doubled")
    if key in record:
        return string(record[key]).encode()
    encoded = string(record[f"{key}_b64"]).encode()
    decoded = base64.b64decode(encoded, validate=True)
    must(base64.b64encode(decoded) == encoded, f"{key}_b64 is spelled in another way")
    return decoded


# --- Manifest in columns: section 6.2

HEAD = struct.Struct("<3I")
PAGE = struct.Struct("<4I32sH")
KINDS = ("file", "dir", "symlink", "hardlink")
COLUMNS = (
    *("prefix", "suffix", "type", "mode", "mtime", "size", "extents"),
    *("gap", "piece", "chunk", "at", "rest", "digest", "target"),
)
OPTIONAL = ("changed", "uid", "gid")


@dataclass(frozen=True, slots=True)
class PageRecord:
    offset: int
    frame_size: int
    page_size: int
    num_entries: int
    num_pieces: int
    frame_sha256: bytes
    first_path: bytes
    first_piece: int


@dataclass(frozen=True, slots=True)
class Piece:
    chunk: int
    chunk_offset: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Page:
    entries: list[Entry]
    pieces: list[Piece]
    names: int  # bytes that paths and targets take, each with a NUL


def parse_columns(data: bytes, header: Header, chunks: list[Chunk]) -> tuple[list[bytes], list[Entry]]:
    digests, records = parse_head(data[header.manifest_offset : header.manifest_end], header, chunks)
    pages = Pages(records, chunks, lambda offset, size: data[offset : offset + size])
    entries: list[Entry] = []
    names = extents = 0
    for number in range(len(records)):
        page = pages.page(number)
        entries += page.entries
        names += page.names
        extents += sum(len(entry.extents) for entry in page.entries)
        must(names <= GIB and extents <= 1 << 25, "bytes of names, or extents in all")
    return digests, entries


def read_directory(fetch: Fetch, file_size: int, directory: bytes) -> list[Entry]:
    """Return the entries below a directory, without fetching pages that have none of them. Raises as `read`."""
    header = parse_header(fetch, file_size)
    chunks = parse_index(fetch(header.index_start, header.index_end - header.index_start), header)
    must(header.manifest_size >= HEAD.size, "head is cut short")
    head_size = HEAD.unpack(fetch(header.manifest_offset, HEAD.size))[0]
    must(head_size <= header.manifest_size, "head_size")
    _, records = parse_head(fetch(header.manifest_offset, head_size), header, chunks)

    below = directory + b"/"
    firsts = [record.first_path for record in records]
    start = max(0, bisect.bisect_right(firsts, below) - 1)
    end = bisect.bisect_left(firsts, directory + b"0")  # the byte after the slash
    pages = Pages(records, chunks, fetch)
    found = [entry for number in range(start, end) for entry in pages.page(number).entries]
    must(all(a.path < b.path for a, b in itertools.pairwise(found)), "order of paths")
    return [entry for entry in found if entry.path.startswith(below)]


def parse_head(data: bytes, header: Header, chunks: list[Chunk]) -> tuple[list[bytes], list[PageRecord]]:
    """Return the digests of chunks, and the page records, from the start of a manifest."""
    must(len(data) >= HEAD.size, "head is cut short")
    head_size, facts_size, num_pages = HEAD.unpack_from(data)
    must(head_size <= min(header.most_head + 12, header.manifest_size, len(data)), "head_size")
    head = data[:head_size]
    must(hashlib.sha256(head).digest() == header.manifest_sha256, "manifest_sha256")
    at = HEAD.size + facts_size
    must(facts_size <= MIB and at + 32 * header.num_chunks <= head_size, "facts_size")
    must(num_pages <= 1 << 20, "num_pages")
    check_facts(json_object(head[HEAD.size : at]))
    digests = [head[at + 32 * number : at + 32 * number + 32] for number in range(header.num_chunks)]
    must([chunk.checksum for chunk in chunks] == [value[:8] for value in digests], "digests of chunks")

    at += 32 * header.num_chunks
    offset, first_piece, raw, count, before = header.manifest_offset + head_size, 0, 0, 0, b""
    records = []
    for _ in range(num_pages):
        must(at + PAGE.size <= head_size, "page records")
        frame_size, page_size, num_entries, num_pieces, frame_sha256, path_size = PAGE.unpack_from(head, at)
        at += PAGE.size
        path = head[at : at + path_size]
        at += path_size
        must(at <= head_size and 1 <= path_size <= 32 * KIB and before < path, "first_path")
        must(page_size <= 16 * MIB and num_entries >= 1, "page_size and num_entries")
        records.append(
            PageRecord(offset, frame_size, page_size, num_entries, num_pieces, frame_sha256, path, first_piece)
        )
        offset, first_piece, raw = offset + frame_size, first_piece + num_pieces, raw + page_size
        count, before = count + num_entries, path
    must(at == head_size and raw <= GIB and count == header.num_files, "page records")
    must(offset == header.manifest_offset + header.manifest_size, "end of the pages")
    return digests, records


class Pages:
    """The pages of a manifest. A page is fetched when its entries, or the pieces that are new in it, are needed."""

    def __init__(self, records: list[PageRecord], chunks: list[Chunk], fetch: Fetch) -> None:
        self.records, self.chunks, self.fetch = records, chunks, fetch
        self.first_pieces = [record.first_piece for record in records]
        self.read: dict[int, Page] = {}

    def page(self, number: int) -> Page:
        if number not in self.read:
            record = self.records[number]
            frame = self.fetch(record.offset, record.frame_size)
            must(hashlib.sha256(frame).digest() == record.frame_sha256, "frame_sha256")
            page = decode_zstd(frame, record.page_size)
            must(len(page) == record.page_size, "page_size")
            self.read[number] = PageParser(page, record, self).parse()
        return self.read[number]

    def piece(self, number: int) -> Piece:
        """Return a piece of a page that is not being read."""
        page = bisect.bisect_right(self.first_pieces, number) - 1  # the last that begins there: others have none
        return self.page(page).pieces[number - self.first_pieces[page]]


class Column:
    """The values of a column, in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        must(self.at + count <= len(self.data), "a column ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                must(value < 1 << 64 and (byte or shift == 7), "spelling of a number")
                return value
            must(shift < 70, "length of a number")

    def difference(self, before: int) -> int:
        """Return the 64-bit number that differs from `before` by the column's next value."""
        value = self.number()
        return (before + (-(value + 1) // 2 if value & 1 else value // 2)) % (1 << 64)

    def text(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        must(end >= 0, "a text without an end")
        return self.take(end + 1 - self.at)[:-1]


class PageParser:
    """Reads the entries of a page."""

    def __init__(self, page: bytes, record: PageRecord, pages: Pages) -> None:
        self.record, self.pages = record, pages
        self.columns = split_columns(page)
        self.pieces: list[Piece] = []
        self.path, self.mtime = b"", 0
        self.names = 0

    def parse(self) -> Page:
        entries = [self.entry() for _ in range(self.record.num_entries)]
        must(all(column.at == len(column.data) for column in self.columns.values()), "a column is not used up")
        must(len(self.pieces) == self.record.num_pieces, "num_pieces")
        must(entries[0].path == self.record.first_path, "first_path")
        return Page(entries, self.pieces, self.names)

    def entry(self) -> Entry:
        columns = self.columns
        shared, suffix = columns["prefix"].number(), columns["suffix"].text()
        must(shared <= len(self.path), "prefix")
        must(not suffix or suffix[:1] != self.path[shared : shared + 1], "prefix is not all that is equal")
        path = self.path = check_path(self.path[:shared] + suffix)
        self.names += len(path) + 1
        number = columns["type"].byte()
        must(number < 4, "type of an entry")
        kind = KINDS[number]
        if kind != "hardlink":
            must(columns["mode"].number() <= 0o7777, "mode")
            self.mtime = columns["mtime"].difference(self.mtime)
            if "uid" in columns:
                uid, gid = columns["uid"].number(), columns["gid"].number()
                must(max(uid, gid) < 1 << 32 and (uid == 0) == (gid == 0), "owner")
        if kind in ("symlink", "hardlink"):
            target = columns["target"].text()
            self.names += len(target) + 1
            must(kind == "hardlink" or 1 <= len(target) <= 32 * KIB, "target of a symlink")
            return Entry(path, kind, target=target)
        if kind == "dir":
            return Entry(path, kind)
        must("changed" not in columns or columns["changed"].byte() < 2, "changed")
        size = columns["size"].number()
        must(size < 1 << 63, "size")
        return Entry(path, kind, size, self.extents(size))

    def extents(self, size: int) -> tuple[Extent, ...]:
        count = self.columns["extents"].number()
        must(count <= 100_000, "number of extents")
        extents = []
        end = 0
        for _ in range(count):
            offset = end + self.columns["gap"].number()
            must(offset < size, "gap")
            piece = self.piece(size - offset)
            extent = Extent(offset, piece.chunk, piece.chunk_offset, piece.length, piece.digest)
            end = check_extent(extent, end, size, self.pages.chunks)
            extents.append(extent)
        return tuple(extents)

    def piece(self, left: int) -> Piece:
        """Return the piece of an extent that begins `left` bytes before the end of its file."""
        back = self.columns["piece"].number()
        if back:
            must(back <= self.record.first_piece + len(self.pieces), "piece")
            number = len(self.pieces) - back
            return self.pieces[number] if number >= 0 else self.pages.piece(self.record.first_piece + number)
        before = self.pieces[-1] if self.pieces else Piece(0, 0, 0, b"")
        chunk = self.columns["chunk"].difference(before.chunk)
        end = before.chunk_offset + before.length if chunk == before.chunk else 0
        piece = Piece(
            chunk,
            self.columns["at"].difference(end),
            left - self.columns["rest"].number(),
            self.columns["digest"].take(32),
        )
        self.pieces.append(piece)
        return piece


def split_columns(page: bytes) -> dict[str, Column]:
    """Return the columns of a page that section 6.2 knows."""
    table = Column(page)
    rows = []
    for _ in range(int.from_bytes(table.take(2), "little")):
        name = table.take(table.byte())
        rows.append((name, int.from_bytes(table.take(4), "little")))
    must(len(rows) <= 64 and len({name for name, _ in rows}) == len(rows), "names of columns")
    found = {name: Column(table.take(size)) for name, size in rows}
    must(table.at == len(page), "sizes of columns")
    must(all(name.encode() in found for name in COLUMNS), "a column is missing")
    must((b"uid" in found) == (b"gid" in found), "uid without gid")
    return {name: found[name.encode()] for name in (*COLUMNS, *OPTIONAL) if name.encode() in found}
