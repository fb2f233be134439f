"""Checks and measures loading into a CUDA device's memory, beside copies of the raw bytes, and each stage alone.

    python -m dumont_gpu.bench.measure.gpu.loads OUTPUT.json [--size BYTES] [--disk DIR] [--memory DIR]
                                                 [--short | --quick] [--device N]

First a small file of every kind of tensors: whole, by slices, by prefetch, into a caller's arrays, with a flipped bit.
Then one bf16 safetensors file, in memory (/dev/shm) and on a disk, in the page cache: everyone in turn, in one process.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import dumont_gpu
from dumont_gpu.bench.measure.clock import rotated, seconds_of
from dumont_gpu.bench.measure.gpu.allocations import Allocations
from dumont_gpu.bench.measure.gpu.job_session import (
    PIECE,
    STAGE_CHUNKS,
    JobSession,
    choose_size,
    parse,
    work_folders,
    write_weights,
)
from dumont_gpu.bench.measure.gpu.load_check import check_loads, content_of, frameworks, has_torch
from dumont_gpu.bench.measure.gpu.load_peers import FileCopy, PlainCopy, safetensors_load
from dumont_gpu.bench.measure.gpu.resident_decode import resident
from dumont_gpu.bench.measure.gpu.resident_digests import ResidentChunks
from dumont_gpu.bench.measure.gpu.results import say
from dumont_gpu.bench.measure.memory import touched, warm
from dumont_gpu.bench.measure.processes import dumont
from dumont_gpu.bench.report.targets import FILE_COPY, OPENED, OURS, PLAIN_COPY, SAFETENSORS, load_verdicts
from dumont_gpu.codecs import ZipNN
from dumont_gpu.jobs.resources import default_threads
from dumont_gpu.loading.device_loader import local_readers
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import Snapshot, read_snapshot
from dumont_gpu.storage import open_source

REPEATS: Final = {"full": 7, "short": 5, "quick": 1}  # a load takes a tenth of a second
NAME: Final = "model.safetensors"
TENSOR: Final = "model.weight"  # of `write_weights`
SAMPLES, SAMPLE_SIZE = 64, 64 * KiB  # of a loaded tensor, compared with the file where not all of it is
BATCH: Final = 4  # chunks, as a loader has slots


class Bench(JobSession):
    """Loads."""

    def __init__(self, options: argparse.Namespace, work: dict[str, Path]) -> None:
        super().__init__(options, work, ("checks", "loads", "stages"))
        self._repeats = self.results["repeats"] = REPEATS[options.extent]
        self.results["frameworks"] = frameworks()
        if not has_torch():
            say("PyTorch is not installed, or not for CUDA: it is left out, and safetensors with it")
        self._number = options.device

    def run(self) -> dict[str, Any]:
        self.guarded("tensors of every kind", self._check)
        size = choose_size(self._options.size, self._work["disk"], self._work.get("memory"))
        for place in self.memory_first():
            self.guarded(f"bf16 file, {place}", partial(self._file, place, size))
        return self.results

    def _check(self) -> None:
        folder = self._work["disk"]
        for check in check_loads(folder, self._number):
            self.results["checks"].append(check.row())
            what = f"{check.method}, {check.framework}, {check.way}"
            if check.problem:
                self.results["problems"].append(f"{what}: {check.problem}")
            say(f"{what}: {check.problem or 'right'}")
            self.save()

    # --- one large file -----------------------------------------------------------------------------------------------

    def _file(self, place: str, size: int) -> None:
        raw, snapshot = self._packed(place, size)
        warm(raw)
        warm(snapshot)
        self.settle(place)
        self.guarded(f"stages alone, {place}", lambda: self._stages(place, snapshot))
        with ExitStack() as held:
            contenders = self._contenders(place, raw, snapshot, size, held)
            self._in_turn(place, raw, size, contenders)
        for verdict in load_verdicts(self.results):
            if verdict.what.endswith(place) and verdict.met is not None:
                say(f"{verdict.what}: {verdict.found}, wanted {verdict.wanted}")

    def _packed(self, place: str, size: int) -> tuple[Path, Path]:
        """Returns the raw file and its snapshot in a place; made in the first place, and copied to the others."""
        folder, first = self._work[place], self._work[self.memory_first()[0]]
        raw, snapshot = folder / "source" / NAME, folder / "bf16.dumont"
        raw.parent.mkdir()
        if folder != first:
            for path in (raw, snapshot):
                shutil.copyfile(first / path.relative_to(folder), path)
            return raw, snapshot
        say(f"writing {size >> 20} MiB of bf16 weights, {place}")
        write_weights(raw, size)
        summary = dumont("pack", str(raw.parent), "-o", str(snapshot), "--method", "hybrid_v2", folder=folder)
        self.results["stored"] = summary["compressed_size"] / summary["original_size"]
        return raw, snapshot

    def _contenders(
        self, place: str, raw: Path, snapshot: Path, size: int, held: ExitStack
    ) -> dict[str, Callable[[], Any]]:
        """Returns what everyone does, by name; those that are not installed, or fail to begin, are left out."""
        found: dict[str, Callable[[], Any]] = {}
        for framework in frameworks():
            options = {"framework": framework, "device": self._number}
            found[OURS.format(framework)] = partial(dumont_gpu.load, str(snapshot), NAME, **options)

            def opened(who: str = OPENED.format(framework), options: dict[str, Any] = options) -> None:
                files = held.enter_context(dumont_gpu.open(str(snapshot), NAME, **options))
                files.get_tensors()
                files.loader.wait_for_pinning()
                self.results["unpinned"] = files.loader.refusal
                found[who] = files.get_tensors

            self.guarded(f"{OPENED.format(framework)}, {place}", opened)
        self.guarded(f"copies, {place}", lambda: found.update(self._copies(raw, size, held)))
        self.guarded(f"{SAFETENSORS}, {place}", lambda: found.update(self._safetensors(raw)))
        return found

    def _copies(self, raw: Path, size: int, held: ExitStack) -> Iterator[tuple[str, Callable[[], Any]]]:
        from dumont_gpu.backends import open_device

        device = open_device(self._number)
        memory = Allocations(device)
        held.callback(memory.close)
        there = memory.allocate(size)
        plain = PlainCopy(device, there, size, PIECE)
        held.callback(plain.close)
        yield PLAIN_COPY, plain.run
        file = FileCopy(device, there, raw, raw.stat().st_size - size, size, local_readers(default_threads()))
        held.callback(file.close)
        yield FILE_COPY, file.run

    def _safetensors(self, raw: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
        load = safetensors_load(raw, self._number)
        if load is not None:
            yield SAFETENSORS, load

    def _in_turn(self, place: str, raw: Path, size: int, contenders: dict[str, Callable[[], Any]]) -> None:
        rows: dict[str, dict[str, Any]] = {
            who: {"place": place, "who": who, "size": size, "verified": None, "seconds": []} for who in contenders
        }
        self.results["loads"] += rows.values()
        failed = set()
        # Turn -1 compiles kernels; its tensors are compared, its time is not counted.
        for turn in range(-1, self._repeats):
            for who in rotated(list(contenders), turn + 1):
                if who not in failed:
                    problems = len(self.results["problems"])
                    whole = place == self.memory_first()[0] and "opened" not in who
                    check = partial(self._same, raw, size, whole=whole) if turn < 0 else None
                    self.guarded(f"{who}, {place}", partial(self._turn, rows[who], contenders[who], check))
                    if len(self.results["problems"]) > problems:
                        failed.add(who)
        for who, row in rows.items():
            if row["seconds"]:
                seconds = median(row["seconds"])
                say(f"{place}, {who}: {seconds:.3f} s, {size / seconds / 1e9:.1f} GB/s")

    def _turn(self, row: dict[str, Any], run: Callable[[], Any], check: Callable[[Any], None] | None) -> None:
        loaded: list[Any] = []
        seconds = seconds_of(lambda: loaded.append(run()))
        if check is None:
            row["seconds"].append(seconds)
        elif loaded[0] is not None:
            row["verified"] = False
            check(loaded[0][TENSOR])
            row["verified"] = True
        loaded.clear()
        _free_device_memory()

    def _same(self, raw: Path, size: int, array: Any, *, whole: bool) -> None:
        """Raises ValueError unless a tensor is what its file holds: all of it, or samples from its start to its end."""
        flat, skip = array.reshape(-1), raw.stat().st_size - size
        step = PIECE if whole else max(SAMPLE_SIZE, size // SAMPLES)
        length = PIECE if whole else SAMPLE_SIZE
        item = size // flat.shape[0]
        with raw.open("rb", buffering=0) as file:
            for at in range(0, size, step):
                file.seek(skip + at)
                expected = file.read(min(length, size - at))
                if content_of(flat[at // item : (at + len(expected)) // item]) != expected:
                    raise ValueError(f"the tensor is wrong after byte {at}")

    # --- stages -------------------------------------------------------------------------------------------------------

    def _stages(self, place: str, location: Path) -> None:
        """Every stage of a load alone, as original bytes and seconds. Loads spare the host's hash."""
        source = open_source(str(location))
        try:
            snapshot = read_snapshot(source)
            chunks = [n for n, chunk in enumerate(snapshot.chunks) if chunk.compressor_id == ZipNN().id][:STAGE_CHUNKS]
            encoded = [touched(snapshot.chunks[number].size_compressed) for number in chunks]
            original = sum(snapshot.chunks[number].size_original for number in chunks)
            threads = default_threads()
            with ThreadPoolExecutor(local_readers(threads)) as pool:
                self.add_stage(place, "fetch", original, lambda: list(pool.map(snapshot.read_chunk, chunks, encoded)))
            with ThreadPoolExecutor(threads) as pool:
                self.add_stage(
                    place, "host hash", original, lambda: list(pool.map(snapshot.check_chunk, chunks, encoded))
                )
            self._on_device(place, snapshot, chunks, encoded)
        finally:
            source.close()

    def _on_device(self, place: str, snapshot: Snapshot, chunks: list[int], encoded: list[memoryview]) -> None:
        """The copy and the kernels, by the device's clock."""
        size, source = snapshot.chunks[chunks[0]].size_original, encoded[0]
        with (
            self.device_stages(place, (source,)) as on,
            resident(on.device, on.stream, source, size, BATCH) as copies,
            ExitStack() as held,
        ):
            memory = Allocations(on.device)
            held.callback(memory.close)
            on.add("copy in", size, [lambda: on.stream.copy_in(on.there, source)])
            digests = ResidentChunks(on.stream, memory, source, BATCH, 0)
            _, hashing = digests.batch(0, BATCH)
            on.add("hash", BATCH * size, [partial(digests.hash, hashing)])
            batch = copies.batch(0, BATCH)
            on.add("decode", BATCH * size, [partial(copies.decode, batch)])


def _free_device_memory() -> None:
    """Has frameworks give back what they keep, for the next contender."""
    cupy, torch = sys.modules.get("cupy"), sys.modules.get("torch")
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()
    if torch is not None:
        torch.cuda.empty_cache()


def main() -> int:
    options = parse("Check and measure loading into a CUDA device's memory.")
    with work_folders(options.disk, options.memory, options.prefix) as work:
        bench = Bench(options, work)
        bench.run()
        bench.save()
    return 1 if bench.results["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
