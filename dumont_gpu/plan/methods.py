"""Which codec for which bytes: the named policies of `--method`.

`hybrid_v2` is the hybrid method of the original Dumont snapshot module, where a map of extensions chooses the codec.
Here the map decides for small files only: for a file that is large enough, a probe of its bytes costs little. Its
choices are frozen. `hybrid_v3` adds zstd, where that lets a user wait for a shorter time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

import lz4.block

from dumont_gpu import native
from dumont_gpu.codecs import CODECS, LZ4, ZSTD, Codec, Raw, ZipNN, Zstd
from dumont_gpu.codecs.zstd import LEVEL
from dumont_gpu.errors import UsageError
from dumont_gpu.native import PROBE_CANDIDATES
from dumont_gpu.sizes import LOCAL, KiB

RAW: Final = Raw()

DEFAULT_METHOD: Final = "hybrid_v3"
DEFAULT_LINK: Final = 125_000_000  # bytes per second: 1 Gbit/s
# Every codec of plain bytes is a method of its own, which encodes all files.
_UNIFORM: Final[dict[str, Codec]] = {codec.name: codec for codec in CODECS if codec.element_size == 1}
HYBRID_METHODS: Final = ("hybrid_v3", "hybrid_v2")
METHODS: Final = (*HYBRID_METHODS, *sorted(_UNIFORM))

PROBE_MINIMUM: Final = 64 * KiB  # smaller files are not looked at: another open costs more than it saves
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

# A user waits for encoding, for the link, and for decoding. Packing and restoring use all cores: four are few for a
# machine with a GPU. The number is fixed, or the same tree would give other bytes on another machine.
_CORES: Final = 4
# Of a sample of 64 KiB, hybrid_v2 takes 170 us for LZ4 and the probe; this part takes as long with zstd, too. All three
# see the same bytes: within a window, sizes vary more than the differences between codecs.
_COMPARED: Final = 16 * KiB
_COMPARED_LEVEL: Final = 1
# zstd looks further back than a sample goes. On an environment of 358 MB, chunks at level 3 take 0.76 (libraries), 0.80
# (bytecode), 0.78 (source) and 0.96 (archives) of what samples at level 1 promise, where LZ4 leaves 0.48, 0.41, 0.34
# and 0.80: each per cent that LZ4 saves stands for some 0.3 % that zstd saves beyond its sample.
_BEYOND_SAMPLE: Final = 0.3
# A sample is a small part of its window: to leave zstd wrongly loses more than to leave it rightly gains. Of that
# environment, 0.07 makes 0.3 % less than 0.05. LZ4 samples of 64 KiB would make 0.3 % less again, in half as much more
# time for all choices.
_DOUBT: Final = 0.07

Choice: TypeAlias = tuple[Codec, int]  # a codec, and the file offset modulo its element size at which elements start


class Method(Protocol):
    """A policy of `--method`: methods hold no state, so the same bytes get the same codecs everywhere."""

    @property
    def plain(self) -> Codec:
        """The codec of bytes that nobody looks at: headers, and the ends of regions."""

    @property
    def looks(self) -> bool:
        """Whether the method looks into large files; otherwise `plain` is for all bytes."""

    @property
    def aligns(self) -> bool:
        """Whether files are cut at the borders of their tensors, so that equal tensors are stored once."""

    def for_small_file(self, path: str) -> Codec:
        """Returns the codec for a file that is too small to look at."""

    def for_sample(self, sample: memoryview, sample_offset: int, previous: Choice | None = None) -> Choice:
        """Chooses a codec from a sample of a file's bytes.

        Args:
            sample: consecutive bytes, up to SAMPLE_SIZE.
            sample_offset: where in the file the sample starts.
            previous: the choice for the bytes before, kept unless another choice is clearly better.
        """


def make_method(name: str, link: int = DEFAULT_LINK, level: int = LEVEL) -> Method:
    """Returns the method of this name.

    Args:
        name: one of METHODS.
        link: bytes per second of the link that snapshots will cross, or LOCAL; only hybrid_v3 asks.
        level: of zstd, where the method chooses zstd.

    Raises:
        UsageError: there is no such method.
    """
    zstd = replace(ZSTD, level=level)
    if name == "hybrid_v3" and link != LOCAL:
        return HybridV3(link, zstd)
    if name in HYBRID_METHODS:
        return HybridV2(aligns=name == "hybrid_v3")
    if name not in _UNIFORM:
        raise UsageError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    codec = _UNIFORM[name]
    return Uniform(zstd if codec == ZSTD else codec)


def writes_columns(name: str) -> bool:
    """Whether small files become rows, and the manifest columns; snapshots of the other methods keep their form."""
    return name not in ("hybrid_v2", "lz4", "lz4_hc", "none")


@dataclass(frozen=True, slots=True)
class Uniform:
    """One codec for all bytes."""

    plain: Codec
    looks: bool = False
    aligns: bool = False

    def for_small_file(self, path: str) -> Codec:
        return self.plain

    def for_sample(self, sample: memoryview, sample_offset: int, previous: Choice | None = None) -> Choice:
        return self.plain, 0


@dataclass(frozen=True, slots=True)
class HybridV2:
    """The smallest of LZ4, the float codec and none. The bytes that it writes never change."""

    plain: Codec = LZ4
    looks: bool = True
    aligns: bool = False  # except for hybrid_v3, which chooses in the same way for a link that costs nothing

    def for_small_file(self, path: str) -> Codec:
        return RAW if path.rpartition(".")[2].lower() in _RAW_EXTENSIONS else LZ4

    def for_sample(self, sample: memoryview, sample_offset: int, previous: Choice | None = None) -> Choice:
        return _cheapest(_fractions(sample, sample_offset), previous, _CHANGE_MARGIN)


@dataclass(frozen=True, slots=True)
class HybridV3:
    """What hybrid_v2 chooses, or zstd where that shortens the time to encode, cross the link, and decode.

    So LZ4 keeps what it shrinks about as far as zstd, the float codec keeps floats, and none what nothing shrinks.
    """

    link: int  # bytes per second
    plain: Zstd
    looks: bool = True
    aligns: bool = True

    def for_small_file(self, path: str) -> Codec:
        return self.plain  # whatever the extension says: zstd passes quickly over what does not shrink

    def for_sample(self, sample: memoryview, sample_offset: int, previous: Choice | None = None) -> Choice:
        sample = sample[:_COMPARED]
        fractions = _fractions(sample, sample_offset)
        other, zstd = _cheapest(fractions, previous, _CHANGE_MARGIN), (self.plain, 0)
        lz4 = fractions[LZ4, 0]
        if lz4 >= _WORTH_DECODING:  # of bytes without repetition, the float codec sees all that zstd sees
            return other
        fractions[zstd] = _zstd_fraction(sample) * (1 - _BEYOND_SAMPLE * (1 - lz4))
        costs = {choice: self._cost(choice[0], fractions[choice]) for choice in (other, zstd)}
        return _cheapest(costs, previous or zstd, _DOUBT)

    def _cost(self, codec: Codec, fraction: float) -> float:
        """Returns the time that a raw byte takes, in units of its time on the link if it were sent raw."""
        return fraction + self.link * (1 / codec.encode_rate + 1 / codec.decode_rate) / _CORES


def _cheapest(costs: dict[Choice, float], previous: Choice | None, margin: float) -> Choice:
    """Returns the choice of the least cost, or `previous` if that costs at most `margin` more."""
    best = min(costs, key=costs.__getitem__)
    if previous in costs and costs[previous] <= costs[best] + margin:
        return previous
    return best


def _fractions(sample: memoryview, sample_offset: int) -> dict[Choice, float]:
    """Estimates which fraction of its size none, LZ4 and the float codec make of a sample."""
    found: dict[Choice, float] = {(RAW, 0): _WORTH_DECODING, (LZ4, 0): _lz4_fraction(sample)}
    for (dtype, phase), fraction in zip(PROBE_CANDIDATES, native.probe(sample[:_PROBED]), strict=True):
        found[ZipNN(dtype), (sample_offset + phase) % dtype.size] = fraction
    return found


def _lz4_fraction(sample: memoryview) -> float:
    return len(lz4.block.compress(sample, store_size=False)) / len(sample) if len(sample) else 1.0


def _zstd_fraction(sample: memoryview) -> float:
    import zstandard  # as the codec does: 20 ms

    return len(zstandard.ZstdCompressor(level=_COMPARED_LEVEL).compress(sample)) / len(sample)
