"""A session of whole jobs on a CUDA device: input, places, commands; restores, packs and loads share it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dumont_gpu.bench.corpora.weights import bf16_weights
from dumont_gpu.bench.measure.clock import seconds_of
from dumont_gpu.bench.measure.gpu import timer
from dumont_gpu.bench.measure.gpu.results import StepResults
from dumont_gpu.bench.measure.gpu.session import add_extent
from dumont_gpu.bench.report.machine import file_system
from dumont_gpu.sizes import GiB, MiB, align_up

SIZES = {"full": 4 * GiB, "short": 2 * GiB, "quick": 256 * MiB}
REPEATS = {"full": 3, "short": 2, "quick": 1}
PIECE = 64 * MiB  # written at a time: a chunk
STAGE_CHUNKS = 16  # chunks for a stage alone, at most
DISK_NEED, MEMORY_NEED = 3.0, 2.0  # times the size: source, snapshot and target; snapshot and target
SHARE = 0.8  # of the free space that may be used
SETTLE = {"full": 1.0, "short": 1.0, "quick": 0.0}  # seconds between the sync and a command


def choose_size(wanted: int, disk: Path, memory: Path | None) -> int:
    """The size of the largest bf16 file, in whole chunks, that fits."""
    most = shutil.disk_usage(disk).free * SHARE / DISK_NEED
    if memory is not None:
        most = min(most, shutil.disk_usage(memory).free * SHARE / MEMORY_NEED)
    return max(1, int(min(wanted, most)) // PIECE) * PIECE


def write_weights(path: Path, size: int) -> None:
    """Writes a safetensors file of normal bf16 weights. They repeat every 64 MiB: no codec here looks so far back."""
    data = bf16_weights(PIECE)
    tensor = {"dtype": "BF16", "shape": [size // 2048, 1024], "data_offsets": [0, size]}
    header = json.dumps({"model.weight": tensor}).encode()
    header += b" " * (-(len(header) + 8) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, PIECE):
            file.write(data[: min(PIECE, size - start)])


@dataclass(frozen=True, slots=True)
class DeviceStages:
    """An open device, to time stages on."""

    device: Any
    stream: Any
    there: int  # address of room for a copy
    add: Callable[[str, int, Sequence[Callable[[], object]]], None]  # a stage, its original bytes, runs taken in turn


class JobSession(StepResults):
    """Jobs of one run.

    Args:
        work: a folder for each place.
        parts: names of the lists that figures go to.
    """

    def __init__(self, options: argparse.Namespace, work: dict[str, Path], parts: tuple[str, ...]) -> None:
        self._options, self._work, self._repeats = options, work, REPEATS[options.extent]
        known = {"repeats": self._repeats, "places": {place: file_system(folder) for place, folder in work.items()}}
        super().__init__(options.output, parts, known, {folder: place.upper() for place, folder in work.items()})

    def settle(self, place: str) -> None:
        """Waits until earlier writes no longer disturb a command; in memory they never do."""
        if place != "memory":
            os.sync()
            time.sleep(SETTLE[self._options.extent])

    def memory_first(self) -> list[str]:
        """The places: figures of memory, which limits least, come first, should time run out."""
        return sorted(self._work, key=lambda place: place != "memory")

    def add_stage(self, place: str, stage: str, size: int, run: Callable[[], object]) -> None:
        """Times a stage alone, which moves `size` original bytes."""
        run()
        self._note_stage(place, stage, size, [seconds_of(run) for _ in range(self._repeats)])

    @contextmanager
    def device_stages(self, place: str, memories: Sequence[memoryview]) -> Iterator[DeviceStages]:
        """Opens the device, with `memories` pinned, for stages that its own clock times."""
        from dumont_gpu.backends import open_device

        device: Any = open_device(self._options.device)
        stream: Any = device.new_stream()

        def add(stage: str, size: int, runs: Sequence[Callable[[], object]]) -> None:
            self._note_stage(place, stage, size, timer.device_seconds(stream.cupy_stream, runs, 5, 4))

        with ExitStack() as held:
            there = device.allocate(align_up(max(map(len, memories))))
            held.callback(device.free, there)
            for memory in memories:
                device.pin(memory)
                held.callback(device.unpin, memory)
            yield DeviceStages(device, stream, there, add)

    def _note_stage(self, place: str, stage: str, size: int, seconds: list[float]) -> None:
        self.results["stages"].append({"place": place, "stage": stage, "size": size, "seconds": seconds})


@contextmanager
def work_folders(disk: Path, memory: Path | None, prefix: str = "dumont-bench-") -> Iterator[dict[str, Path]]:
    """New directories for each place; they hold gigabytes, and are deleted when a time limit ends the program, too."""

    def end(number: int, frame: object) -> None:
        # No exception: it would be swallowed where the signal meets a destructor.
        _delete(folders, patience=3.0)
        os._exit(128 + number)

    folders: dict[str, Path] = {}
    signal.signal(signal.SIGTERM, end)
    folders["disk"] = Path(tempfile.mkdtemp(prefix=prefix, dir=disk)).resolve()
    if memory is not None and memory.is_dir() and os.access(memory, os.W_OK):
        folders["memory"] = Path(tempfile.mkdtemp(prefix=prefix, dir=memory)).resolve()
    try:
        yield folders
    finally:
        _delete(folders)


def _delete(folders: dict[str, Path], patience: float = 0) -> None:
    """Deletes the folders, again for so many seconds: a command that is ending may still write there."""
    end = time.monotonic() + patience
    while True:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() >= end or not any(folder.exists() for folder in folders.values()):
            return
        time.sleep(0.05)


def parse(description: str) -> argparse.Namespace:
    """The command line of a benchmark of jobs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=0, metavar="BYTES", help="of the bf16 file (4 GiB, or what fits)")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), metavar="DIR")
    parser.add_argument(
        "--tree", type=Path, metavar="DIR", help="another input: a directory, as bench/workspace.py makes"
    )
    parser.add_argument(
        "--prefix", default="dumont-bench-", help="of the names of work folders, for whoever deletes them after a kill"
    )
    parser.add_argument("--device", type=int, default=0)
    add_extent(parser)
    options = parser.parse_args()
    options.size = options.size or SIZES[options.extent]
    return options
