"""The table by type: files of one kind through the product's planner and codecs, in memory, every byte checked."""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.backends import Backend, CpuBackend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.bench.corpora.corpus import Content, Corpus
from dumont_gpu.bench.measure.room import RAW, Chunk, Room, scanned
from dumont_gpu.codecs import Codec
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.plan.methods import HYBRID_METHODS
from dumont_gpu.sizes import MiB

ROW_LIMIT: Final = 128 * MiB  # original bytes of a row, at most: the first chunks of its plan
_SAMPLE_SECONDS: Final = 0.05  # a timed sample repeats its work for at least so long


@dataclass(slots=True)
class Rates:
    """Timed samples. A sample is `size` original bytes: `passes` over the row's coded chunks, by each worker."""

    workers: int
    coded_size: int  # original bytes of one pass of one worker; raw chunks are not counted
    encode_passes: int = 0
    decode_passes: int = 0
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)
    processor: float = 1.0  # CPU seconds per second and worker: far below 1, other processes had the cores
    encode_share: float = 1.0  # which part of those bytes this backend encodes itself
    decode_share: float = 1.0


@dataclass(slots=True)
class RowFigures:
    """Figures of one kind of file in one corpus. Sizes are bytes."""

    corpus: str
    key: str  # of a row of the original's table
    origin: str
    generated: bool
    files: int
    size: int
    stored_size: int
    codecs: dict[str, tuple[int, int]]  # codec -> original and encoded bytes
    intact: bool  # every chunk decoded to its original, by SHA-256, on every backend
    methods: tuple[str, ...] = ()  # which choose these codecs
    one_core: Rates | None = None  # None: all chunks are raw
    all_cores: Rates | None = None
    device: Rates | None = None  # None: there is no device, or no chunk is for it
    device_stored_size: int = 0


def measure_rows(
    corpus: Corpus,
    *,
    repeats: int,
    jobs: int,
    device: CudaBackend | None = None,
    limit: int = ROW_LIMIT,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    say: Callable[[str], None] = lambda text: None,
) -> list[RowFigures]:
    """Measures every content of `corpus`: a row for each way in which the hybrid methods encode it.

    Args:
        corpus: its contents become the rows.
        repeats: timed samples of each row.
        jobs: threads of "all cores".
        device: measured too; `prepare` was called for `chunk_size`.
        limit: original bytes of a row.
        chunk_size: as in a pack.
        say: told of each row.
    """
    room = Room(max(jobs, device.extra_threads if device is not None else 1), limit, chunk_size, device)
    rows: list[RowFigures] = []
    with scanned(corpus) as files:
        for content in corpus.contents:
            say(f"{corpus.name}: {content.key}")
            chosen = [files[str(path.relative_to(corpus.root))] for path in content.files]
            measured: dict[tuple[tuple[Codec, int], ...], RowFigures] = {}
            for method in HYBRID_METHODS:
                chunks = room.load(chosen, method)
                choices = tuple((chunk.codec, len(chunk.content)) for chunk in chunks)
                if choices not in measured:
                    row = _Row(corpus.name, content, chunks, room, repeats)
                    measured[choices] = row.measure(jobs, device)
                measured[choices].methods += (method,)
            rows += measured.values()
    return rows


