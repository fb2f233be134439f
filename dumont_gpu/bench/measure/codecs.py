"""The float codec against other packages, on weights in memory: every contender once in each repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from dumont_gpu import native
from dumont_gpu.bench.measure.clock import rotated, seconds_of
from dumont_gpu.bench.measure.codec_contenders import (
    PEERS,
    Buffers,
    Contender,
    Label,
    Machine,
    available_paths,
    contenders,
    installed_peers,
)
from dumont_gpu.bench.measure.memory import anonymous
from dumont_gpu.bench.report.machine import cores
from dumont_gpu.codecs.zipnn import BLOCK_LOG2
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB

SIZE: Final = 64 * MiB  # of each kind of weights: a chunk of the package
_HOT_SIZE: Final = MiB  # stays in cache together with its encoded and decoded copy
_HOT_REPEATS: Final = 5  # times the others'
_SAMPLE_SIZE: Final = 64 * KiB  # of the probe
Weights = Iterable[tuple[str, Dtype, memoryview]]  # a name, the element type, the bytes


@dataclass(slots=True)
class CodecFigures:
    """Times of one contender on one kind of weights."""

    weights: str
    label: Label
    size: int  # original bytes
    stored: float = 0.0  # encoded bytes, as a part of the original ones
    intact: bool = True
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)


def measure_codecs(
    weights: Weights, repeats: int, *, thorough: bool = False, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Returns all figures of this part, ready for JSON.

    Args:
        weights: kinds of weights to encode.
        repeats: timed runs of each contender.
        thorough: all instruction sets, two block sizes, all cores too, and an input that stays in cache; otherwise the
            default path on one core, in blocks of the size that the package writes.
        say: told of each kind of weights.
    """
    paths = available_paths() if thorough else [native.cpu_path()]
    block_log2s = (BLOCK_LOG2 - 1, BLOCK_LOG2) if thorough else (BLOCK_LOG2,)
    threads = (1, cores()) if thorough and cores() > 1 else (1,)
    modules = installed_peers()
    figures: list[CodecFigures] = []
    references: list[dict[str, Any]] = []
    with ThreadPoolExecutor(cores()) as pool:
        shared = Machine(pool, modules)
        for name, dtype, data in weights:
            say(name)
            buffers = Buffers(len(data) + len(data) // 64)  # chunks' slots are rounded down one by one
            everyone = list(contenders(data, dtype, shared, buffers, threads, paths, block_log2s))
            figures += _in_turn(name, data, everyone, repeats)
            if thorough:
                hot = data[:_HOT_SIZE]
                everyone = list(contenders(hot, dtype, shared, buffers, (1,), paths, block_log2s))
                figures += _hot(name, hot, everyone, _HOT_REPEATS * repeats)
                references = references or _references(data, repeats)
    return {
        "repeats": repeats,
        "hot_size": _HOT_SIZE if thorough else 0,
        "hot_repeats": _HOT_REPEATS * repeats,
        "sample_size": _SAMPLE_SIZE,
        "default_path": native.cpu_path(),
        "absent": [name for name in PEERS if name not in modules],
        "figures": [asdict(row) for row in figures],
        "references": references,
    }


def failures(part: dict[str, Any]) -> list[str]:
    """Returns a line for each contender that did not give its input back."""
    wrong = (row for row in part["figures"] if not row["intact"])
    return [f"{row['weights']}: {row['label']['codec']} gave other bytes" for row in wrong]


def _in_turn(name: str, data: memoryview, everyone: Sequence[Contender], repeats: int) -> list[CodecFigures]:
    default = native.cpu_path()
    pairs = [(contender, _checked(name, contender, data)) for contender in everyone]
    for repeat in range(repeats):
        for contender, row in rotated(pairs, repeat * len(pairs) // repeats):
            if not row.intact:
                continue
            contender.prepare()
            row.encode_seconds.append(seconds_of(contender.encode))
            row.decode_seconds.append(seconds_of(contender.decode))
    native.select_cpu_path(default)
    return [row for _, row in pairs]


def _hot(name: str, data: memoryview, everyone: Sequence[Contender], repeats: int) -> list[CodecFigures]:
    """The runs of a contender follow one another, so that its bytes stay in cache."""
    default = native.cpu_path()
    rows = []
    for contender in everyone:
        row = _checked(name, contender, data)
        rows.append(row)
        if row.intact:
            for _ in range(repeats):
                contender.prepare()
                row.encode_seconds.append(seconds_of(contender.encode))
            row.decode_seconds = [seconds_of(contender.decode) for _ in range(repeats)]
    native.select_cpu_path(default)
    return rows


def _checked(name: str, contender: Contender, data: memoryview) -> CodecFigures:
    """Warms a contender up; returns its row, with its encoded size and whether its round trip is right."""
    contender.prepare()
    encoded = contender.encode()
    if encoded:
        contender.decode()
    return CodecFigures(name, contender.label, len(data), encoded / len(data), encoded > 0 and contender.matches())


def _references(data: memoryview, repeats: int) -> list[dict[str, Any]]:
    """Seconds of one thread for something simpler: SHA-256, a copy within memory, the probe on every path."""
    target = anonymous(len(data))
    samples = [data[start : start + _SAMPLE_SIZE] for start in range(0, len(data), _SAMPLE_SIZE)]

    def copy() -> None:
        target[:] = data

    def probe(path: str) -> Callable[[], None]:
        def run() -> None:
            native.select_cpu_path(path)
            for sample in samples:
                native.probe(sample)

        return run

    runs: list[tuple[str, Callable[[], object]]] = [("sha256", lambda: hashlib.sha256(data)), ("memcpy", copy)]
    runs += [(f"probe, {path}", probe(path)) for path in available_paths()]  # the default path last: it stays selected
    rows: list[dict[str, Any]] = [{"name": name, "size": len(data), "seconds": []} for name, _ in runs]
    copy()  # touches the target's pages
    for _ in range(repeats):
        for (_, run), row in zip(runs, rows, strict=True):
            row["seconds"].append(seconds_of(run))
    return rows
