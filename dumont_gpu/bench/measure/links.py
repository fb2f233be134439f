"""Restores over a simulated link: a local snapshot, read no faster than a link of that rate would bring its bytes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from dumont_gpu.bench.corpora.corpus import Corpus
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.storage import Source, open_source

RATES: Final = (100e6, 1e9, 10e9)  # bits per second
CHUNK_SIZE: Final = 4 * MiB  # a small tree then has as many chunks as a large one has of 64 MiB
_TREE_LIMIT: Final = 64 * MiB  # larger files are left out, or the slowest link would take minutes
_KIND_LIMIT: Final = 12 * MiB  # of each kind, unless its first file is larger
_PIECE: Final = 256 * KiB  # bytes that arrive at once
_RUNS: Final = 7
_QUICK: Final = 2.0  # seconds; a shorter restore is repeated
_BURST: Final = 0.01  # seconds that a link makes up for a reader that overslept


@dataclass(slots=True)
class LinkFigures:
    """A restore over one link. Seconds are wall clock; the spans begin at 0."""

    bits_per_second: float
    stored_size: int  # bytes of the snapshot
    original_size: int
    seconds: float
    link_seconds: float  # of the link alone, for those bytes
    local_seconds: float  # of the same restore without a link
    chunk_size: int
    runs: int = 1  # these figures are those of the median run
    spans: list[tuple[str, float, float]] = field(default_factory=list)  # stage, begin, end: a span for each chunk


class Link:
    """Tells when bytes have arrived; shared by all its readers.

    Args:
        bits_per_second: the rate.
        clock: seconds that only grow.
        sleep: waits.
    """

    def __init__(
        self,
        bits_per_second: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = bits_per_second / 8, clock, sleep
        self._free = clock()  # when the link has brought all bytes asked for so far
        self._lock = threading.Lock()

    def wait_for(self, size: int) -> None:
        """Returns once `size` more bytes have come through."""
        with self._lock:
            self._free = max(self._free, self._clock() - _BURST) + size / self._rate
            due = self._free
        delay = due - self._clock()
        if delay > 0:
            self._sleep(delay)


class LinkedSource:
    """A snapshot at the other end of a link."""

    def __init__(self, source: Source, link: Link) -> None:
        self._source, self._link = source, link
        self.location, self.size = source.location, source.size
        self.remote = False  # one read at a time fills the link

    def read_into(self, offset: int, out: memoryview) -> None:
        for at in range(0, len(out), _PIECE):
            piece = out[at : at + _PIECE]
            self._source.read_into(offset + at, piece)
            self._link.wait_for(len(piece))

    def cancel(self) -> None:
        self._source.cancel()

    def close(self) -> None:
        self._source.close()


def measure_links(
    corpus: Corpus,
    scratch: Path,
    rates: Sequence[float] = RATES,
    device: str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> list[LinkFigures]:
    """Packs a part of `corpus`, and restores the snapshot over each link.

    Args:
        corpus: source of the files.
        scratch: for the snapshot and restored trees, which are removed.
        rates: of the links, bits per second.
        device: as in a restore.
        say: told of each link.
    """
    room = scratch / "links"
    try:
        _choose(corpus, room / "tree")
        snapshot = str(room / "tree.dumont")
        pack([str(room / "tree")], snapshot, PackOptions(chunk_size=CHUNK_SIZE, device=device))
        _restore(snapshot, room / "warm", None, device)  # caches and kernels
        local = median(_restore(snapshot, room / f"local-{n}", None, device).seconds for n in range(_RUNS))
        figures = []
        for rate in rates:
            say(f"{rate / 1e6:,.0f} Mbit/s")
            found = _restore(snapshot, room / f"at-{rate:.0f}", rate, device)
            if found.seconds < _QUICK:
                others = [_restore(snapshot, room / f"at-{rate:.0f}-{n}", rate, device) for n in range(1, _RUNS)]
                found = sorted([found, *others], key=lambda run: run.seconds)[_RUNS // 2]
                found.runs = _RUNS
            found.local_seconds = local
            figures.append(found)
        return figures
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _restore(snapshot: str, target: Path, rate: float | None, device: str) -> LinkFigures:
    """Restores over a link of `rate` bits per second; None: without a link."""
    spans: list[tuple[str, float, float]] = []
    opened = open_source(snapshot)
    try:
        started = time.perf_counter()
        source = opened if rate is None else LinkedSource(opened, Link(rate))
        options = RestoreOptions(sync=False, device=device)
        result = restore(source, str(target), options, trace=lambda *span: spans.append(span))
        seconds = time.perf_counter() - started
    finally:
        opened.close()
    return LinkFigures(
        bits_per_second=rate or 0.0,
        stored_size=opened.size,
        original_size=result.original_size,
        seconds=seconds,
        link_seconds=opened.size * 8 / rate if rate else 0.0,
        local_seconds=seconds,
        chunk_size=CHUNK_SIZE,
        spans=[(stage, round(begin - started, 6), round(end - started, 6)) for stage, begin, end in spans],
    )


def _choose(corpus: Corpus, target: Path) -> None:
    """Copies a few files of each kind to `target`."""
    for content in corpus.contents:
        size = 0
        for path in content.files:
            length = path.stat().st_size
            if length > _TREE_LIMIT or (size and size + length > _KIND_LIMIT):
                continue
            copy = target / path.relative_to(corpus.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            size += length
    target.mkdir(parents=True, exist_ok=True)
