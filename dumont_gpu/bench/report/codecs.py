"""Tables of the float codec: against other packages, on every instruction set, beside simpler work of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from dumont_gpu.bench.report.tables import Json, Table, rate, times
from dumont_gpu.sizes import KiB, MiB

OURS: Final = "dumont-gpu"
_NOTES: Final = (
    "GB/s of original bytes, by the median of {repeats} turns, with the best in brackets; everyone once in each turn, "
    "in a rotating order; a ratio compares turn by turn. dumont-gpu is given its buffers, as its pipeline has a pool; "
    "the others allocate their output, which is part of their time: above 32 MiB, that means fresh pages from the "
    'kernel in each run. "Fresh buffers" pays for them too, so it tells how much of the lead is the reuse of memory.'
)


def codec_tables(part: Json) -> Iterator[Table]:
    """Yields the tables of part `codecs`."""
    rows = part["figures"]
    sizes = [size for size in dict.fromkeys(row["size"] for row in rows) if size != part["hot_size"]]
    for threads in sorted({row["label"]["threads"] for row in rows}):
        found = [row for row in rows if row["size"] in sizes and row["label"]["threads"] == threads]
        yield _duel(part, found, f"Weights, other packages, {_threads(threads)}, GB/s", part["repeats"])
    if hot := [row for row in rows if row["size"] == part["hot_size"]]:
        title = f"Weights, other packages, {part['hot_size'] // MiB} MiB that stays in cache, GB/s"
        yield _duel(part, hot, title, part["hot_repeats"])
    if len({(row["label"]["path"], row["label"]["block_log2"]) for row in rows if row["label"]["path"]}) > 1:
        for name in dict.fromkeys(row["weights"] for row in rows):
            yield _every_path(part, name)
    if part["references"]:
        lines = tuple((_reference(row, part), rate(row["size"], row["seconds"])) for row in part["references"])
        yield Table("This machine, for comparison, one thread", "GB/s, median (best).", ("work", "GB/s"), lines)


def _duel(part: Json, rows: Sequence[Json], title: str, repeats: int) -> Table:
    """Everyone on the default path and block, compared with our codec."""
    header = ("weights", "who", "ratio", "compress", "ours is faster", "decompress", "ours is faster")
    lines = []
    block_log2 = max(row["label"]["block_log2"] for row in rows)
    for row in rows:
        label = row["label"]
        if label["path"] and (label["path"], label["block_log2"]) != (part["default_path"], block_log2):
            continue
        if label["codec"] == OURS:
            ours = row
        cells = [row["weights"], label["codec"], f"{1 / row['stored']:.3f}x" if row["stored"] else "-"]
        for task in ("encode_seconds", "decode_seconds"):
            cells += [rate(row["size"], row[task]), times(row[task], ours[task])]
        lines.append((*cells,))
    absent = f" Not installed: {', '.join(part['absent'])}." if part["absent"] else ""
    weights = ", ".join(dict.fromkeys(f"{row['weights']} ({row['size'] / MiB:.0f} MiB)" for row in rows))
    return Table(title, f"{weights}. {_NOTES.format(repeats=repeats)}{absent}", header, tuple(lines))


def _every_path(part: Json, name: str) -> Table:
    rows = [row for row in part["figures"] if row["weights"] == name]
    hot = part["hot_size"]
    columns = dict.fromkeys((row["size"], row["label"]["threads"]) for row in rows)
    titles = ["hot" if size == hot else _threads(threads) for size, threads in columns]
    header = ("codec", "stored", *(f"{task}, {title}" for task in ("encode", "decode") for title in titles))
    lines = []
    for codec, path, block_log2 in dict.fromkeys(_label(row) for row in rows):
        of_label = {
            (row["size"], row["label"]["threads"]): row for row in rows if _label(row) == (codec, path, block_log2)
        }
        found = [of_label.get(column) for column in columns]
        stored = next(row["stored"] for row in found if row)
        tasks = ("encode_seconds", "decode_seconds")
        cells = [rate(row["size"], row[task]) if row else "-" for task in tasks for row in found]
        lines.append((f"{codec}, {path}, 2^{block_log2}" if path else codec, f"{stored:.4f}", *cells))
    notes = (
        f"GB/s, median (best); stored: encoded bytes, as a part of the original ones; hot: {hot // MiB} MiB in cache."
    )
    return Table(f"{name}: every instruction set and block size", notes, header, tuple(lines))


def _label(row: Json) -> tuple[str, str, int]:
    return row["label"]["codec"], row["label"]["path"], row["label"]["block_log2"]


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _reference(row: Json, part: Json) -> str:
    if not row["name"].startswith("probe"):
        return str(row["name"])
    sample = part["sample_size"]
    return f"{row['name']}: {median(row['seconds']) * sample / row['size'] * 1e6:.0f} µs for {sample // KiB} KiB"
