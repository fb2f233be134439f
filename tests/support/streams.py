"""Turns a snapshot into a stream (FORMAT.md, section 3.1), whole or with one thing wrong."""

from __future__ import annotations

import struct

from support.hostile import aligned, sha256

BLOCK = 4096
FLAG = 4
NONCE = bytes(range(32))
HEADER = struct.Struct("<8s4I5Q32s32s352s")
NAMES = (
    *("magic", "version", "flags", "num_chunks", "num_files", "total_size_compressed", "total_size_original"),
    *("chunk_size", "manifest_offset", "manifest_size", "index_sha256", "manifest_sha256", "reserved"),
)
KNOWN = ("magic", "version", "flags", "chunk_size")  # of the first block


def as_stream(
    data: bytes,
    opening: dict[str, object] | None = None,
    closing: dict[str, object] | None = None,
    *,
    gap: bytes = b"",
) -> bytes:
    """Returns a stream with the chunks and the manifest of the snapshot `data`.

    Args:
        data: a snapshot that is no stream.
        opening: fields of the first block's header that shall differ; "nonce", and "rest": the bytes after the nonce.
        closing: the same of the last block.
        gap: stands between the index and the last block, instead of as many zeros as there must be.
    """
    header = dict(zip(NAMES, HEADER.unpack(data[: HEADER.size]), strict=True))
    header["flags"] |= FLAG
    zeros = {name: header[name] if name in KNOWN else type(header[name])() for name in NAMES}
    index_end, manifest = 512 + 25 * header["num_chunks"], header["manifest_offset"]
    chunks = bytearray(data[BLOCK:manifest])
    chunks[: max(0, index_end - BLOCK)] = bytes(max(0, index_end - BLOCK))
    end = data[manifest:] + data[512:index_end]
    size = BLOCK + len(chunks) + len(end)
    gap = gap or bytes(aligned(size) - size)
    return block(zeros | (opening or {})) + bytes(chunks) + end + gap + block(header | (closing or {}))


def block(fields: dict[str, object]) -> bytes:
    """Returns the first or the last block of a stream."""
    body = HEADER.pack(*(fields[name] for name in NAMES))
    nonce, rest = fields.get("nonce", NONCE), fields.get("rest", b"")
    assert isinstance(nonce, bytes)
    assert isinstance(rest, bytes)
    return body + sha256(body) + nonce + rest.ljust(BLOCK - 544, b"\0")
