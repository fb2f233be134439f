"""Measures packs through a CUDA device by command line, on the CPU beside it, and each stage of them alone.

    python -m dumont_gpu.bench.measure.gpu.packs OUTPUT.json [--size BYTES] [--disk DIR] [--memory DIR] [--tree DIR]
                                                 [--short | --quick] [--device N]

With and without --paranoid, which decodes every chunk before it is written. One bf16 safetensors file, and text, for
LZ4; `--tree` is packed too. Source and snapshot lie in memory (/dev/shm), then on a disk with the source in the page
cache. Each snapshot of a device is decoded on the CPU, and its size compared with the CPU's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dumont_gpu.bench.measure.gpu import timer
from dumont_gpu.bench.measure.gpu.frames import text
from dumont_gpu.bench.measure.gpu.job_session import (
    PIECE,
    STAGE_CHUNKS,
    JobSession,
    choose_size,
    parse,
    work_folders,
    write_weights,
)
from dumont_gpu.bench.measure.gpu.resident_encode import ResidentWeights
from dumont_gpu.bench.measure.gpu.results import say
from dumont_gpu.bench.measure.memory import touched, warm
from dumont_gpu.bench.measure.processes import dumont
from dumont_gpu.codecs import ZipNN
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.format.digests import DEFAULT_DIGEST, digest_function
from dumont_gpu.jobs.resources import default_threads
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import align_up
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_sink, open_source

READ_THREADS = 2  # as the pack has
TEXT_SHARE = 4  # the text is 1/TEXT_SHARE of the bf16 file
STREAMS = 4  # as the backend has slots
MORE_MEMORY = "2GiB"  # for chunks: by default a pack has few chunks in flight
LZ4_SIZES = 1.05  # of the CPU's, at most


@dataclass(frozen=True, slots=True)
class Case:
    device: str
    paranoid: bool = False
    memory: str = ""  # for --memory; "": the default

    @property
    def label(self) -> str:
        words = [f"--device {self.device}", "--paranoid" * self.paranoid, self.memory and f"--memory {self.memory}"]
        return " ".join(word for word in words if word)


def cases(device: str, short: bool) -> list[Case]:
    """A device against the CPU, in every way, or in the least number of ways."""
    found = [Case(device), Case("cpu")]
    if not short:
        found += [Case(device, paranoid=True), Case("cpu", paranoid=True)]
        found += [Case(device, memory=MORE_MEMORY), Case("cpu", memory=MORE_MEMORY)]
    return found


class Bench(JobSession):
    """Packs."""

    def __init__(self, options: argparse.Namespace, work: dict[str, Path]) -> None:
        super().__init__(options, work, ("packs", "stages"))

    def run(self) -> dict[str, Any]:
        size = choose_size(self._options.size, self._work["disk"], self._work.get("memory"))
        full = "memory" if "memory" in self._work else "disk"  # the place where everything is compared
        for place in self.memory_first():
            self.guarded(f"bf16 file, {place}", partial(self._weights, place, size, short=place != full))
        self.guarded(f"text, {full}", lambda: self._text(full, size // TEXT_SHARE))
        if self._options.tree:
            self.guarded("tree", lambda: self._input("tree", "disk", self._options.tree.resolve(), short=True))
        return self.results

    def _weights(self, place: str, size: int, short: bool) -> None:
        folder = self._work[place] / "source"
        folder.mkdir()
        say(f"writing {size >> 20} MiB of bf16 weights, {place}")
        write_weights(folder / "model.safetensors", size)
        try:
            self._input("bf16 file", place, folder, short, weights=folder / "model.safetensors")
        finally:
            shutil.rmtree(folder)
            (self._work[place] / "packed.dumont").unlink(missing_ok=True)

    def _text(self, place: str, size: int) -> None:
        folder = self._work[place] / "text"
        folder.mkdir()
        (folder / "train.log").write_bytes(text(size, 0.0))
        try:
            self._input("text", place, folder, short=True)
        finally:
            shutil.rmtree(folder)

    def _input(self, job: str, place: str, source: Path, short: bool, weights: Path | None = None) -> None:
        """Packs `source` in every way; measures the stages of packing `weights` in between."""
        rows: dict[Case, dict[str, Any]] = {
            case: {"job": job, "place": place, "device": case.device, "paranoid": case.paranoid, "memory": case.memory,
                   "label": case.label, "size": 0, "stored": 0, "codecs": {}, "used": "", "verified": None,
                   "seconds": [], "wall": [], "stage_seconds": []}
            for case in cases(str(self._options.device), short)
        }  # fmt: skip
        self.results["packs"] += rows.values()
        snapshot = self._work[place] / "packed.dumont"
        for repeat in range(
            -1, self._repeats
        ):  # run -1 compiles kernels; its snapshot is checked, its time not counted
            if repeat == 0 and weights:  # before packs, which may take long: without stages their figures say little
                self.guarded(f"stages alone, {place}", lambda: self._stages(place, weights, snapshot))
            for case, row in rows.items():
                if repeat >= 0 and not row["verified"]:
                    continue  # the first run failed, and so would the next
                what = f"{job}, {place}, {case.label}"
                self.guarded(what, partial(self._pack, source, snapshot, case, row, first=repeat < 0))
                if row["seconds"]:
                    say(f"{what}: {row['seconds'][-1]:.2f} s")
            if repeat < 0:
                self.results["problems"] += size_problems(list(rows.values()))

    def _pack(self, source: Path, snapshot: Path, case: Case, row: dict[str, Any], first: bool) -> None:
        snapshot.unlink(missing_ok=True)
        warm(source)
        self.settle(row["place"])
        # hybrid_v2: a device encodes LZ4, and no zstd.
        command = ["pack", str(source), "-o", str(snapshot), "--device", case.device, "--method", "hybrid_v2"]
        command += ["--paranoid"] * case.paranoid + (["--memory", case.memory] if case.memory else [])
        summary = dumont(*command, folder=snapshot.parent)
        row["used"], row["codecs"] = summary["device"], summary["codec_bytes"]
        row["size"], row["stored"] = summary["original_size"], summary["compressed_size"]
        if first:
            row["verified"] = False
            dumont("verify", str(snapshot), "--content", "--device", "cpu", folder=snapshot.parent)
            row["verified"] = True
        else:
            for name in ("seconds", "wall", "stage_seconds"):
                row[name].append(summary[name])

    # --- stages -------------------------------------------------------------------------------------------------------

    def _stages(self, place: str, weights: Path, location: Path) -> None:
        """Every stage of a pack alone, as original bytes and seconds."""
        source = open_source(str(location))
        try:
            snapshot = read_snapshot(source)
            chunks = [n for n, chunk in enumerate(snapshot.chunks) if chunk.compressor_id == ZipNN().id][:STAGE_CHUNKS]
            encoded = [touched(snapshot.chunks[number].size_compressed) for number in chunks]
            for number, memory in zip(chunks, encoded, strict=True):
                snapshot.read_chunk(number, memory)
            original = sum(snapshot.chunks[number].size_original for number in chunks)
            first = touched(snapshot.chunks[chunks[0]].size_original)
            ZipNN().decode(encoded[0], first)
        finally:
            source.close()
        self._reading(place, weights, len(chunks))
        digest = digest_function(DEFAULT_DIGEST)
        with ThreadPoolExecutor(default_threads()) as pool:
            self.add_stage(
                place, "digests", original, lambda: list(pool.map(lambda each: (digest(first), digest(each)), encoded))
            )
        self.add_stage(place, "write", original, lambda: _write(location.with_name("written"), encoded))
        self._on_device(place, first, encoded[0])

    def _reading(self, place: str, weights: Path, count: int) -> None:
        warm(weights)
        starts = range(0, min(weights.stat().st_size, count * PIECE) // PIECE * PIECE, PIECE)
        memories = [touched(PIECE) for _ in range(READ_THREADS)]
        descriptor = os.open(weights, os.O_RDONLY)

        def read(thread: int) -> None:
            for start in starts[thread::READ_THREADS]:
                read_at(descriptor, start, memories[thread])

        try:
            with ThreadPoolExecutor(READ_THREADS) as pool:
                self.add_stage(place, "read", len(starts) * PIECE, lambda: list(pool.map(read, range(READ_THREADS))))
        finally:
            os.close(descriptor)

    def _on_device(self, place: str, content: memoryview, encoded: memoryview) -> None:
        """Copies of one chunk and the kernels of several, by the device's clock."""
        size = len(content)
        with self.device_stages(place, (encoded, content)) as on, ExitStack() as held:
            streams: list[Any] = [on.device.new_stream() for _ in range(STREAMS)]
            chunks = ResidentWeights(on.device, on.stream, content, Dtype.BF16, STREAMS)
            held.callback(chunks.close)

            def encode() -> None:
                with timer.side_by_side(on.stream.cupy_stream, [each.cupy_stream for each in streams]):
                    for number, each in enumerate(streams):
                        chunks.run(each, number, "all")

            on.add("copy in", size, [lambda: on.stream.copy_in(on.there, content)])
            on.add("encode", STREAMS * size, [encode])
            on.add("copy out", size, [lambda: on.stream.copy_out(encoded, on.there)])


