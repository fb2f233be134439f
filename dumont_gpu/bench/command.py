"""The run behind `dumont-gpu bench`: corpora, then every part in turn, into one record."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.backends import open_device
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.backends.requirements import find_devices
from dumont_gpu.bench.corpora.corpus import Corpus, real_corpus, seed_corpus, user_corpus
from dumont_gpu.bench.corpora.weights import weights
from dumont_gpu.bench.corpora.wheels import cache_folder
from dumont_gpu.bench.measure.chunks import first_bf16_chunk, measure_chunks, project
from dumont_gpu.bench.measure.codecs import SIZE, Weights, failures, measure_codecs
from dumont_gpu.bench.measure.contenders import COMMAND, tools
from dumont_gpu.bench.measure.jobs import Patience, Tree, measure_jobs, tree_size
from dumont_gpu.bench.measure.links import measure_links
from dumont_gpu.bench.measure.profile import measure_profile
from dumont_gpu.bench.measure.rows import ROW_LIMIT, measure_rows
from dumont_gpu.bench.report.machine import cores, file_system, memory_folder
from dumont_gpu.bench.report.record import Record, new_record
from dumont_gpu.errors import DeviceError, DumontError, UsageError
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import GiB, MiB

DEFAULT_PARTS: Final = ("rows", "chunks", "jobs", "links")
PARTS: Final = (*DEFAULT_PARTS, "codecs", "profile", "load")
_MINOR_SECONDS: Final = 4.0  # a slow peer runs no more once its runs add up to this
_ENOUGH: Final = 30.0  # packs, or restores, are repeated no more once they took so long, slow peers not counted
_SETTLE: Final = 0.15  # seconds between a sync and a timed command, on a disk
_JOB_RUNS: Final = 1.6  # times the repeats of other parts: of a job's runs, the quickest counts
_ROOM: Final = 2 * GiB  # that all parts take, of the benchmark's own corpora
_LOAD_ROOM: Final = 10  # times the size of a file to load: three files and their snapshots, copies, a restored one
_ROOM_FACTOR: Final = 10  # times a user's own tree: archives, and the leavings of each restore until the end
LOAD_RATES: Final = (1e9, 100e6)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    parts: tuple[str, ...] = DEFAULT_PARTS
    corpus: Path | None = None  # the user's own tree, in place of real files
    download: bool = False  # fetch the wheels of the real corpus if they are not there
    device: str = "auto"
    jobs: int = 0  # threads of "all cores"; 0: a thread for each core
    repeats: int = 5
    scratch: Path | None = None  # where to write; None: in memory if there is room, else where temporary files go
    cache: Path | None = None  # of wheels and the corpus that is made of them; None: the user's
    limit: int = ROW_LIMIT  # original bytes of a row
    seed_scale: int = 24 * MiB  # bytes of each repeated text
    load_size: int = 256 * MiB  # bytes of each file of tensors that is loaded
    load_rates: tuple[float, ...] = LOAD_RATES  # of links, bits per second


def run_bench(options: BenchOptions, say: Say = lambda text: None) -> Record:
    """Measures the parts of `options`; `record["failures"]` lists every output that was not intact.

    Raises:
        UsageError: a part is unknown, or the corpus is not a tree with files of known kinds.
        DeviceError: the device of `options` cannot be used.
        NetworkError: a download failed.
    """
    _check(options)
    started = time.monotonic()
    record = new_record("dumont-gpu bench", tools(COMMAND) if "jobs" in options.parts else ())
    record["repeats"] = options.repeats
    with _device(options, record) as device, tempfile.TemporaryDirectory(dir=_scratch(options)) as folder:
        _Run(options, record, Path(folder), device, say).measure()
    record["seconds"] = time.monotonic() - started
    return record


class _Run:
    """A run on a device that is open, in a folder that is there."""

    def __init__(
        self, options: BenchOptions, record: Record, scratch: Path, device: CudaBackend | None, say: Say
    ) -> None:
        self._options, self._record, self._scratch, self._device, self._say = options, record, scratch, device, say

    def measure(self) -> None:
        with self._part("corpora"):
            corpora = self._corpora()
            self._record["corpora"] = {corpus.name: corpus.origin for corpus in corpora}
        # Parts that start processes come first: a large parent makes its children start slowly.
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("jobs", lambda: self._jobs(corpora[-1])),
            ("profile", lambda: self._profile(corpora[-1])),
            ("links", lambda: self._links(corpora[-1])),
            ("rows", lambda: self._rows(corpora)),
            ("codecs", lambda: self._codecs(self._kinds(corpora[-1]), thorough=True)),
            ("chunks", lambda: self._chunks(corpora)),
            ("load", self._load),
        )
        for name, measure in parts:
            if name in self._options.parts:
                with self._part(name):
                    measure()

    def _corpora(self) -> list[Corpus]:
        """Returns what the parts need, real files last."""
        parts = set(self._options.parts)
        real = [self._real()] if parts - {"load"} else []  # first: a user's tree may hold the scratch directory
        seed = [seed_corpus(self._scratch / "seed", self._options.seed_scale)] if {"rows", "chunks"} & parts else []
        return [*seed, *real]

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self._say(name)
        started = time.monotonic()
        yield
        self._record.setdefault("part_seconds", {})[name] = round(time.monotonic() - started, 1)

    def _titled(self, title: str) -> Say:
        return lambda text: self._say(f"{title}: {text}")

    def _real(self) -> Corpus:
        if self._options.corpus is not None:
            return user_corpus(self._options.corpus.resolve(), self._options.limit)
        cache = self._options.cache or cache_folder()
        return real_corpus(cache, self._scratch / "real", download=self._options.download)

    def _jobs(self, corpus: Corpus) -> None:
        patience = Patience(
            repeats=int(self._options.repeats * _JOB_RUNS),
            with_minor=self._options.repeats > 1,
            minor_seconds=_MINOR_SECONDS,
            enough_seconds=_ENOUGH,
            settle_seconds=0.0 if file_system(self._scratch) == "tmpfs" else _SETTLE,
        )
        tree = Tree(COMMAND, corpus.origin, lambda target: corpus.root)
        failures = self._record["failures"]
        self._record["jobs"] = measure_jobs([tree], self._scratch, patience, failures, self._titled("jobs"))

    def _profile(self, corpus: Corpus) -> None:
        self._record["profile"] = measure_profile(corpus.root, self._scratch, self._options.repeats)

    def _links(self, corpus: Corpus) -> None:
        device = "cpu" if self._device is None else self._device.name
        figures = measure_links(corpus, self._scratch, device=device, say=self._titled("links"))
        self._record["links"] = [asdict(each) for each in figures]

    def _load(self) -> None:
        if importlib.util.find_spec("numpy") is None:
            raise DumontError("the part load needs NumPy: pip install 'dumont-gpu[bench]'")
        from dumont_gpu.bench.measure.loads import LoadOptions, measure_loads

        options = LoadOptions(
            self._options.load_size,
            self._options.repeats,
            self._options.load_rates,
            None if self._device is None else self._device.name,
        )
        self._record["load"] = measure_loads(self._scratch, options, self._record["failures"], self._titled("load"))

    def _rows(self, corpora: list[Corpus]) -> None:
        rows = self._record["rows"] = []
        for corpus in corpora:
            for row in measure_rows(
                corpus,
                repeats=self._options.repeats,
                jobs=self._options.jobs or cores(),
                device=self._device,
                limit=self._options.limit,
                say=self._titled("rows"),
            ):
                if not row.intact:
                    self._record["failures"].append(f"{row.corpus} {row.key}: a chunk did not decode to its original")
                rows.append(asdict(row))
        if "codecs" not in self._options.parts:  # that part measures more of the same
            self._codecs((weights for corpus in corpora for weights in self._bf16(corpus)), thorough=False)

    def _codecs(self, kinds: Weights, *, thorough: bool) -> None:
        part = measure_codecs(kinds, self._options.repeats, thorough=thorough, say=self._titled("codecs"))
        self._record["codecs"] = part
        self._record["failures"] += failures(part)

    def _kinds(self, corpus: Corpus) -> Weights:
        """Normal weights of every type, and the real model."""
        yield from weights(min(SIZE, self._options.limit))
        yield from self._bf16(corpus)

    def _bf16(self, corpus: Corpus) -> Weights:
        if (chunk := first_bf16_chunk(corpus)) is not None:
            yield f"{corpus.name}: bf16 model", Dtype.BF16, chunk

    def _chunks(self, corpora: list[Corpus]) -> None:
        found = [figures for corpus in corpora if (figures := measure_chunks(corpus)) is not None]
        self._record["chunks"] = [asdict(figures) | {"ratio": figures.ratio} for figures in found]
        self._record["projections"] = [asdict(projection) for projection in project(found)]


def _check(options: BenchOptions) -> None:
    if unknown := set(options.parts) - set(PARTS):
        raise UsageError(f"--parts {','.join(sorted(unknown))}: choose from {','.join(PARTS)}")
    if options.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    if options.scratch is not None and not options.scratch.is_dir():
        raise UsageError(f"{options.scratch}: --scratch names a directory")


def _scratch(options: BenchOptions) -> Path:
    """Where to write. Memory shows the tools: the speed of a disk halves from one minute to the next."""
    if options.scratch is not None:
        return options.scratch
    room = _ROOM if options.corpus is None else _ROOM_FACTOR * tree_size(options.corpus)["size"]
    room += _LOAD_ROOM * options.load_size if "load" in options.parts else 0
    return memory_folder(room) or Path(tempfile.gettempdir())


@contextmanager
def _device(options: BenchOptions, record: Record) -> Iterator[CudaBackend | None]:
    """The device to measure, ready for chunks; None where there is no device, which only "auto" allows."""
    device = None
    if options.device != "cpu":
        number = "0" if options.device == "auto" else options.device.removeprefix("cuda:")
        if not number.isdigit():
            raise UsageError(f"unknown device {options.device!r}: auto, cpu, or the number of a CUDA device")
        try:
            device = CudaBackend(open_device(int(number)))
            device.prepare(DEFAULT_CHUNK_SIZE, encode=True, decode=True)
            models = {finding.what: finding.detail for finding in find_devices()}
            record["device"] = {"name": device.name, "detail": models.get(f"CUDA device {number}", "")}
        except DeviceError as error:
            if device is not None:
                device.close()
                device = None
            if options.device != "auto":
                raise
            record["device"] = {"name": "", "detail": str(error)}
    try:
        yield device
    finally:
        if device is not None:
            device.close()
