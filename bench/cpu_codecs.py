"""Measures the codecs on weights in memory: stored size and speed, ours against peers in the same run."""

from __future__ import annotations

import hashlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import workspace
from codec_contenders import BLOCK_LOG2S, Buffers, Contender, Label, Machine, anonymous, available_paths, contenders
from machine import cores

from dumont_gpu import native
from dumont_gpu.native import Dtype

KiB, MiB = 1 << 10, 1 << 20
SIZE, QUICK_SIZE = 64 * MiB, 8 * MiB  # bytes of each kind of weights: a chunk of the package
HOT_SIZE = MiB  # stays in cache together with its stored and decoded copy
HOT_REPEATS = 5  # times the others'
PERIOD = 4  # the weights are drawn for 1/PERIOD of the size and repeated: too far apart for any codec here to notice
SAMPLE_SIZE = 64 * KiB  # of the probe
SEED = 1
PEERS = ("zipnn_core", "lz4.frame", "zstandard")


@dataclass(slots=True)
class CodecFigures:
    """What one contender needed for one kind of weights."""

    weights: str
    label: Label
    size: int  # original bytes
    stored: float = 0.0  # of the original size
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class ReferenceFigures:
    """What this machine needs for `size` bytes of something simpler, on one thread."""

    name: str
    size: int
    seconds: list[float] = field(default_factory=list)


def weights(size: int) -> Iterator[tuple[str, Dtype, memoryview]]:
    """Yields normal weights as elements of each type, `size` bytes of each."""

    def normal(count: int) -> workspace.Array:
        return np.random.default_rng(SEED).standard_normal(count, dtype=np.float32) * np.float32(0.02)

    part = size // PERIOD
    kinds: tuple[tuple[str, Dtype, Callable[[], workspace.Array]], ...] = (
        ("fp32", Dtype.FP32, lambda: normal(part // 4)),
        ("bf16", Dtype.BF16, lambda: workspace.bf16(normal(part // 2))),
        ("fp16", Dtype.FP16, lambda: normal(part // 2).astype(np.float16)),
        ("fp8 e4m3", Dtype.FP8_E4M3, lambda: workspace.fp8({"w": normal(part).reshape(-1, 1024)})["w"]),
        ("fp32 that is bf16", Dtype.FP32, lambda: workspace.widen_bf16(workspace.bf16(normal(part // 4)))),
    )
    for name, dtype, draw in kinds:
        data = anonymous(size)
        data[:] = draw().tobytes() * PERIOD
        yield name, dtype, data.toreadonly()


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(repeats: int, quick: bool = False) -> dict[str, Any]:
    """Returns all figures of this part, ready for JSON."""
    size = QUICK_SIZE if quick else SIZE
    modules = {name: module for name in PEERS if (module := _module(name))}
    figures: list[CodecFigures] = []
    references: list[ReferenceFigures] = []
    with ThreadPoolExecutor(cores()) as pool:
        shared = Machine(pool, cores(), modules)
        for name, dtype, data in weights(size):
            print(f"codecs: {name}", file=sys.stderr, flush=True)
            buffers = Buffers(size + size // 64)  # chunks' slots are rounded down one by one
            figures += _compare(name, data, list(contenders(data, dtype, shared, buffers, _threads())), repeats)
            hot = data[:HOT_SIZE]
            figures += _hot(name, hot, list(contenders(hot, dtype, shared, buffers, (1,))), HOT_REPEATS * repeats)
            if dtype is Dtype.BF16:
                references = measure_references(data, repeats)
    return {
        "repeats": repeats,
        "size": size,
        "hot_size": HOT_SIZE,
        "hot_repeats": HOT_REPEATS * repeats,
        "sample_size": SAMPLE_SIZE,
        "cores": cores(),
        "block_log2s": BLOCK_LOG2S,
        "default_path": native.cpu_path(),
        "absent": [name for name in PEERS if name not in modules],
        "figures": [asdict(row) for row in figures],
        "references": [asdict(row) for row in references],
    }


def _threads() -> tuple[int, ...]:
    return (1,) if cores() == 1 else (1, cores())


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _compare(name: str, data: memoryview, everyone: Sequence[Contender], repeats: int) -> list[CodecFigures]:
    """Each repeat runs everyone once, in an order that rotates, so that noise hits all alike."""
    rows = [CodecFigures(name, contender.label, len(data)) for contender in everyone]
    pairs = list(zip(everyone, rows, strict=True))
    default = native.cpu_path()
    for contender, row in pairs:
        row.stored = _checked_size(contender) / len(data)
    for repeat in range(repeats):
        turn = repeat * len(pairs) // repeats
        for contender, row in (*pairs[turn:], *pairs[:turn]):
            contender.prepare()
            row.encode_seconds.append(seconds_of(contender.encode))
            row.decode_seconds.append(seconds_of(contender.decode))
    native.select_cpu_path(default)
    return rows


def _hot(name: str, data: memoryview, everyone: Sequence[Contender], repeats: int) -> list[CodecFigures]:
    """Each contender's runs follow one another, so that its bytes stay in cache."""
    rows = []
    default = native.cpu_path()
    for contender in everyone:
        row = CodecFigures(name, contender.label, len(data), _checked_size(contender) / len(data))
        for _ in range(repeats):
            contender.prepare()
            row.encode_seconds.append(seconds_of(contender.encode))
        for _ in range(repeats):
            row.decode_seconds.append(seconds_of(contender.decode))
        rows.append(row)
    native.select_cpu_path(default)
    return rows


def _checked_size(contender: Contender) -> int:
    """Warms the contender up; its stored size, once its round trip is right."""
    contender.prepare()
    stored = contender.encode()
    contender.decode()
    if not contender.matches():
        raise SystemExit(f"{contender.label}: the round trip changed the bytes")
    return stored


def measure_references(data: memoryview, repeats: int) -> list[ReferenceFigures]:
    """SHA-256, a copy within memory, and the probe on every path."""
    target = anonymous(len(data))
    samples = [data[start : start + SAMPLE_SIZE] for start in range(0, len(data), SAMPLE_SIZE)]

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
    rows = [ReferenceFigures(name, len(data)) for name, _ in runs]
    copy()  # touches the target's pages
    for _ in range(repeats):
        for (_, run), row in zip(runs, rows, strict=True):
            row.seconds.append(seconds_of(run))
    return rows
