"""Measures restores through a CUDA device by command line, on the CPU beside it, and each stage of them alone.

    python -m dumont_gpu.bench.measure.gpu.restores OUTPUT.json [--size BYTES] [--disk DIR] [--memory DIR] [--tree DIR]
                                                    [--short | --quick] [--device N]

The main input is one bf16 safetensors file; `--tree` is packed and restored too. Snapshot and target lie on a disk,
and in memory (/dev/shm); snapshots are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dumont_gpu.backends.forecast import WORTH_WAKING
from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.bench.measure.gpu.job_session import (
    PIECE,
    STAGE_CHUNKS,
    JobSession,
    choose_size,
    parse,
    work_folders,
    write_weights,
)
from dumont_gpu.bench.measure.gpu.resident_decode import resident
from dumont_gpu.bench.measure.gpu.results import say
from dumont_gpu.bench.measure.memory import touched, warm
from dumont_gpu.bench.measure.processes import CommandError, dumont, execute
from dumont_gpu.codecs import ZipNN
from dumont_gpu.disk.direct_io import write_at
from dumont_gpu.jobs.resources import default_threads
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.reader import Snapshot, read_snapshot
from dumont_gpu.storage import open_source

WRITE_THREADS = 2  # as the restore has


class Bench(JobSession):
    """Restores."""

    def __init__(self, options: argparse.Namespace, work: dict[str, Path]) -> None:
        super().__init__(options, work, ("jobs", "stages", "opening"))

    def run(self) -> dict[str, Any]:
        self.guarded("opening the device", self._open)
        self.guarded("bf16 file", self._file)
        if self._options.tree:
            self.guarded("tree", lambda: self._input("tree", self._options.tree.resolve()))
        return self.results

    def _file(self) -> None:
        size = choose_size(self._options.size, self._work["disk"], self._work.get("memory"))
        folder = self._work["disk"] / "source"
        folder.mkdir()
        say(f"writing {size >> 20} MiB of bf16 weights")
        write_weights(folder / "model.safetensors", size)

        def stages(place: str, snapshot: Path) -> None:
            self.guarded(f"stages alone, {place}", lambda: self._stages(place, snapshot))

        self._input("bf16 file", folder, stages)

    def _input(self, job: str, source: Path, first: Callable[[str, Path], None] = lambda place, snapshot: None) -> None:
        """Packs and restores `source`; does something else `first` with its snapshot in each place."""
        packed = self._work["disk"] / f"{job.split()[0]}.dumont"
        # hybrid_v2: a device decodes LZ4, and no zstd.
        summary = dumont("pack", str(source), "-o", str(packed), "--method", "hybrid_v2", folder=self._work["disk"])
        say(f"{job}: packed in {summary['seconds']:.1f} s")
        for place in self.memory_first():
            snapshot = self._work[place] / packed.name
            if snapshot != packed:
                shutil.copyfile(packed, snapshot)
            first(place, snapshot)
            self._restores(job, place, snapshot, source, summary)

    def _restores(self, job: str, place: str, snapshot: Path, source: Path, packed: dict[str, Any]) -> None:
        # `auto` wakes no device for less.
        devices = [str(self._options.device), *(["auto"] if packed["original_size"] >= WORTH_WAKING else []), "cpu"]
        rows = {
            device: {"job": job, "place": place, "device": device, "size": packed["original_size"],
                     "stored": packed["compressed_size"], "used": "", "identical": None, "seconds": [], "wall": [],
                     "stage_seconds": []}
            for device in devices
        }  # fmt: skip
        self.results["jobs"] += rows.values()
        for repeat in range(-1, self._repeats):  # run -1 compiles kernels; its tree is compared, its time not counted
            for device, row in rows.items():
                what = f"{job}, {place}, --device {device}"
                self.guarded(what, partial(self._restore, snapshot, source, row, first=repeat < 0))
                if row["seconds"]:
                    say(f"{what}: {row['seconds'][-1]:.2f} s")

    def _restore(self, snapshot: Path, source: Path, row: dict[str, Any], first: bool) -> None:
        folder = snapshot.parent
        target = folder / "target"
        warm(snapshot)
        self.settle(row["place"])
        try:
            summary = dumont("restore", str(snapshot), str(target), "--device", row["device"], folder=folder)
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
        """The start of a process: CUDA's context, CuPy, and the kernels out of CuPy's cache."""
        code = (
            "import time; start = time.perf_counter(); from dumont_gpu.backends import open_device; "
            f"device = open_device({self._options.device}); device.load_kernels(); device.new_stream(); "
            "print(time.perf_counter() - start)"
        )
        for _ in range(1 + self._repeats):
            done = execute([sys.executable, "-c", code], self._work["disk"])
            self.results["opening"].append(float(done.output))
        del self.results["opening"][0]  # that process may have compiled

    def _stages(self, place: str, location: Path) -> None:
        """Every stage of a restore alone, as original bytes and seconds."""
        source = open_source(str(location))
        try:
            snapshot = read_snapshot(source)
            chunks = [n for n, chunk in enumerate(snapshot.chunks) if chunk.compressor_id == ZipNN().id][:STAGE_CHUNKS]
            encoded = [touched(snapshot.chunks[number].size_compressed) for number in chunks]
            original = sum(snapshot.chunks[number].size_original for number in chunks)

            def fetch() -> None:
                for number, memory in zip(chunks, encoded, strict=True):
                    snapshot.read_chunk(number, memory)

            with ThreadPoolExecutor(default_threads()) as pool:
                self.add_stage(place, "fetch", original, fetch)
                self.add_stage(place, "check", original, lambda: list(pool.map(snapshot.check_chunk, chunks, encoded)))
            content = touched(PIECE)
            content[:] = os.urandom(MiB) * (PIECE // MiB)
            total = len(chunks) * PIECE
            written = location.parent / "written"
            self.add_stage(place, "write", total, lambda: _write(written, content, total, place == "disk"))
            self._on_device(place, snapshot, chunks, encoded)
        finally:
            (location.parent / "written").unlink(missing_ok=True)
            source.close()

    def _on_device(self, place: str, snapshot: Snapshot, chunks: list[int], encoded: list[memoryview]) -> None:
        """Copies and kernels, by the device's clock, for one chunk."""
        size = snapshot.chunks[chunks[0]].size_original
        source, out = encoded[0], touched(size)
        with (
            self.device_stages(place, (source, out)) as on,
            resident(on.device, on.stream, source, size, 4) as copies,
        ):
            batches = [copies.batch(number, 1) for number in range(4)]
            on.add("copy in", size, [lambda: on.stream.copy_in(on.there, source)])
            on.add("decode", size, [partial(copies.decode, batch) for batch in batches])
            on.add("copy out", size, [lambda: on.stream.copy_out(out, on.there)])


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


def main() -> int:
    options = parse("Measure restores through a CUDA device.")
    with work_folders(options.disk, options.memory, options.prefix) as work:
        results = Bench(options, work).run()
    return 1 if results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
