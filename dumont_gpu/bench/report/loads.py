"""Tables of loads: ours against raw files, what crosses a link, the memory of a streamed load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from dumont_gpu.bench.report.tables import MB, Json, Table, times
from dumont_gpu.sizes import MiB

_OURS: Final = "dumont-gpu"
_RESTORE: Final = "dumont-gpu, restore of the file"
_LOCAL: Final = "local"
_NOTES: Final = (
    "Seconds and GB/s of the tensors' bytes, by the median, with the best in brackets, from the call to the last "
    "tensor; everyone once in each turn, in a rotating order; a ratio compares turn by turn, with the first dumont-gpu "
    "of its task. Of files that are only mapped, a byte of each page is touched. Only dumont-gpu compares what it "
    "reads with digests, and its tensors are memory of their own, not pages of a file."
)


def load_tables(part: Json) -> Iterator[Table]:
    """Yields the tables of part `load`."""
    rows = part["figures"]
    for place in dict.fromkeys(row["place"] for row in rows):
        yield _place_table(part, place, [row for row in rows if row["place"] == place])
    yield _memory_table(part["stream"])


def _place_table(part: Json, place: str, rows: Sequence[Json]) -> Table:
    header = ["tensors", "who", "runs", "seconds", "GB/s", "its time / ours"]
    is_link = any(row["sent"] for row in rows)
    lines = []
    for task, found in _by_task(rows):
        ours = _first_of_ours(found)
        for row in found:
            if row["seconds"]:
                cells = [task, row["who"], str(len(row["seconds"])), _seconds(row), _rate(row)]
                cells.append(times(row["seconds"], ours["seconds"]) if ours else "-")
                lines.append((*cells, f"{row['sent'] / MB:.1f}") if is_link else (*cells,))
    notes = [_NOTES, *_facts(part, place, rows), *_quicker(rows), *_problems(rows)]
    header += ["MB sent"] if is_link else []
    return Table(f"Load, {place}", " ".join(notes), tuple(header), tuple(lines))


def _facts(part: Json, place: str, rows: Sequence[Json]) -> Iterator[str]:
    yield (
        f"The bf16 model: {part['tensors']} tensors of normal weights, {part['size'] / MB:.0f} MB, "
        f"{part['snapshot_size'] / MB:.0f} MB as a snapshot."
    )
    if place == _LOCAL:
        yield "Files are in the page cache."
        yield from _against_restore(rows)
        if part["device"] is None:
            yield "No CUDA device: loads into one were not run."
    elif place.startswith("http"):
        yield (
            "A server of its own sends at the rate of the link, by loopback. One tensor needs at least "
            f"{part['least_bytes'] / MB:.1f} MB of the snapshot: its chunks, that of the file's table, index, manifest."
        )
    else:
        yield "The benchmark of loads into a device was written without one: these are among its first figures."


def _against_restore(rows: Sequence[Json]) -> Iterator[str]:
    for _, found in _by_task(rows):
        restore = next((row for row in found if row["who"] == _RESTORE and row["seconds"]), None)
        ours = _first_of_ours(found)
        if restore and ours:
            ratio = median(theirs / our for theirs, our in zip(restore["seconds"], ours["seconds"], strict=False))
            yield f"A load is {ratio:.2f} times as fast as a restore of the same file to here (wanted: 0.8)."


def _quicker(rows: Sequence[Json]) -> Iterator[str]:
    """Says where others win."""
    won = []
    for task, found in _by_task(rows):
        ours = _first_of_ours(found)
        quicker = [
            row["who"]
            for row in found
            if ours and row["seconds"] and _is_other(row) and median(row["seconds"]) < median(ours["seconds"])
        ]
        if quicker:
            won.append(f"{task}: {'; '.join(quicker)}")
    yield f"Quicker than dumont-gpu here: {' | '.join(won)}." if won else "Nobody is quicker than dumont-gpu here."


def _problems(rows: Sequence[Json]) -> Iterator[str]:
    lines = dict.fromkeys(f"{row['who']}: {row['problem']}" for row in rows if row["problem"])
    if lines:
        yield f"Without figures: {'; '.join(lines)}."


def _memory_table(stream: Json) -> Table:
    names = ("tensors, MB", "largest, MB", "limit, MB", "seconds", "before, MiB", "peak, MiB", "taken, MiB")
    sizes = (f"{stream[key] / MB:.0f}" for key in ("size", "largest", "limit"))
    memory = (stream["before"], stream["peak"], stream["peak"] - stream["before"])
    cells = (*sizes, f"{stream['seconds']:.2f}", *(f"{each / MiB:.0f}" for each in memory))
    notes = (
        "A process takes every tensor by `prefetch` and drops it. Memory (RSS) before the file is opened, and at the "
        "peak: chunks on their way, tensors up to the limit, and one that the caller waits for."
    )
    return Table("Load: memory of a stream", notes, ("", *names), (("dumont-gpu, prefetch", *cells),))


def _by_task(rows: Sequence[Json]) -> Iterator[tuple[str, list[Json]]]:
    for task in dict.fromkeys(row["task"] for row in rows):
        yield task, [row for row in rows if row["task"] == task]


def _first_of_ours(rows: Sequence[Json]) -> Json | None:
    return next((row for row in rows if not _is_other(row) and row["seconds"]), None)


def _is_other(row: Json) -> bool:
    return not row["who"].startswith(_OURS)


def _seconds(row: Json) -> str:
    return f"{median(row['seconds']):.3f} ({min(row['seconds']):.3f})"


def _rate(row: Json) -> str:
    return f"{row['size'] / median(row['seconds']) / 1e9:.2f} ({row['size'] / min(row['seconds']) / 1e9:.2f})"
