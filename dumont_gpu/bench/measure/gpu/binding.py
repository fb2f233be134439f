"""nvCOMP through its Python binding, `nvcomp.Codec`: raw LZ4 blocks, and whole chunks as ANS and zstd.

nvCOMP 5 takes and makes lists of arrays, nvCOMP 6 batches; both have a length and can be indexed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

ANS_TYPES: Final = {"half": "<f2", "fp32": "<f4", "fp8": "|f1"}  # as the binding spells them
ANS_TYPES_BEFORE_6: Final = {"half": "<f2"}


def codec_options(element: str, version: str) -> dict[str, dict[str, str]]:
    """The options of each peer, by its name; `element` as in `nvcomp.ans_variants`."""
    types = ANS_TYPES if int(version.partition(".")[0]) >= 6 else ANS_TYPES_BEFORE_6
    typed = {"ANS, by the binding": {"algorithm": "ANS", "data_type": types[element]}} if element in types else {}
    return {**typed, "zstd, by the binding": {"algorithm": "Zstd"}}


class CodedChunks:
    """`count` chunks of `size` bytes in a CuPy array, and what a codec makes of the first ones.

    Args:
        stream: a CuPy stream.
        block: the codec cuts chunks into blocks of so many bytes.
        options: of `nvcomp.Codec`.
    """

    def __init__(self, stream: Any, resident: Any, size: int, block: int, options: dict[str, str]) -> None:
        from nvidia import nvcomp

        self._stream, self._as_arrays = stream, nvcomp.as_arrays
        self._chunks = [resident[start : start + size] for start in range(0, resident.size, size)]
        self._codec = nvcomp.Codec(cuda_stream=stream.ptr, uncomp_chunk_size=block, **options)
        self._encoded: Any = []

    def encode(self, count: int) -> None:
        """Encodes the first `count` chunks."""
        self._encoded = self._codec.encode(self._as_arrays(self._chunks[:count], self._stream.ptr))

    def decode(self) -> Any:
        """Decodes what was encoded last into new arrays, which it returns."""
        return self._codec.decode(self._encoded)

    def stored(self) -> float:
        """The size of what was encoded last, by the original size."""
        self._stream.synchronize()
        sizes = [int(self._encoded[number].buffer_size) for number in range(len(self._encoded))]
        return sum(sizes) / (len(sizes) * int(self._chunks[0].size))

    def last_decoded(self) -> memoryview:
        decoded = self.decode()
        return on_host(decoded[len(decoded) - 1])


def decode_lz4_blocks(blocks: Sequence[memoryview]) -> list[memoryview]:
    """Decodes raw LZ4 blocks on the current device."""
    import cupy
    import numpy as np
    from nvidia import nvcomp

    cuda = nvcomp.DecompressBackend.NVCOMP_DECOMPRESS_BACKEND_CUDA
    codec = nvcomp.Codec(algorithm="LZ4", bitstream_kind=nvcomp.BitstreamKind.RAW, decompress_backend=cuda)
    sources = [cupy.asarray(np.frombuffer(block, np.uint8)) for block in blocks]
    cupy.cuda.get_current_stream().synchronize()  # the codec has a stream of its own
    decoded = codec.decode(nvcomp.as_arrays(sources))
    return [on_host(decoded[number]) for number in range(len(decoded))]


def on_host(array: Any) -> memoryview:
    """The bytes of an array of the binding's, once they are there."""
    import cupy

    cupy.cuda.runtime.deviceSynchronize()
    return memoryview(cupy.asarray(array).view("u1").ravel().get()).cast("B")