class _Row:
    def __init__(self, corpus: str, content: Content, chunks: list[Chunk], room: Room, repeats: int) -> None:
        self._corpus, self._content, self._chunks = corpus, content, chunks
        self._room, self._repeats = room, repeats

    def measure(self, jobs: int, device: CudaBackend | None) -> RowFigures:
        cpu = CpuBackend()
        encoded_size, intact = self._check(cpu)
        codecs: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for chunk in self._chunks:
            name = chunk.codec.name if chunk.size else RAW.name
            original, kept = codecs[name]
            codecs[name] = original + len(chunk.content), kept + len(chunk.encoded)
        figures = RowFigures(
            corpus=self._corpus,
            key=self._content.key,
            origin=self._content.origin,
            generated=self._content.generated,
            files=len(self._content.files),
            size=sum(len(chunk.content) for chunk in self._chunks),
            stored_size=encoded_size,
            codecs=dict(codecs),
            intact=intact,
        )
        if any(chunk.size for chunk in self._chunks):
            figures.one_core = self._rates(cpu, 1)
            figures.all_cores = self._rates(cpu, jobs) if jobs > 1 else None
            if device is not None:
                self._measure_device(device, figures)
        return figures

    def _measure_device(self, device: CudaBackend, figures: RowFigures) -> None:
        coded = [chunk for chunk in self._chunks if chunk.size]
        total = sum(len(chunk.content) for chunk in coded)
        encoded = sum(len(c.content) for c in coded if device.encodes(c.codec, len(c.content)))
        decoded = sum(len(c.content) for c in coded if device.decodes(c.codec.id, len(c.content)))
        if not encoded + decoded:
            return
        rates = self._rates(device, device.extra_threads)
        rates.encode_share, rates.decode_share = encoded / total, decoded / total
        figures.device = rates
        figures.device_stored_size, intact = self._check(
            device
        )  # last: this check replaces the encoded bytes of the chunks
        figures.intact = figures.intact and intact

    def _check(self, backend: Backend) -> tuple[int, bool]:
        """Encodes and decodes every chunk; returns the encoded size, and whether every chunk came back intact."""
        intact = True
        for chunk in self._chunks:
            chunk.size = 0
            if chunk.codec.id != RAW.id:
                chunk.size = backend.encode(chunk.codec, chunk.content, chunk.room[: chunk.limit])
            intact = intact and all(self._came_back(chunk, judge) for judge in (backend, CpuBackend()))
        return sum(len(chunk.encoded) for chunk in self._chunks), intact

    def _came_back(self, chunk: Chunk, backend: Backend) -> bool:
        out = self._room.outputs[0][: len(chunk.content)]
        out[: len(out)] = bytes(len(out))  # bytes of an earlier chunk must not count
        with suppress(DamagedError):
            backend.decode(chunk.compressor_id, chunk.encoded, out)
        return hashlib.sha256(out).digest() == hashlib.sha256(chunk.content).digest()

    def _rates(self, backend: Backend, workers: int) -> Rates:
        coded = [chunk for chunk in self._chunks if chunk.size]
        rates = Rates(workers, sum(len(chunk.content) for chunk in coded))
        outputs = self._room.outputs

        def encode(worker: int) -> None:
            for chunk in coded:
                backend.encode(chunk.codec, chunk.content, outputs[worker][: chunk.limit])

        def decode(worker: int) -> None:
            for chunk in coded:
                backend.decode(chunk.codec.id, chunk.encoded, outputs[worker][: len(chunk.content)])

        before, used = time.perf_counter(), time.process_time()
        rates.encode_passes, rates.encode_seconds = timed(encode, workers, self._repeats)
        rates.processor = (time.process_time() - used) / (time.perf_counter() - before) / workers
        rates.decode_passes, rates.decode_seconds = timed(decode, workers, self._repeats)
        return rates


def timed(work: Callable[[int], None], workers: int, repeats: int) -> tuple[int, list[float]]:
    """Has `workers` threads do `work` side by side; returns passes per sample, and the seconds of each sample.

    An untimed pass comes first: it warms caches and memory, and its time sets how many passes make a sample.
    """

    def sample(passes: int) -> float:
        def loop(worker: int) -> None:
            for _ in range(passes):
                work(worker)

        started = time.perf_counter()
        if pool is None:
            loop(0)
        else:
            list(pool.map(loop, range(workers)))
        return time.perf_counter() - started

    pool = ThreadPoolExecutor(workers) if workers > 1 else None
    try:
        passes = max(1, math.ceil(_SAMPLE_SECONDS / max(sample(1), 1e-6)))
        return passes, [sample(passes) for _ in range(repeats)]
    finally:
        if pool is not None:
            pool.shutdown()
