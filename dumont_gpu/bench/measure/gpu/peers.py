"""nvCOMP's ANS, LZ4 and zstd on weights in device memory, both ways: the peers of our kernels in the same run.

By its batched calls, which are its fastest, and by its Python binding, which allocates outputs and may wait in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dumont_gpu.bench.measure.gpu.binding import CodedChunks, codec_options
from dumont_gpu.bench.measure.gpu.nvcomp import Blocks, Variant, ans_variants, lz4_variants
from dumont_gpu.bench.measure.gpu.session import ELEMENTS, DeviceBench, nvcomp_version
from dumont_gpu.bench.measure.gpu.timer import device_seconds
from dumont_gpu.format.digests import digest_function
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB

# Times the original bytes. Decoding: original, compressed and decoded bytes, and room to spare; encoding: LZ4's memory.
_DECODE_MEMORY: Final = 3.5
_ENCODE_MEMORY: Final = 5.0


def measure_decoders(bench: DeviceBench, kind: str, dtype: Dtype, data: memoryview) -> None:
    variants = ans_variants(ELEMENTS[dtype], nvcomp_version(), bench.extent.unchecked)
    _measure(bench, kind, dtype, data, variants, _DECODE_MEMORY, encode=False)


def measure_encoders(bench: DeviceBench, kind: str, dtype: Dtype, data: memoryview) -> None:
    variants = ans_variants(ELEMENTS[dtype], nvcomp_version())[:1]  # the others differ in decoding only
    _measure(bench, kind, dtype, data, variants, _ENCODE_MEMORY, encode=True)


def _measure(
    bench: DeviceBench,
    kind: str,
    dtype: Dtype,
    data: memoryview,
    variants: Sequence[Variant],
    memory: float,
    *,
    encode: bool,
) -> None:
    """Measures `variants` in blocks of every size; LZ4, and everything by the binding, in blocks of the first size."""
    import cupy

    batches = bench.batches(int(memory * len(data)))
    with bench.stream.cupy_stream.use():
        resident = cupy.empty(len(data) * batches[-1], "u1")
        for number in range(batches[-1]):
            bench.stream.copy_in(resident.data.ptr + number * len(data), data)
        bench.stream.synchronize()
        for block in bench.extent.nvcomp_blocks:
            for variant in [*variants, *(lz4_variants() if block == bench.extent.nvcomp_blocks[0] else [])]:
                label = f"nvCOMP {variant.name}, {kind}, {block // KiB} KiB"
                bench.guarded(label, _variant, bench, kind, data, resident, block, variant, batches, encode)
                cupy.get_default_memory_pool().free_all_blocks()
        block = bench.extent.nvcomp_blocks[0]
        for name, options in codec_options(ELEMENTS[dtype], nvcomp_version()).items():
            label = f"nvCOMP {name}, {kind}, {block // KiB} KiB"
            bench.guarded(label, _by_binding, bench, kind, data, resident, block, name, options, batches, encode)
        del resident
    cupy.get_default_memory_pool().free_all_blocks()


def _variant(
    bench: DeviceBench,
    kind: str,
    data: memoryview,
    resident: Any,
    block: int,
    variant: Variant,
    batches: Sequence[int],
    encode: bool,
) -> None:
    """Times a variant for each batch size; the last chunk of its output must be `data`."""
    stream = bench.stream.cupy_stream
    blocks = Blocks(stream, resident.data.ptr, resident.size, block, variant, compress_again=encode)
    verified = None if encode else _decodes_to(blocks, data)
    rows: list[dict[str, Any]] = []
    for count in batches:
        part = count * len(data) // block

        def run(part: int = part) -> None:
            (blocks.compress if encode else blocks.decode)(part)

        seconds = device_seconds(stream, [run], bench.extent.repeats, bench.inner(count))
        row = {"kind": kind, "variant": variant.name, "block": block, "batch": count, "size": count * len(data),
               "stored": blocks.stored, "seconds": seconds, "verified": verified}  # fmt: skip
        (rows if encode else bench.results["nvcomp"]).append(row)
    if encode:
        verified = _decodes_to(blocks, data)  # blocks as they were compressed last
        bench.results["nvcomp"] += [row | {"verified": verified} for row in rows]


def _by_binding(
    bench: DeviceBench,
    kind: str,
    data: memoryview,
    resident: Any,
    block: int,
    name: str,
    options: dict[str, str],
    batches: Sequence[int],
    encode: bool,
) -> None:
    """The same by the binding, a chunk of ours in each of its arrays."""
    stream, digest = bench.stream.cupy_stream, digest_function("blake3")
    coded = CodedChunks(stream, resident, len(data), block, options)
    for count in batches:
        coded.encode(count)
        row = {"kind": kind, "variant": name, "block": block, "batch": count, "size": count * len(data),
               "stored": coded.stored(), "verified": digest(coded.last_decoded()) == digest(data)}  # fmt: skip

        def run(count: int = count) -> None:
            if encode:
                coded.encode(count)
            else:
                coded.decode()

        row["seconds"] = device_seconds(stream, [run], bench.extent.repeats, bench.inner(count))
        bench.results["nvcomp"].append(row)


def _decodes_to(blocks: Blocks, data: memoryview) -> bool:
    digest = digest_function("blake3")
    return digest(memoryview(blocks.decoded()[-len(data) :].get()).cast("B")) == digest(data)
