"""The run behind `dumont-gpu bench --path`: a user's own folder, packed and restored by all that is installed here."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.bench.measure.contenders import OWN_FOLDER, tools
from dumont_gpu.bench.measure.jobs import Patience, Tree, measure_jobs, tree_size
from dumont_gpu.bench.report.machine import file_system, memory_folder
from dumont_gpu.bench.report.record import Record, new_record
from dumont_gpu.errors import NoSpaceError, UsageError
from dumont_gpu.sizes import format_size

DEFAULT_RATES: Final = (12_500_000, 125_000_000)  # bytes per second: 100 Mbit/s and 1 Gbit/s
_MINOR_SECONDS: Final = 4.0  # a slow peer runs no more once its runs add up to this
_ENOUGH: Final = 30.0  # packs, or restores, are repeated no more once they took so long
_SETTLE: Final = 0.15  # seconds between a sync and a timed command, on a disk
_ROOM_FACTOR: Final = 4  # times the folder: archives of several tools, and a restored tree
_MEMORY_FACTOR: Final = 10  # where places in memory are not given back until the end


@dataclass(frozen=True, slots=True)
class OwnOptions:
    folder: Path
    rates: tuple[int, ...] = DEFAULT_RATES  # of links, bytes per second
    repeats: int = 3
    scratch: Path | None = None  # where to write; None: in memory if there is room, else where temporary files go


def bench_own(options: OwnOptions, say: Callable[[str], None] = lambda text: None) -> Record:
    """Measures packs and restores of a folder; `record["failures"]` lists every output that was not intact.

    Raises:
        UsageError: the folder or the scratch directory is none.
        NoSpaceError: there is too little room.
    """
    folder = options.folder.resolve()
    for place, name in ((folder, "--path"), (options.scratch, "--scratch")):
        if place is not None and not place.is_dir():
            raise UsageError(f"{place}: {name} names a directory")
    if options.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    started = time.monotonic()
    record = new_record("dumont-gpu bench --path", tools(OWN_FOLDER))
    record |= {"repeats": options.repeats, "corpora": {}, "own": {"rates": list(options.rates)}}
    scratch = _scratch(options, tree_size(folder)["size"])
    patience = Patience(
        repeats=options.repeats,
        minor_seconds=_MINOR_SECONDS,
        enough_seconds=_ENOUGH,
        settle_seconds=0.0 if file_system(scratch) == "tmpfs" else _SETTLE,
    )
    with tempfile.TemporaryDirectory(dir=scratch) as room:
        tree = Tree(OWN_FOLDER, folder.name, lambda target: folder)
        record["jobs"] = measure_jobs([tree], Path(room), patience, record["failures"], say)
    record["seconds"] = time.monotonic() - started
    return record


def _scratch(options: OwnOptions, size: int) -> Path:
    if options.scratch is None and (memory := memory_folder(_MEMORY_FACTOR * size)) is not None:
        return memory
    place = options.scratch or Path(tempfile.gettempdir())
    free, needed = shutil.disk_usage(place).free, _ROOM_FACTOR * size
    if free < needed:
        raise NoSpaceError(
            f"{place}: archives and a restored tree take some {format_size(needed)}, {format_size(free)} are free: "
            "--scratch names another disk"
        )
    return place
