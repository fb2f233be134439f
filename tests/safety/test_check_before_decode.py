"""Nothing is decoded before its digest fits, nothing is allocated before its size is plausible."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile import (
    ENCODERS,
    Archive,
    clear_error,
    header_checksum,
    lz4_frame,
    refused,
    restored,
    sha256,
    small_archive,
    written,
)

import dumont_gpu.codecs.lz4 as lz4_codec
from dumont_gpu.codecs import CODECS, Codec, Lz4
from dumont_gpu.errors import DamagedError, UsageError
from dumont_gpu.format.header import STREAM_HEADER_SIZE
from dumont_gpu.format.manifest import MAX_ENTRIES
from dumont_gpu.jobs.options import RestoreOptions, VerifyOptions
from dumont_gpu.jobs.restore import restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import MemorySource

DATA = small_archive().to_bytes()
NUM_CHUNKS, MANIFEST_OFFSET = struct.unpack_from("<I", DATA, 16)[0], struct.unpack_from("<Q", DATA, 48)[0]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the codecs that were asked to decode, in order."""
    calls: list[str] = []

    def spy(kind: type[Codec]) -> None:
        original = kind.decode

        def decode(self: Codec, encoded: memoryview, out: memoryview) -> None:
            calls.append(self.name)
            original(self, encoded, out)

        monkeypatch.setattr(kind, "decode", decode)

    frame_pieces = lz4_codec._pieces  # of chunks and of the manifest

    def pieces(stored: memoryview, size: int) -> Iterator[bytes]:
        calls.append("lz4")
        return frame_pieces(stored, size)

    monkeypatch.setattr(lz4_codec, "_pieces", pieces)
    for kind in {type(codec) for codec in CODECS} - {Lz4}:  # whose pieces are seen
        spy(kind)
    return calls


def flipped(offset: int) -> bytes:
    data = bytearray(DATA)
    data[offset] ^= 0x10
    return bytes(data)


@pytest.mark.parametrize("offset", [20, 64, 480, 512, 512 + 24, MANIFEST_OFFSET, len(DATA) - 1])
def test_table_of_contents_is_checked_before_any_decoder_runs(offset: int, target: Path, decoded: list[str]) -> None:
    assert "SHA-256" in refused(flipped(offset), target)
    assert decoded == []


@pytest.mark.parametrize("codec", ENCODERS)
def test_chunk_is_checked_before_its_decoder_runs(codec: int, target: Path, decoded: list[str]) -> None:
    archive = Archive()
    archive.file("f", b"12345678" * 500, codec)
    data = bytearray(archive.to_bytes())
    data[4096] ^= 1
    message = clear_error(lambda: restored(bytes(data), target), DamagedError)
    assert "chunk 0" in message
    assert "digest" in message
    clear_error(lambda: verify(MemorySource(data), VerifyOptions(content=True)), DamagedError)
    assert decoded == ["lz4", "lz4"]  # the manifest, twice
    assert not any(content for _, content in written(target).values())


def test_index_and_manifest_must_agree_on_a_chunks_digest(target: Path) -> None:
    for fields in ({"checksum": bytes(8)}, {"digest": sha256(b"other").hex()}):
        archive = Archive()
        archive.file("f", b"content")
        for name, value in fields.items():
            setattr(archive.chunks[0], name, value)
        assert "different digests" in refused(archive, target)


def test_digest_of_a_chunk_is_checked_in_full(target: Path) -> None:
    """The eight bytes of the index alone could be forged with 2^64 tries."""
    archive = Archive()
    archive.file("f", b"content")
    archive.chunks[0].digest = (sha256(b"content")[:8] + bytes(24)).hex()
    clear_error(lambda: restored(archive, target), DamagedError)
    clear_error(lambda: verify(MemorySource(archive.to_bytes())), DamagedError)


def test_content_is_checked_before_it_is_written_when_asked_for(target: Path) -> None:
    archive = Archive()
    archive.file("f", b"content")["sha256"] = [sha256(b"what was packed").hex()]
    assert "f: " in clear_error(lambda: restored(archive, target, verify=True), DamagedError)
    assert not any(content for _, content in written(target).values())


# --- the snapshot id --------------------------------------------------------------------------------------------------


