"""Which codec for which bytes: the named policies of `--method`.

`hybrid_v2` is the hybrid method of the original Dumont snapshot module: an extension map gives the first hint. Here a
probe of the bytes decides wherever a file is large enough to pay for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lz4.block

from dumont_gpu import native
from dumont_gpu.codecs import Codec, Lz4, Lz4Hc, Raw, ZipNN
from dumont_gpu.errors import UsageError
from dumont_gpu.native import PROBE_CANDIDATES, Dtype
from dumont_gpu.sizes import KiB

DEFAULT_METHOD: Final = "hybrid_v2"
RAW: Final = Raw()
LZ4: Final = Lz4()
UNIFORM_METHODS: Final[dict[str, Codec]] = {"lz4": LZ4, "lz4_hc": Lz4Hc(), "none": RAW}
METHODS: Final = (DEFAULT_METHOD, *UNIFORM_METHODS)

PROBE_MINIMUM: Final = (
    64 * KiB
)  # smaller files follow their extension: opening each once more would cost more than it saves
SAMPLE_SIZE: Final = 64 * KiB  # one LZ4 block
_PROBED: Final = 16 * KiB  # of a sample: 4,096 fp32 elements give stable byte statistics

# The extension map of hybrid_v2, for files too small to probe. Anything else is LZ4.
_STORED_EXTENSIONS: Final = frozenset(
    [
        "gguf",
        "ggml",
        "q4_k_m",
        "q5_k_m",
        "jpg",
        "jpeg",
        "png",
        "gif",
        "webp",
        "mp4",
        "mp3",
        "wav",
        "zip",
        "gz",
        "7z",
        "rar",
        "bz2",
        "xz",
        "zst",
        "lz4",
        "whl",
        "jar",
        "npz",
        "dumont",
    ]
)
_WORTH_DECODING: Final = 0.97  # a codec must save 3 %: stored bytes cost nothing to bring back
_CHANGE_MARGIN: Final = 0.01  # a different codec must be this much better than the one before: fewer, longer runs


def check_method(name: str) -> str:
    """Returns `name`.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return name


def codec_for_small_file(path: str) -> Codec:
    """Returns what the extension map says of a file that is not probed."""
    return RAW if path.rpartition(".")[2].lower() in _STORED_EXTENSIONS else LZ4


def codec_for_sample(
    sample: memoryview, sample_offset: int, previous: tuple[Codec, int] | None = None
) -> tuple[Codec, int]:
    """Decides from a sample of a file's bytes.

    Args:
        sample: consecutive bytes, up to SAMPLE_SIZE.
        sample_offset: where in the file they stand.
        previous: the decision for the bytes before, kept unless another one is clearly better.

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


def codec_for_dtype(name: str) -> ZipNN | None:
    """Returns the codec for elements that a safetensors header calls `name`; None for what is no float it knows."""
    dtype = _SAFETENSORS_DTYPES.get(name)
    return None if dtype is None else ZipNN(dtype)


def element_size(codec: Codec) -> int:
    """Bytes of which a chunk of this codec must hold a multiple."""
    return codec.dtype.size if isinstance(codec, ZipNN) else 1


_SAFETENSORS_DTYPES: Final = {
    "F32": Dtype.FP32,
    "F16": Dtype.FP16,
    "BF16": Dtype.BF16,
    "F8_E4M3": Dtype.FP8_E4M3,
    "F8_E5M2": Dtype.FP8_E5M2,
}


def _lz4_fraction(sample: Sequence[int] | memoryview) -> float:
    return len(lz4.block.compress(sample, store_size=False)) / len(sample) if len(sample) else 1.0
