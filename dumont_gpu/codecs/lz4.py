"""Codecs 1 and 2: standard LZ4 frames with independent 64 KiB blocks, fast or high compression.

Independent blocks let a GPU decode the 1024 blocks of a chunk at once; the `lz4` command line tool reads the frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import lz4.frame

from dumont_gpu.errors import DamagedError
from dumont_gpu.shortages import is_out_of_memory
from dumont_gpu.sizes import KiB, MiB

# Frames pass through the library in slices: its output buffers stay small enough for the allocator to reuse them,
# where one call for a whole chunk takes 64 MiB of fresh pages each time (3x slower, measured).
_ENCODE_SLICE: Final = 256 * KiB
_DECODED_PIECE: Final = 1 * MiB  # what a slice should decode to, on average
_MIN_SLICE: Final = 16 * KiB  # LZ4 expands at most 255 times: 4 MiB
_MAX_SLICE: Final = 64 * KiB  # a hostile one: 16 MiB
_MAX_FRAME_HEADER: Final = 19
_DICTIONARY_ID: Final = 1  # bit of the flags in byte 4
_FAST_LEVEL: Final = 0
_HC_LEVEL: Final = 9  # the lz4 tool's default for high compression


@dataclass(frozen=True, slots=True)
class Lz4:
    id: int = 1
    name: str = "lz4"
    level: int = _FAST_LEVEL

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

    def decode(self, stored: memoryview, out: memoryview) -> None:
        if frame_content_size(stored) != len(out):
            raise DamagedError(f"an LZ4 frame that does not declare {len(out)} bytes")
        size = 0
        for piece in _pieces(stored, len(out)):
            out[size : size + len(piece)] = piece
            size += len(piece)


def decode_frame(stored: memoryview, limit: int) -> bytearray:
    """Returns what a frame of at most `limit` original bytes holds.

    Memory grows with what has been decoded, not with the size that the frame declares: 50 bytes can declare 1 GiB.

    Raises:
        DamagedError: a malformed frame, one that declares more than `limit` bytes, or another size than it holds.
    """
    declared = frame_content_size(stored)
    if declared > limit:
        raise DamagedError(f"an LZ4 frame of {declared} bytes; it may have {limit}")
    out = bytearray()
    for piece in _pieces(stored, declared):
        out += piece
    return out


def _pieces(stored: memoryview, size: int) -> Iterator[bytes]:
    """Decodes a frame slice by slice. Raises DamagedError unless it holds exactly `size` bytes, and nothing follows."""
    frame = lz4.frame.LZ4FrameDecompressor()
    decoded = 0
    # Each slice takes the GIL: as few as the memory for what one may expand to allows.
    step = min(_MAX_SLICE, max(_MIN_SLICE, _DECODED_PIECE * len(stored) // max(1, size)))
    try:
        for start in range(0, len(stored), step):
            if frame.eof:
                raise DamagedError("bytes follow the end of an LZ4 frame")
            piece: bytes = frame.decompress(stored[start : start + step])
            decoded += len(piece)
            if decoded > size:
                raise DamagedError(f"an LZ4 frame holds more than {size} bytes")
            yield piece
    except RuntimeError as error:
        raise _failure(error) from None
    if not frame.eof or frame.unused_data or decoded != size:
        raise DamagedError(f"an LZ4 frame holds {decoded} bytes instead of {size}, or something follows it")


def frame_header(size: int) -> bytes:
    """Returns what stands before the blocks of a frame of `size` original bytes."""
    frame = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False)
    header: bytes = frame.begin(size)
    return header


def Lz4Hc() -> Lz4:  # noqa: N802
    """High compression: slower to encode, the same frame and the same decoder."""
    return Lz4(id=2, name="lz4_hc", level=_HC_LEVEL)


def frame_content_size(stored: memoryview | bytes) -> int:
    """Returns the original size that an LZ4 frame declares.

    Raises:
        DamagedError: no LZ4 frame, one without a size, or one whose blocks a device could not decode side by side.
    """
    try:
        info = lz4.frame.get_frame_info(stored[:_MAX_FRAME_HEADER])
    except RuntimeError as error:
        raise _failure(error) from None
    if stored[4] & _DICTIONARY_ID:
        raise DamagedError("an LZ4 frame that needs a dictionary")
    if info["block_linked"] or info["block_size"] != 64 * KiB:
        raise DamagedError("an LZ4 frame whose blocks are not independent ones of 64 KiB")
    return int(info["content_size"])  # 0: absent


def _failure(error: RuntimeError) -> Exception:
    """What an error of the library means: it has one type for frames and for memory."""
    return MemoryError() if is_out_of_memory(error) else DamagedError(f"malformed LZ4 frame: {error}")
