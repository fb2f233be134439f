"""The first and the last block of a snapshot that is written forward, as into a pipe: bytes and back, no I/O.

FORMAT.md, section 3.1, is the specification.
"""

from __future__ import annotations

from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.format.header import FLAG_STREAM, STREAM_BLOCK, Header


def opening_header(flags: int, chunk_size: int) -> Header:
    """Returns the header of the first block: what is known before the first chunk, and zeros."""
    return Header(0, 0, 0, 0, chunk_size, 0, 0, bytes(32), bytes(32), flags | FLAG_STREAM)


def block_of(header: Header) -> bytes:
    """Returns the first or the last block of a stream."""
    return header.to_bytes().ljust(STREAM_BLOCK, b"\0")


def parse_closing(opening: Header, closing: bytes | bytearray, file_size: int) -> Header:
    """Reads the header in the last block of a stream, which says where everything is.

    Args:
        opening: the header of the first block.
        closing: the first 512 bytes of the last block.
        file_size: bytes in the whole file.

    Raises:
        DamagedError: the last block is not the end of this stream, as where the stream was cut short.
    """
    try:
        header = Header.parse_fields(closing)
    except (DamagedError, UnsupportedError):  # bytes of a chunk, say, which may look like anything
        raise DamagedError("the stream has no end: it was cut short, or is damaged there") from None
    header.check_layout(file_size)
    if opening != opening_header(header.flags, header.chunk_size):
        raise DamagedError("the first block of the stream contradicts the last")
    return header
