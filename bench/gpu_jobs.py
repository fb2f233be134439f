"""Measures restores through a CUDA device by command line, on the CPU beside it, and each stage of them alone.

    python bench/gpu_jobs.py OUTPUT.json [--size BYTES] [--disk DIR] [--memory DIR] [--tree DIR] [--short | --quick]
                             [--device N]

The main input is one bf16 safetensors file; `--tree` is packed and restored too. Snapshot and target lie on a disk,
and in memory (/dev/shm); snapshots are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compare_trees import differences
from gpu_bench import add_extent, say
from machine import file_system
from whole_file import write_whole

from dumont_gpu.disk.direct_io import write_at
from dumont_gpu.jobs.resources import default_jobs
from dumont_gpu.snapshot.reader import Snapshot, read_snapshot
from dumont_gpu.storage import open_source

GiB, MiB = 1 << 30, 1 << 20
SIZES = {"full": 4 * GiB, "short": 2 * GiB, "quick": 256 * MiB}
REPEATS = {"full": 3, "short": 2, "quick": 1}
PIECE = 64 * MiB  # what is written at a time: a chunk
WRITE_THREADS = 2  # as the restore has
STAGE_CHUNKS = 16  # chunks that a stage alone is measured with, at most
DISK_NEED, MEMORY_NEED = 3.0, 2.0  # times the size: source, snapshot and target; snapshot and target
SHARE = 0.8  # of the free space that may be used
SETTLE = {"full": 1.0, "short": 1.0, "quick": 0.0}  # seconds between the sync and a command


class CommandError(Exception):
    """A dumont-gpu command failed."""


def choose_size(wanted: int, disk: Path, memory: Path | None) -> int:
    """The size of the bf16 file, in whole chunks, that there is room for."""
    most = shutil.disk_usage(disk).free * SHARE / DISK_NEED
    if memory is not None:
        most = min(most, shutil.disk_usage(memory).free * SHARE / MEMORY_NEED)
    return max(1, int(min(wanted, most)) // PIECE) * PIECE


def write_weights(path: Path, size: int) -> None:
    """Writes a safetensors file of normal bf16 weights. They repeat every 64 MiB: no codec here looks so far back."""
    from cpu_codecs import weights

    data = next(data for name, _, data in weights(PIECE) if name == "bf16")
    tensor = {"dtype": "BF16", "shape": [size // 2048, 1024], "data_offsets": [0, size]}
    header = json.dumps({"model.weight": tensor}).encode()
    header += b" " * (-(len(header) + 8) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, PIECE):
            file.write(data[: min(PIECE, size - start)])


def dumont(*arguments: str, cwd: Path) -> dict[str, Any]:
    """Runs a command; returns its summary, with the seconds of the whole process as `wall`.

    Raises:
        CommandError: with the last line it said.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dumont_gpu", *arguments, "--json"], cwd=cwd, capture_output=True,
                          text=True, check=False)  # fmt: skip
    wall = time.perf_counter() - start
    if done.returncode:
        raise CommandError(f"{arguments[0]}: exit code {done.returncode}: {_message(done.stderr)}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**summary, "wall": wall}


def _message(stderr: str) -> str:
    """What a command with --json said last: the message of its error, or a line that is none."""
    line = (stderr.strip().splitlines() or ["no message"])[-1]
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line


class JobBench:
    """Jobs of one run; what is measured so far is in the output file at any time.

    Args:
        work: a folder for each place.
        parts: names of the lists that figures go to.
    """

    def __init__(self, options: argparse.Namespace, work: dict[str, Path], parts: tuple[str, ...]) -> None:
        self._options, self._work = options, work
        self._repeats = REPEATS[options.extent]
        places = {place: file_system(folder) for place, folder in work.items()}
        self.results: dict[str, Any] = {"repeats": self._repeats, **{part: [] for part in parts}, "places": places,
                                        "problems": []}  # fmt: skip

    def settle(self, place: str) -> None:
        """Waits until what was done before a command no longer disturbs it; in memory nothing does."""
        if place != "memory":
            os.sync()
            time.sleep(SETTLE[self._options.extent])

    def memory_first(self) -> list[str]:
        """The places: figures of the one that limits least come first, should time run out."""
        return sorted(self._work, key=lambda place: place != "memory")

    def add_stage(self, place: str, stage: str, size: int, run: Callable[[], object]) -> None:
        """Times a stage alone, which moves `size` original bytes."""
        run()
        seconds = [_wall(run) for _ in range(self._repeats)]
        self.results["stages"].append({"place": place, "stage": stage, "size": size, "seconds": seconds})

    def _guarded(self, what: str, run: Callable[[], object]) -> None:
        """Notes an error and goes on."""
        try:
            run()
        except Exception as error:  # whatever it is, it is reported
            message = " ".join(str(error).split())[:300]
            for place, folder in self._work.items():
                message = message.replace(str(folder), place.upper())  # results name no path of this machine
            say(f"{what}: {type(error).__name__}: {message}")
            self.results["problems"].append(f"{what}: {type(error).__name__}: {message}")
        self.save()

    def save(self) -> None:
        write_whole(self._options.output, json.dumps(self.results, indent=1))


class Bench(JobBench):
    """Restores."""

    def __init__(self, options: argparse.Namespace, work: dict[str, Path]) -> None:
        super().__init__(options, work, ("jobs", "stages", "opening"))

    def run(self) -> dict[str, Any]:
        self._guarded("opening the device", self._open)
        self._guarded("bf16 file", self._file)
        if self._options.tree:
            self._guarded("tree", lambda: self._input("tree", self._options.tree.resolve()))
        return self.results

    def _file(self) -> None:
        size = choose_size(self._options.size, self._work["disk"], self._work.get("memory"))
        folder = self._work["disk"] / "source"
        folder.mkdir()
        say(f"writing {size >> 20} MiB of bf16 weights")
        write_weights(folder / "model.safetensors", size)

        def stages(place: str, snapshot: Path) -> None:
            self._guarded(f"stages alone, {place}", lambda: self._stages(place, snapshot))

        self._input("bf16 file", folder, stages)

    def _input(self, job: str, source: Path, first: Callable[[str, Path], None] = lambda place, snapshot: None) -> None:
        """Packs and restores `source`; does something else `first` with its snapshot in each place."""
        packed = self._work["disk"] / f"{job.split()[0]}.dumont"
        summary = dumont("pack", str(source), "-o", str(packed), cwd=self._work["disk"])
        say(f"{job}: packed in {summary['seconds']:.1f} s")
        for place in self.memory_first():
            snapshot = self._work[place] / packed.name
            if snapshot != packed:
                shutil.copyfile(packed, snapshot)
            first(place, snapshot)
            self._restores(job, place, snapshot, source, summary)

    def _restores(self, job: str, place: str, snapshot: Path, source: Path, packed: dict[str, Any]) -> None:
        rows = {
            device: {"job": job, "place": place, "device": device, "size": packed["original_size"],
                     "stored": packed["compressed_size"], "used": "", "identical": None, "seconds": [], "wall": [],
                     "stage_seconds": []}
            for device in (str(self._options.device), "auto", "cpu")
        }  # fmt: skip
        self.results["jobs"] += rows.values()
        for repeat in range(-1, self._repeats):  # the first time compiles kernels, and is compared instead of timed
            for device, row in rows.items():
                what = f"{job}, {place}, --device {device}"
                self._guarded(what, lambda row=row, first=repeat < 0: self._restore(snapshot, source, row, first))
                if row["seconds"]:
                    say(f"{what}: {row['seconds'][-1]:.2f} s")

    def _restore(self, snapshot: Path, source: Path, row: dict[str, Any], first: bool) -> None:
        folder = snapshot.parent
        target = folder / "target"
        warm(snapshot)
        self.settle(row["place"])
        try:
            summary = dumont("restore", str(snapshot), str(target), "--device", row["device"], cwd=folder)
            row["used"] = summary["device"]
            if first:
                row["identical"] = not list(differences(source, target))
                if not row["identical"]:
                    raise CommandError("the restored tree differs")
            else:
                for name in ("seconds", "wall", "stage_seconds"):
                    row[name].append(summary[name])
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _open(self) -> None:
        """What a process pays once: CUDA's context, CuPy, and the kernels out of CuPy's cache."""
        code = (
            "import time; start = time.perf_counter(); from dumont_gpu.backends import open_device; "
            f"device = open_device({self._options.device}); device.load_kernels(); device.new_stream(); "
            "print(time.perf_counter() - start)"
        )
        for _ in range(1 + self._repeats):
            done = subprocess.run([sys.executable, "-c", code], cwd=self._work["disk"], capture_output=True, text=True,
                                  check=False)  # fmt: skip
            if done.returncode:
                raise CommandError((done.stderr.strip().splitlines() or ["no message"])[-1])
            self.results["opening"].append(float(done.stdout))
        del self.results["opening"][0]  # it may have compiled

    def _stages(self, place: str, location: Path) -> None:
        """Every stage of a restore alone, as original bytes and seconds."""
        source = open_source(str(location))
        try:
            snapshot = read_snapshot(source)
            chunks = [n for n, chunk in enumerate(snapshot.chunks) if chunk.compressor_id == 3][:STAGE_CHUNKS]
            stored = [fresh_memory(snapshot.chunks[number].size_compressed) for number in chunks]
            original = sum(snapshot.chunks[number].size_original for number in chunks)

            def fetch() -> None:
                for number, memory in zip(chunks, stored, strict=True):
                    snapshot.read_chunk(number, memory)

            with ThreadPoolExecutor(default_jobs()) as pool:
                self.add_stage(place, "fetch", original, fetch)
                self.add_stage(place, "check", original, lambda: list(pool.map(snapshot.check_chunk, chunks, stored)))
            content = fresh_memory(PIECE)
            content[:] = os.urandom(MiB) * (PIECE // MiB)
            total = len(chunks) * PIECE
            written = location.parent / "written"
            self.add_stage(place, "write", total, lambda: _write(written, content, total, place == "disk"))
            self._on_device(place, snapshot, chunks, stored)
        finally:
            (location.parent / "written").unlink(missing_ok=True)
            source.close()

    def _on_device(self, place: str, snapshot: Snapshot, chunks: list[int], stored: list[memoryview]) -> None:
        """Copies and kernels, by the device's clock, for one chunk."""
        from gpu_batch import resident
        from gpu_timer import device_seconds

        from dumont_gpu.backends import open_device

        device: Any = open_device(self._options.device)
        stream: Any = device.new_stream()
        size, out = snapshot.chunks[chunks[0]].size_original, fresh_memory(snapshot.chunks[chunks[0]].size_original)
        there = device.allocate(-(-size // 256) * 256)
        for memory in (stored[0], out):
            device.pin(memory)
        try:
            with resident(device, stream, stored[0], size, 4) as copies:
                batches = [copies.batch(number, 1) for number in range(4)]
                runs: dict[str, list[Callable[[], object]]] = {
                    "copy in": [lambda: stream.copy_in(there, stored[0])],
                    "decode": [lambda batch=batch: copies.decode(batch) for batch in batches],
                    "copy out": [lambda: stream.copy_out(out, there)],
                }
                for stage, each in runs.items():
                    seconds = device_seconds(stream.cupy_stream, each, 5, 4)
                    self.results["stages"].append({"place": place, "stage": stage, "size": size, "seconds": seconds})
        finally:
            for memory in (stored[0], out):
                device.unpin(memory)
            device.free(there)


def fresh_memory(size: int) -> memoryview:
    memory = memoryview(mmap.mmap(-1, size))
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1
    return memory


def _write(path: Path, content: memoryview, total: int, sync: bool) -> None:
    """Writes `total` bytes as a restore does: pieces of a chunk, past the page cache where that goes."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            list(pool.map(lambda at: write_at(descriptor, at, content), range(0, total, len(content))))
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def warm(path: Path) -> None:
    buffer = bytearray(MiB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _wall(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def work_folders(disk: Path, memory: Path | None) -> Iterator[dict[str, Path]]:
    """New directories for each place; deleted at the end, also if that is a time limit's: they hold gigabytes."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folders = {"disk": Path(tempfile.mkdtemp(prefix="dumont-bench-", dir=disk)).resolve()}
    if memory is not None and memory.is_dir() and os.access(memory, os.W_OK):
        folders["memory"] = Path(tempfile.mkdtemp(prefix="dumont-bench-", dir=memory)).resolve()
    try:
        yield folders
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


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
    parser.add_argument("--device", type=int, default=0)
    add_extent(parser)
    options = parser.parse_args()
    options.size = options.size or SIZES[options.extent]
    return options


def main() -> int:
    options = parse("Measure restores through a CUDA device.")
    with work_folders(options.disk, options.memory) as work:
        results = Bench(options, work).run()
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
