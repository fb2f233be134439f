"""The first and the last block of a snapshot that is written forward, as into a pipe: bytes and back, no I/O.

FORMAT.md, section 3.1, is the specification.
"""

from __future__ import annotations

from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.format.header import FLAG_STREAM, HEADER_SIZE, STREAM_BLOCK, Header


def opening_header(flags: int, chunk_size: int) -> Header:
    """Returns the header of the first block: what is known before the first chunk, and zeros."""
    return Header(0, 0, 0, 0, chunk_size, 0, 0, bytes(32), bytes(32), flags | FLAG_STREAM)


def block_of(header: Header, nonce: bytes) -> bytes:
    """Returns the first or the last block of a stream.

    The nonce is 32 random bytes, the same in both blocks. A file that is packed may have been made to hold last blocks,
    each right for the place where it will lie; nobody can have made it hold the nonce.
    """
    return (header.to_bytes() + nonce).ljust(STREAM_BLOCK, b"\0")


def parse_closing(first: bytes | bytearray, closing: bytes | bytearray, file_size: int) -> Header:
    """Reads the header in the last block of a stream, which says where everything is.

    Args:
        first: the first 544 bytes of the first block, whose header is sound (fewer only if the file is shorter).
        closing: the first 544 bytes of the last block.
        file_size: bytes in the whole file.

    Raises:
        DamagedError: the last block is not the end of this stream, as where the stream was cut short.
    """
    try:
        header = Header.parse_fields(closing)
    except (DamagedError, UnsupportedError):  # bytes of a chunk, say, which may look like anything
        raise DamagedError("the stream has no end: it was cut short, or is damaged there") from None
    header.check_layout(file_size)
    if first[HEADER_SIZE:] != closing[HEADER_SIZE:]:
        raise DamagedError("the stream was cut short: what is at its end is the end of another stream")
    opening = Header.parse_fields(first)
    if opening != opening_header(header.flags, header.chunk_size):
        raise DamagedError("the first block of the stream contradicts the last")
    return header
