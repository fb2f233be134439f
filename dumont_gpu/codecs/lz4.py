"""Codecs 1 and 2: standard LZ4 frames with independent 64 KiB blocks, fast or high compression.

Independent blocks let a GPU decode the 1024 blocks of a chunk at once. The `lz4` command line tool reads the frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import lz4.frame

from dumont_gpu.errors import DamagedError
from dumont_gpu.shortages import is_out_of_memory
from dumont_gpu.sizes import KiB, MiB

# Frames pass through the library in slices, so that its output buffers stay small enough for the allocator to reuse. A
# call for a whole chunk takes 64 MiB of fresh pages each time (3x slower, measured).
_ENCODE_SLICE: Final = 256 * KiB
_DECODED_PIECE: Final = 1 * MiB  # raw bytes of a slice, on average
_MIN_SLICE: Final = 16 * KiB  # LZ4 expands at most 255 times: 4 MiB
_MAX_SLICE: Final = 64 * KiB  # a hostile slice expands to 16 MiB
_MAX_FRAME_HEADER: Final = 19
_DICTIONARY_ID: Final = 1  # bit of the flags in byte 4
_FAST_LEVEL: Final = 0
_HC_LEVEL: Final = 9  # the lz4 tool's default for high compression


@dataclass(frozen=True, slots=True)
class Lz4:
    """Fast compression unless told otherwise; all levels write the same frames, and share the decoder."""

    id: int = 1
    name: str = "lz4"
    level: int = _FAST_LEVEL
    encode_rate: float = field(default=0.6e9, compare=False)  # measured on a Zen 4 core
    decode_rate: float = field(default=2.1e9, compare=False)  # measured on a Xeon core, on an environment
    element_size: int = field(default=1, compare=False)

    def encoder_memory(self, size: int) -> int:
        return 0

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        frame = lz4.frame.LZ4FrameCompressor(
            block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False, compression_level=self.level, auto_flush=True
        )
        size = 0

        def append(piece: bytes) -> bool:
            nonlocal size
            if size + len(piece) > len(out):
                return False
            out[size : size + len(piece)] = piece
            size += len(piece)
            return True

        if not append(frame.begin(len(chunk))):
            return 0
        for start in range(0, len(chunk), _ENCODE_SLICE):
            if not append(frame.compress(chunk[start : start + _ENCODE_SLICE])):
                return 0
        return size if append(frame.flush()) else 0

    def decode(self, encoded: memoryview, out: memoryview) -> None:
        if frame_content_size(encoded) != len(out):
            raise DamagedError(f"an LZ4 frame that does not declare {len(out)} bytes")
        size = 0
        for piece in _pieces(encoded, len(out)):
            out[size : size + len(piece)] = piece
            size += len(piece)


LZ4: Final = Lz4()
LZ4_HC: Final = Lz4(id=2, name="lz4_hc", level=_HC_LEVEL, encode_rate=0.1e9)


def decode_frame(encoded: memoryview, limit: int) -> bytearray:
    """Returns the content of a frame of at most `limit` raw bytes.

    Memory grows with the bytes decoded so far, not with the size that the frame declares: 50 bytes can declare 1 GiB.

    Raises:
        DamagedError: the frame is malformed, declares more than `limit` bytes, or holds another number of bytes than it
            declares.
    """
    declared = frame_content_size(encoded)
    if declared > limit:
        raise DamagedError(f"an LZ4 frame of {declared} bytes; it may have {limit}")
    out = bytearray()
    for piece in _pieces(encoded, declared):
        out += piece
    return out


def _pieces(encoded: memoryview, size: int) -> Iterator[bytes]:
    """Decodes a frame slice by slice; raises DamagedError unless the frame has `size` raw bytes and nothing follows."""
    frame = lz4.frame.LZ4FrameDecompressor()
    decoded = 0
    # Each slice takes the GIL, so slices are as large as the memory for their raw bytes allows.
    step = min(_MAX_SLICE, max(_MIN_SLICE, _DECODED_PIECE * len(encoded) // max(1, size)))
    try:
        for start in range(0, len(encoded), step):
            if frame.eof:
                raise DamagedError("bytes follow the end of an LZ4 frame")
            piece: bytes = frame.decompress(encoded[start : start + step])
            decoded += len(piece)
            if decoded > size:
                raise DamagedError(f"an LZ4 frame holds more than {size} bytes")
            yield piece
    except RuntimeError as error:
        raise _failure(error) from None
    if not frame.eof or frame.unused_data or decoded != size:
        raise DamagedError(f"an LZ4 frame holds {decoded} bytes instead of {size}, or something follows it")


def frame_header(size: int) -> bytes:
    """Returns the header of a frame of `size` raw bytes."""
    frame = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False)
    header: bytes = frame.begin(size)
    return header


def frame_content_size(encoded: memoryview | bytes) -> int:
    """Returns the raw size that an LZ4 frame declares.

    Raises:
        DamagedError: the bytes are no LZ4 frame, or the frame's blocks cannot be decoded side by side.
    """
    try:
        info = lz4.frame.get_frame_info(encoded[:_MAX_FRAME_HEADER])
    except RuntimeError as error:
        raise _failure(error) from None
    if encoded[4] & _DICTIONARY_ID:
        raise DamagedError("an LZ4 frame that needs a dictionary")
    if info["block_linked"] or info["block_size"] != 64 * KiB:
        raise DamagedError("an LZ4 frame whose blocks are not independent ones of 64 KiB")
    return int(info["content_size"])  # 0 if absent


def _failure(error: RuntimeError) -> Exception:
    """Tells lack of memory from a damaged frame: the library has one type of error for both."""
    return MemoryError() if is_out_of_memory(error) else DamagedError(f"malformed LZ4 frame: {error}")
