"""Codec 4: one standard zstd frame, for text and code; the `zstd` command line tool reads the frames.

One call of the library encodes a whole chunk, or decodes it from buffer to buffer, without the GIL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dumont_gpu import native
from dumont_gpu.errors import DamagedError
from dumont_gpu.sizes import KiB, MiB

# The zstd tool's default. On an environment, level 1 encodes 1.6 times as fast and writes 19 % more; level 6 takes
# three times as long and writes 9 % less.
LEVEL: Final = 3
MAX_LEVEL: Final = 19  # from 20 on, windows and contexts take hundreds of MiB, and the tool asks for --ultra
MAX_WINDOW: Final = 128 * MiB  # the zstd tool's own limit when it decodes

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_DESCRIPTOR: Final = 4  # offset of the byte that says which fields follow
_DICTIONARY_ID: Final = 0b0000_0011  # bits of the descriptor
_CHECKSUM: Final = 0b0000_0100
_RESERVED: Final = 0b0000_1000
_SINGLE_SEGMENT: Final = 0b0010_0000
_SIZE_FIELDS: Final = (0, 2, 4, 8)  # bytes of the content size, by bits 6 and 7; 0 is 1 in a single segment
_SIZE_BIAS: Final = 256  # is added to a content size of two bytes
_CHECKSUM_SIZE: Final = 4
_NO_MEMORY: Final = "Allocation error"  # ZSTD_error_memory_allocation


@dataclass(frozen=True, slots=True)
class Zstd:
    id: int = 4
    name: str = "zstd"
    level: int = LEVEL
    # Measured on a Xeon core, on an environment at LEVEL. Whoever asks for a higher level has decided to wait: a method
    # does not choose otherwise then.
    encode_rate: float = field(default=0.25e9, compare=False)
    decode_rate: float = field(default=1.2e9, compare=False)
    element_size: int = field(default=1, compare=False)

    def encoder_memory(self, size: int) -> int:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(self.level, source_size=size)
        return int(parameters.estimated_compression_context_size()) + size + size // 128 + MiB  # context and frame

    def encode(self, chunk: memoryview, out: memoryview) -> int:
        import zstandard  # 20 ms, for those who have such chunks

        # In one call, which allocates the frame: from buffer to buffer, the library only has streams, which first copy
        # each byte into a window. That takes 1.15 times as long, and finds fewer repetitions.
        try:
            frame = zstandard.ZstdCompressor(level=self.level).compress(chunk)
        except zstandard.ZstdError as error:
            raise _failure(error) from None
        if len(frame) > len(out):
            return 0
        out[: len(frame)] = frame
        return len(frame)

    def decode(self, encoded: memoryview, out: memoryview) -> None:
        frame = parse_frame_header(encoded)
        if frame.content_size != len(out):
            raise DamagedError(f"a zstd frame that does not declare {len(out)} bytes")
        blocks = encoded[frame.size :]
        if native.zstd_blocks(blocks) + frame.checksum_size != len(blocks):
            raise DamagedError("bytes follow the end of a zstd frame, or its checksum is cut short")
        if not out:  # the library's reader would wait for room for ever
            return
        import zstandard

        # The library sees the end of the frame and room for its content, so it decodes into `out` and takes no window.
        try:
            with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(encoded) as content:
                size = content.readinto(out)
        except zstandard.ZstdError as error:
            raise _failure(error) from None
        if size != len(out):
            raise DamagedError(f"a zstd frame holds {size} bytes instead of {len(out)}")


ZSTD: Final = Zstd()


@dataclass(frozen=True, slots=True)
class FrameHeader:
    size: int  # bytes before the first block
    content_size: int  # the raw size that the frame declares
    checksum_size: int  # bytes after the last block


def parse_frame_header(encoded: memoryview) -> FrameHeader:
    """Reads the header of a frame; takes no memory, whatever the header declares.

    Raises:
        DamagedError: the bytes are no zstd frame, or FORMAT.md does not allow such a frame.
    """
    if bytes(encoded[:_DESCRIPTOR]) != _MAGIC or len(encoded) <= _DESCRIPTOR:
        raise DamagedError("no zstd frame")
    descriptor = encoded[_DESCRIPTOR]
    if descriptor & _DICTIONARY_ID:
        raise DamagedError("a zstd frame that needs a dictionary")
    if descriptor & _RESERVED:
        raise DamagedError("a zstd frame with a reserved bit")
    single_segment = bool(descriptor & _SINGLE_SEGMENT)
    at = _DESCRIPTOR + 1 + (not single_segment)  # a single segment has no byte for the window
    width = _SIZE_FIELDS[descriptor >> 6] or int(single_segment)
    if not width:
        raise DamagedError("a zstd frame without a content size")
    if len(encoded) < at + width:
        raise DamagedError("the header of a zstd frame is cut short")
    content_size = int.from_bytes(encoded[at : at + width], "little") + (_SIZE_BIAS if width == 2 else 0)
    window = content_size if single_segment else _window_size(encoded[_DESCRIPTOR + 1])
    if window > MAX_WINDOW:
        raise DamagedError(f"a zstd frame with a window of {window} bytes; it may have {MAX_WINDOW}")
    return FrameHeader(at + width, content_size, _CHECKSUM_SIZE if descriptor & _CHECKSUM else 0)


def _window_size(code: int) -> int:
    """RFC 8878, 3.1.1.1.2: a power of two from 1 KiB, and so many eighths of it."""
    base = KiB << (code >> 3)
    return base + base // 8 * (code & 7)


def _failure(error: Exception) -> Exception:
    """Tells lack of memory from a damaged frame: the library has one type of error for both."""
    return MemoryError() if _NO_MEMORY in str(error) else DamagedError(f"malformed zstd frame: {error}")