def test_another_snapshot_than_expected_is_refused(target: Path) -> None:
    ours = read_snapshot(MemorySource(DATA)).id
    archive = small_archive()
    archive.entries[0]["mode"] = 0o700  # as little as that
    data = archive.to_bytes()
    options = RestoreOptions(expect=ours)
    assert "another snapshot" in clear_error(lambda: restore(MemorySource(data), str(target), options), DamagedError)
    clear_error(lambda: verify(MemorySource(data), VerifyOptions(expect=ours)), DamagedError)
    assert not target.exists()


def test_expected_snapshot_is_accepted_however_its_id_is_written(target: Path) -> None:
    digits = read_snapshot(MemorySource(DATA)).id.removeprefix("sha256:")
    for spelled in (digits, f"sha256:{digits}", f"SHA256:{digits.upper()}"):
        assert read_snapshot(MemorySource(DATA), spelled).id == f"sha256:{digits}"


@pytest.mark.parametrize("expect", ["", "sha256:", "sha256:12", "md5:" + "0" * 64, "0" * 63, "0" * 65, "g" * 64])
def test_malformed_expectation_is_a_usage_error(expect: str) -> None:
    clear_error(lambda: read_snapshot(MemorySource(DATA), expect), UsageError)


def test_unexpected_snapshot_is_refused_after_its_header() -> None:
    source = CountingSource(DATA)
    clear_error(lambda: read_snapshot(source, "0" * 64), DamagedError)
    assert source.reads == [STREAM_HEADER_SIZE]


# --- sizes before memory ----------------------------------------------------------------------------------------------


MOST_AT_ONCE = 1 << 31


class CountingSource(MemorySource):
    """Claims to have `size` bytes, serves zeros beyond its data, and records the size of each read."""

    def __init__(self, data: bytes, size: int = 0) -> None:
        super().__init__(data)
        self.size = size or len(data)
        self.reads: list[int] = []

    def read_into(self, offset: int, out: memoryview) -> None:
        assert len(out) <= MOST_AT_ONCE
        self.reads.append(len(out))
        out[:] = bytes(len(out)) if offset + len(out) > len(self._data) else self._data[offset : offset + len(out)]


@pytest.mark.parametrize("size", [1 << 48, 1 << 62])
def test_stored_manifest_is_capped_before_it_is_read(size: int) -> None:
    """A sparse file costs an attacker nothing."""
    archive = Archive(header={"manifest_size": size})
    source = CountingSource(archive.to_bytes(), 4096 + size)
    clear_error(lambda: read_snapshot(source), DamagedError)


@pytest.mark.parametrize("count", [(1 << 22) + 1, 1 << 31, (1 << 32) - 1])
def test_index_is_capped_before_it_is_read(count: int) -> None:
    archive = Archive(header={"num_chunks": count, "manifest_offset": 1 << 40})
    source = CountingSource(archive.to_bytes(), (1 << 40) + len(archive.to_bytes()))
    clear_error(lambda: read_snapshot(source), DamagedError)
    assert source.reads == [STREAM_HEADER_SIZE]


def declared(size: int) -> bytes:
    """An LZ4 frame header that declares `size` bytes."""
    header = b"\x04\x22\x4d\x18\x68\x40" + struct.pack("<Q", size)
    return header + bytes([header_checksum(header[4:])]) + bytes(4)


def test_declared_frames_are_what_the_library_makes() -> None:
    assert lz4_frame(bytes(70_000)).startswith(declared(70_000)[:15])


@pytest.mark.parametrize("size", [1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_manifest_is_capped_before_it_is_decompressed(size: int, target: Path, decoded: list[str]) -> None:
    refused(Archive(stored_manifest=declared(size)), target)
    assert decoded == []


@pytest.mark.parametrize("count", [MAX_ENTRIES + 1, 10**9, (1 << 32) - 1])
def test_entries_are_capped_before_the_manifest_is_decompressed(count: int, target: Path, decoded: list[str]) -> None:
    assert "entries" in refused(Archive(header={"num_files": count}), target)
    assert decoded == []


def test_first_line_of_the_manifest_is_capped_before_it_is_parsed(target: Path) -> None:
    archive = Archive(head={"tool": " " * (2 << 20)})
    assert "a line of" in refused(archive, target)


def test_line_of_the_manifest_is_capped_before_it_is_parsed(target: Path) -> None:
    archive = Archive()
    archive.directory("d", comment=" " * (17 << 20))
    archive.header["num_files"] = 2  # so that the manifest as a whole may be that long
    assert "a line of" in refused(archive, target)
