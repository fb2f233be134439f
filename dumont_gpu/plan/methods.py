"""Which codec for which bytes: the named policies of `--method`.

`hybrid_v2` is the hybrid method of the original Dumont snapshot module, where a map of extensions chooses the codec.
Here the map decides for small files only: for a file that is large enough, a probe of its bytes costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lz4.block

from dumont_gpu import native
from dumont_gpu.codecs import CODECS, LZ4, Codec, Raw, ZipNN
from dumont_gpu.errors import UsageError
from dumont_gpu.native import PROBE_CANDIDATES
from dumont_gpu.sizes import KiB

RAW: Final = Raw()

DEFAULT_METHOD: Final = "hybrid_v2"
# Every codec of plain bytes is a method of its own, which encodes all files.
UNIFORM_METHODS: Final[dict[str, Codec]] = {codec.name: codec for codec in CODECS if codec.element_size == 1}
METHODS: Final = (DEFAULT_METHOD, *sorted(UNIFORM_METHODS))

PROBE_MINIMUM: Final = 64 * KiB  # smaller files follow their extension: another open costs more than it saves
SAMPLE_SIZE: Final = 64 * KiB  # one LZ4 block
_PROBED: Final = 16 * KiB  # of a sample: 4,096 fp32 elements give stable byte statistics

# The extensions that hybrid_v2 keeps raw, for files too small to probe. All other files are LZ4.
_RAW_EXTENSIONS: Final = frozenset(
    {"gguf", "ggml", "q4_k_m", "q5_k_m"}
    | {"jpg", "jpeg", "png", "gif", "webp", "mp4", "mp3", "wav"}
    | {"zip", "gz", "7z", "rar", "bz2", "xz", "zst", "lz4", "whl", "jar", "npz", "dumont"}
)
_WORTH_DECODING: Final = 0.97  # a codec must save 3 %: raw bytes need no decoding
_CHANGE_MARGIN: Final = 0.01  # gain that justifies a change of codec within a file: fewer, longer runs


def check_method(name: str) -> str:
    """Returns `name`.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return name


def codec_for_small_file(path: str) -> Codec:
    """Returns the codec for a file that is not probed, by its extension."""
    return RAW if path.rpartition(".")[2].lower() in _RAW_EXTENSIONS else LZ4


def codec_for_sample(
    sample: memoryview, sample_offset: int, previous: tuple[Codec, int] | None = None
) -> tuple[Codec, int]:
    """Chooses a codec from a sample of a file's bytes.

    Args:
        sample: consecutive bytes, up to SAMPLE_SIZE.
        sample_offset: where in the file the sample starts.
        previous: the choice for the bytes before, kept unless another codec is clearly better.

    Returns:
        The codec, and the file offset modulo the element size at which elements start (0 for byte codecs).
    """
    costs: dict[tuple[Codec, int], float] = {(RAW, 0): _WORTH_DECODING}
    costs[LZ4, 0] = _lz4_fraction(sample)
    for (dtype, phase), fraction in zip(PROBE_CANDIDATES, native.probe(sample[:_PROBED]), strict=True):
        costs[ZipNN(dtype), (sample_offset + phase) % dtype.size] = fraction
    best = min(costs, key=costs.__getitem__)
    if previous in costs and costs[previous] <= costs[best] + _CHANGE_MARGIN:
        return previous
    return best


def _lz4_fraction(sample: Sequence[int] | memoryview) -> float:
    return len(lz4.block.compress(sample, store_size=False)) / len(sample) if len(sample) else 1.0
