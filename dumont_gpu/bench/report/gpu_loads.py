"""Tables of loads into device memory: what was checked, who took how long, and each stage alone."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from dumont_gpu.bench.report.gpu_stages import stages_alone
from dumont_gpu.bench.report.tables import MB, Json, Table, rate
from dumont_gpu.bench.report.targets import PLAIN_COPY, faster, load_limit, load_row, speed
from dumont_gpu.sizes import MiB

_CHECKS: Final = (
    "A small safetensors file: bf16, fp32, fp16, fp8, integers, odd sizes, small tensors that share chunks, noise that "
    'is stored, zeros. Every byte is compared with the file. "By the device": chunks that it decoded itself.'
)
_LOADS: Final = (
    "One bf16 tensor from a file in the page cache into device memory, in one process; {repeats} repeats, each of "
    "everyone once, after one whose tensor is compared with the file. GB/s of raw bytes, of which the snapshot stores "
    '{stored}. "Opened before": the snapshot is open, and its buffers are pinned; otherwise a whole `dumont_gpu.load`. '
    "The copies have their device memory and pinned buffers before they begin, and check nothing; the raw file is read "
    'by as many threads as ours. "Of the limit": of the slower stage of the device, below: the copy of the encoded '
    "bytes, or the decoding."
)
_STAGES: Final = (
    "The host does not hash what the device decodes: its rate is there to compare. Hash: of the encoded bytes, on the "
    "device."
)


def loads(data: Json) -> Iterator[Table]:
    yield _checks(data["checks"])
    lines = []
    for row in (row for row in data["loads"] if row["seconds"]):
        place = row["place"]
        limit, plain = load_limit(data, place), load_row(data, place, PLAIN_COPY)
        of_limit = f"{speed(row) / speed(limit):.0%}" if limit else "-"
        ratio = faster(row, plain)
        right = {True: "right", False: "WRONG", None: "not compared"}[row["verified"]]
        title = f"{place} ({data['places'][place]}), {row['who']}"
        times = f"{ratio:.2f}x" if ratio is not None else "-"
        lines.append(
            (title, f"{row['size'] / MB:.0f}", rate(row["size"], row["seconds"]), f"{median(row['seconds']):.3f}",
             of_limit, times, right)
        )  # fmt: skip
    header = ("load", "MB", "GB/s", "seconds", "of the limit", "against the plain copy", "tensor")
    stored = data.get("stored")
    notes = _LOADS.format(repeats=data["repeats"], stored=f"{stored:.4f}" if stored else "-")
    if "pt" not in data["frameworks"]:
        notes += " PyTorch was not installed, or not for CUDA: it is left out, and safetensors with it."
    if data.get("unpinned"):
        notes += f" OUR BUFFERS WERE NOT PINNED: {data['unpinned']}."
    yield Table("Loads", notes, header, tuple(lines))
    alone = stages_alone("Loads", data)
    yield Table(alone.title, f"{alone.notes} {_STAGES}", alone.header, alone.rows)


def _checks(checks: list[Json]) -> Table:
    lines = []
    for row in checks:
        by_device = f"{row['on_device'] / MiB:.1f} MiB" if row["on_device"] else ""
        outcome = f"WRONG: {row['problem']}" if row["problem"] else "right"
        lines.append((f"{row['method']}, {row['framework']}, {row['way']}", f"{row['tensors']}", by_device, outcome))
    return Table("Loads: tensors of every kind", _CHECKS, ("way", "tensors", "by the device", "outcome"), tuple(lines))