def size_problems(rows: list[dict[str, Any]]) -> list[str]:
    """Names snapshots of a device whose size wrongly differs from the CPU's."""
    problems = []
    on_cpu: dict[str, list[int]] = next((row["codecs"] for row in rows if row["device"] == "cpu"), {})
    for row in rows if on_cpu else ():
        for codec, (original, stored) in row["codecs"].items() if row["device"] != "cpu" else ():
            theirs = on_cpu.get(codec, [0, 0])
            equal = [original, stored] == theirs
            near = original == theirs[0] and stored <= LZ4_SIZES * theirs[1]
            if not (equal or (codec == "lz4" and near)):
                problems.append(f"{row['job']}, {row['place']}, {row['label']}: {codec} stores {original} bytes in "
                                f"{stored}, on the CPU {theirs[0]} in {theirs[1]}")  # fmt: skip
    return problems


def _write(path: Path, encoded: list[memoryview]) -> None:
    """Writes chunks as a pack does, until they are on disk."""
    path.unlink(missing_ok=True)
    sink, end = open_sink(str(path)), 0
    try:
        for chunk in encoded:
            sink.write_at(end, chunk)
            end = align_up(end + len(chunk))
        sink.commit(end)
    finally:
        sink.abort()
        path.unlink(missing_ok=True)


def main() -> int:
    options = parse("Measure packs through a CUDA device.")
    with work_folders(options.disk, options.memory, options.prefix) as work:
        bench = Bench(options, work)
        bench.run()
        bench.save()
    return 1 if bench.results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
