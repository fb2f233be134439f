"""What `dumont-gpu bench` does: corpora, then every part in turn, into one record that the reports read."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dumont_gpu import __version__
from dumont_gpu.backends import CudaBackend, open_device
from dumont_gpu.backends.requirements import find_devices
from dumont_gpu.bench.chunks import measure_chunks, project
from dumont_gpu.bench.contenders import COMMAND
from dumont_gpu.bench.corpora import Corpus, real_corpus, seed_corpus, user_corpus
from dumont_gpu.bench.float_peers import measure_float_peers
from dumont_gpu.bench.jobs import CaseRun, JobError, tree_size
from dumont_gpu.bench.links import measure_links
from dumont_gpu.bench.machine import cores, describe, file_system, memory_folder
from dumont_gpu.bench.places import places
from dumont_gpu.bench.rows import ROW_LIMIT, measure_rows
from dumont_gpu.bench.seed_table import SOURCE
from dumont_gpu.bench.wheels import cache_folder
from dumont_gpu.errors import DeviceError, UsageError
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.sizes import GiB, MiB

PARTS: Final = ("rows", "chunks", "jobs", "links")
_MINOR_SECONDS: Final = 4.0  # a slow peer runs no more once its runs add up to this
_ENOUGH: Final = 30.0  # packs, or restores, are repeated no more once they took that long, slow peers not counted
_SETTLE: Final = 0.15  # seconds between a sync and a timed command, on a disk
_JOB_RUNS: Final = 1.6  # times as many as of everything else: of these, the quickest counts
_ROOM: Final = 2 * GiB  # that all parts take, of the corpora that are ours
_ROOM_FACTOR: Final = 10  # of a user's own tree: archives, and what each restore leaves behind until the end
Say = Callable[[str], None]
Record = dict[str, Any]  # ready for JSON


@dataclass(frozen=True, slots=True)
class BenchOptions:
    parts: tuple[str, ...] = PARTS
    corpus: Path | None = None  # the user's own tree, in place of real files
    download: bool = False  # fetch the wheels of the real corpus if they are not there
    device: str = "auto"
    jobs: int = 0  # threads of "all cores"; 0: one per core
    repeats: int = 5
    scratch: Path | None = None  # where to write; None: in memory if there is room, else where temporary files go
    cache: Path | None = None  # of wheels and the corpus that is made of them; None: the user's
    limit: int = ROW_LIMIT  # original bytes of one row
    seed_scale: int = 24 * MiB  # bytes of each repeated text


def run_bench(options: BenchOptions, say: Say = lambda text: None) -> Record:
    """Measures what `options` ask for; `record["failures"]` lists what was not intact.

    Raises:
        UsageError: an unknown part, or a corpus that is none.
        DeviceError: a device that was asked for cannot be used.
        NetworkError: a download failed.
    """
    _check(options)
    started = time.monotonic()
    record: Record = {"version": __version__, "machine": describe(_tools(options)), "seed_source": SOURCE}
    record |= {"repeats": options.repeats, "failures": []}
    with _device(options, record) as device, tempfile.TemporaryDirectory(dir=_place(options)) as folder:
        scratch = Path(folder)
        clock = _Clock(record)
        say("corpora")
        real = _real(options, scratch)
        corpora = [seed_corpus(scratch / "seed", options.seed_scale), real] if _needs_seed(options) else [real]
        record["corpora"] = {corpus.name: corpus.origin for corpus in corpora}
        clock.lap("corpora")
        if "jobs" in options.parts:  # first: a large parent makes its children start slowly
            record["jobs"] = _jobs(real, scratch, options, record["failures"], say)
            clock.lap("jobs")
        if "links" in options.parts:
            name = "cpu" if device is None else device.name
            record["links"] = [asdict(f) for f in measure_links(real, scratch, device=name, say=_titled(say, "links"))]
            clock.lap("links")
        if "rows" in options.parts:
            record["rows"] = _rows(corpora, options, device, record["failures"], _titled(say, "rows"))
            record["float_peers"] = _float_peers(corpora, options, record["failures"])
            clock.lap("rows")
        if "chunks" in options.parts:
            say("chunks")
            found = [figures for corpus in corpora if (figures := measure_chunks(corpus)) is not None]
            record["chunks"] = [asdict(figures) | {"ratio": figures.ratio} for figures in found]
            record["projections"] = [asdict(projection) for projection in project(found)]
            clock.lap("chunks")
    record["seconds"] = time.monotonic() - started
    return record


class _Clock:
    """Notes in a record how long each part took."""

    def __init__(self, record: Record) -> None:
        self._seconds = record["part_seconds"] = {}
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self._seconds[part], self._last = round(now - self._last, 1), now


def _check(options: BenchOptions) -> None:
    if unknown := set(options.parts) - set(PARTS):
        raise UsageError(f"--parts {','.join(sorted(unknown))}: choose from {','.join(PARTS)}")
    if options.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    if options.scratch is not None and not options.scratch.is_dir():
        raise UsageError(f"{options.scratch}: --scratch names a directory")


def _place(options: BenchOptions) -> Path:
    """Where to write. Memory is there to measure the tools: a disk takes twice as long from one minute to the next."""
    if options.scratch is not None:
        return options.scratch
    room = _ROOM if options.corpus is None else _ROOM_FACTOR * tree_size(options.corpus)["size"]
    return memory_folder(room) or Path(tempfile.gettempdir())


def _needs_seed(options: BenchOptions) -> bool:
    return bool({"rows", "chunks"} & set(options.parts))


def _tools(options: BenchOptions) -> set[str]:
    if "jobs" not in options.parts:
        return set()
    return {tool for contender in (*COMMAND.packs, *COMMAND.restores) for tool in contender.needs}


def _titled(say: Say, title: str) -> Say:
    return lambda text: say(f"{title}: {text}")


@contextmanager
def _device(options: BenchOptions, record: Record) -> Iterator[CudaBackend | None]:
    """The device to measure, ready for chunks, or None where there is none; only "auto" may go on without."""
    device = None
    record["device"] = {"name": "", "detail": "not asked for"}
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


def _real(options: BenchOptions, scratch: Path) -> Corpus:
    if options.corpus is not None:
        return user_corpus(options.corpus.resolve(), options.limit)
    return real_corpus(options.cache or cache_folder(), scratch / "real", download=options.download)


def _rows(
    corpora: list[Corpus], options: BenchOptions, device: CudaBackend | None, failures: list[str], say: Say
) -> list[Record]:
    jobs = options.jobs or cores()
    rows = []
    for corpus in corpora:
        for row in measure_rows(
            corpus, repeats=options.repeats, jobs=jobs, device=device, limit=options.limit, say=say
        ):
            if not row.intact:
                failures.append(f"{row.corpus} {row.key}: a chunk did not decode to what it was")
            rows.append(asdict(row))
    return rows


def _float_peers(corpora: list[Corpus], options: BenchOptions, failures: list[str]) -> list[Record]:
    found = [figures for corpus in corpora for figures in measure_float_peers(corpus, options.repeats)]
    failures += [f"{peer.corpus} bf16: {peer.who} gave other bytes" for peer in found if not peer.intact]
    return [asdict(figures) for figures in found]


def _jobs(corpus: Corpus, scratch: Path, options: BenchOptions, failures: list[str], say: Say) -> Record:
    kind = file_system(scratch)
    in_memory = kind == "tmpfs"
    record: Record = {
        "corpus": corpus.name,
        "tree": tree_size(corpus.root),
        "file_system": f"{kind} (memory; --scratch measures a disk)" if in_memory else kind,
        "settle_seconds": 0.0 if in_memory else _SETTLE,
        "minor_seconds": _MINOR_SECONDS,
        "enough_seconds": _ENOUGH,
        "figures": [],
    }
    with places(scratch) as room:
        run = CaseRun(
            COMMAND,
            corpus.root,
            room,
            int(options.repeats * _JOB_RUNS),
            with_minor=options.repeats > 1,
            minor_seconds=_MINOR_SECONDS,
            enough=_ENOUGH,
            settle=record["settle_seconds"],
            say=_titled(say, "jobs"),
        )
        try:
            record["figures"] = [asdict(figures) for figures in run.run()]
        except JobError as error:
            failures.append(str(error))
    os.sync()  # what the jobs left to the kernel must not slow down what is measured next
    return record
