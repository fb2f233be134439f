"""Header and chunk index: bytes to records and back."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest

from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.format.header import CHUNK_RECORD_SIZE, HEADER_SIZE, ChunkRecord, Header, index_to_bytes, parse_index

CHUNKS = (ChunkRecord(4096, 100, 5000, 1, b"12345678"), ChunkRecord(8192, 4096, 4096, 0, b"abcdefgh"))
INDEX = index_to_bytes(CHUNKS)
HEADER = Header(
    num_chunks=2,
    num_files=3,
    total_size_compressed=4196,
    total_size_original=9000,
    chunk_size=65536,
    manifest_offset=12288,
    manifest_size=50,
    index_sha256=hashlib.sha256(INDEX).digest(),
    manifest_sha256=bytes(32),
)
FILE_SIZE = 12338


def signed(body: bytes) -> bytes:
    return body[:480] + hashlib.sha256(body[:480]).digest()


def patched(offset: int, data: bytes) -> bytes:
    raw = bytearray(HEADER.to_bytes())
    raw[offset : offset + len(data)] = data
    return signed(bytes(raw))


def indexed(*chunks: ChunkRecord) -> tuple[bytes, Header]:
    data = index_to_bytes(chunks)
    stored = sum(chunk.size_compressed for chunk in chunks)
    header = replace(
        HEADER, num_chunks=len(chunks), total_size_compressed=stored, index_sha256=hashlib.sha256(data).digest()
    )
    return data, header


def test_header_round_trip() -> None:
    raw = HEADER.to_bytes()
    assert len(raw) == HEADER_SIZE
    assert Header.parse(raw, FILE_SIZE) == HEADER


def test_header_layout_is_that_of_the_specification() -> None:
    raw = HEADER.to_bytes()
    assert raw[:8] == b"DUMONT02"
    assert struct.unpack_from("<IIIIQQQQQ", raw, 8) == (2, 0, 2, 3, 4196, 9000, 65536, 12288, 50)
    assert HEADER.snapshot_id == "sha256:" + hashlib.sha256(raw[:480]).hexdigest()


def test_index_round_trip() -> None:
    assert len(INDEX) == 2 * CHUNK_RECORD_SIZE
    assert parse_index(INDEX, HEADER) == CHUNKS


@pytest.mark.parametrize("bit", range(0, HEADER_SIZE * 8, 7))
def test_any_flipped_header_bit_is_found(bit: int) -> None:
    raw = bytearray(HEADER.to_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises((DamagedError, UnsupportedError)):
        Header.parse(bytes(raw), FILE_SIZE)


@pytest.mark.parametrize("size", [0, 7, 8, 100, 511])
def test_short_header_is_damaged(size: int) -> None:
    with pytest.raises(DamagedError):
        Header.parse(HEADER.to_bytes()[:size], size)


@pytest.mark.parametrize(
    "raw",
    [b"DUMONT01" + bytes(504), b"DUMONT03" + bytes(504), patched(8, b"\3"), patched(12, b"\x08"), patched(13, b"\x80")],
    ids=["version 1", "magic 3", "version 3", "required flag 3", "required flag 15"],
)
def test_newer_or_older_versions_are_unsupported(raw: bytes) -> None:
    with pytest.raises(UnsupportedError):
        Header.parse(raw, FILE_SIZE)


def test_flags_of_the_upper_half_are_ignored() -> None:
    assert Header.parse(patched(14, b"\xff\xff"), FILE_SIZE).flags == 0xFFFF0000


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (128, b"\1"),  # reserved
        (40, struct.pack("<Q", 2**31)),  # chunk size
        (40, struct.pack("<Q", 0)),
        (48, struct.pack("<Q", 2**64 - 50)),  # manifest offset + size wraps to a small number
        (56, struct.pack("<Q", 51)),
        (16, struct.pack("<I", 0xFFFFFFFF)),  # chunks
        (16, struct.pack("<I", 1000)),
        (24, struct.pack("<Q", 2**64 - 1)),  # compressed size
    ],
)
def test_impossible_headers_are_damaged(offset: int, data: bytes) -> None:
    with pytest.raises(DamagedError):
        Header.parse(patched(offset, data), FILE_SIZE)


@pytest.mark.parametrize(
    "chunks",
    [
        [ChunkRecord(4096, 100, 0, 1, bytes(8))],
        [ChunkRecord(4096, 0, 100, 1, bytes(8))],
        [ChunkRecord(4096, 101, 100, 1, bytes(8))],
        [ChunkRecord(4096, 100, 65537, 1, bytes(8))],
        [ChunkRecord(4097, 100, 100, 1, bytes(8))],
        [ChunkRecord(0, 100, 100, 1, bytes(8))],
        [ChunkRecord(2**63, 100, 100, 1, bytes(8))],
        [ChunkRecord(8192, 4097, 4097, 0, bytes(8))],
        [ChunkRecord(4096, 4097, 5000, 1, bytes(8)), ChunkRecord(8192, 1, 1, 0, bytes(8))],
        [ChunkRecord(4096, 1, 1, 0, bytes(8)), ChunkRecord(4096, 1, 1, 0, bytes(8))],
    ],
    ids=["empty", "stored in 0", "grows", "too large", "unaligned", "in the header", "past the end", "in the manifest",
         "overlap", "same place"],
)  # fmt: skip
def test_impossible_chunks_are_damaged(chunks: list[ChunkRecord]) -> None:
    data, header = indexed(*chunks)
    with pytest.raises(DamagedError):
        parse_index(data, header)


def test_index_that_does_not_add_up_is_damaged() -> None:
    with pytest.raises(DamagedError, match="add up"):
        parse_index(INDEX, replace(HEADER, total_size_compressed=4195))
