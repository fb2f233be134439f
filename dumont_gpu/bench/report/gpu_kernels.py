"""Tables of a GPU check about single kernels: hashing, and variants of the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dumont_gpu.bench.report.tables import Json, Table, rate
from dumont_gpu.sizes import MiB

_HASH: Final = (
    "BLAKE3 of chunks of {chunk} MiB in the device's memory, a batch of them in one launch of each kernel. Digests are "
    "compared with the CPU's."
)
_VARIANTS: Final = (
    "GB/s of original bytes as above, chunks of {chunk} MiB, {repeats} repeats, compute capability {capability}. The "
    "kernel as written was timed before and after the others. The constants are those of kernels/cuda/zipnn_decode.cu."
)


def hashing(data: Json) -> Iterator[Table]:
    rows = data.get("blake3", [])  # older results have none
    batches = sorted({row["batch"] for row in rows})
    of = {(row["kind"], row["batch"]): _rate(row) for row in rows}
    lines = [
        (kind, *(of.get((kind, batch), "-") for batch in batches)) for kind in dict.fromkeys(kind for kind, _ in of)
    ]
    if lines:
        header = ("chunks lie", *(f"{batch} chunks" for batch in batches))
        yield Table("Hashing on the device", _HASH.format(chunk=data["chunk"] // MiB), header, tuple(lines))


def variants(data: Json) -> Iterator[Table]:
    shapes = list(dict.fromkeys((row["kind"], row["batch"]) for row in data["variants"]))
    lines = []
    for name in dict.fromkeys(row["variant"] for row in data["variants"]):
        rows = [row for row in data["variants"] if row["variant"] == name]
        cells = [[_rate(row) for row in rows if (row["kind"], row["batch"]) == shape] for shape in shapes]
        lines.append((name, *(" and ".join(cell) or "-" for cell in cells)))
    notes = _VARIANTS.format(repeats=data["repeats"], chunk=data["chunk"] // MiB, capability=data["capability"])
    header = ("variant", *(f"{kind}, {batch} chunks" for kind, batch in shapes))
    yield Table("Decoding on the device: variants of the kernel", notes, header, tuple(lines))


def _rate(row: Json) -> str:
    return rate(row["size"], row["seconds"]) + ("" if row["verified"] else " WRONG OUTPUT")
