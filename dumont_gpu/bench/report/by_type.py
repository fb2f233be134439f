"""Tables by type of file: codecs, chunks of a model, projections, each beside the original's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from dumont_gpu.bench.corpora.original import CHUNK_LZ4_RATIO, CHUNK_ZIPNN_RATIO, CHUNKS, COLUMN, ROWS, SOURCE
from dumont_gpu.bench.report.tables import MB, Json, Table, number, percent, short
from dumont_gpu.sizes import MiB

_ORIGINAL: Final = {row.key: row for row in ROWS}
_BUSY: Final = 0.85  # of the time; below, rates say more about other processes than about this one
_PLACES: Final = ("one_core", "all_cores", "device")


def original_row(key: str) -> Any:
    return _ORIGINAL[key]


def ratio(row: Json) -> float:
    return float(row["size"] / row["stored_size"])


def is_of(row: Json, method: str) -> bool:
    """Whether `method` chooses the codecs of a row; in older records there was a single method."""
    return method in row.get("methods", (method,))


def rate(row: Json, place: str, task: str) -> float | None:
    """MB/s of original bytes, by the median; None where nothing was measured, or the place had no part in it."""
    rates = row[place]
    if not rates or not rates[f"{task}_seconds"] or not rates[f"{task}_share"]:
        return None
    size = rates["coded_size"] * rates["workers"] * rates[f"{task}_passes"]
    return float(size / median(rates[f"{task}_seconds"]) / MB)


def row_table(record: Json, corpus: str) -> Table:
    places = _places(record)
    header = ["type", "method", "codec", "ratio", COLUMN]
    for task in ("compress", "decompress"):
        header += [f"{task}, {title}" for _, title in places] + [COLUMN]
    rows, origins = [], []
    for row in (row for row in record["rows"] if row["corpus"] == corpus):
        original = original_row(row["key"])
        cells = [original.title, _methods(row), _codecs(row), f"{short(ratio(row))}x", f"{short(original.ratio)}x"]
        for task, theirs in (("encode", original.encode), ("decode", original.decode)):
            cells += [number(rate(row, place, task)) for place, _ in places] + [number(theirs)]
        rows.append((*cells, "ok" if row["intact"] else "DAMAGED"))
        label = "" if not row["generated"] or corpus == "seed" else "NOT REAL, "
        origin = f"{original.title}: {label}{row['origin']} ({_files(row)}, {row['size'] / MB:.1f} MB)"
        origins += [origin] if origin not in origins else []
    notes = (
        f"{record['corpora'][corpus]}. MB/s of original bytes: the codecs alone, in memory and warm, median of "
        f"{_samples(record['rows'])} samples of at least 0.05 s; raw chunks need no codec and are not counted. ok: "
        f"every chunk decoded to the same SHA-256. {COLUMN}: {SOURCE}. {'. '.join(origins)}."
    )
    return Table(f"By type, corpus {corpus}, MB/s", notes, (*header, "intact"), tuple(rows))


def chunk_table(record: Json) -> Table:
    header = ("model", "chunks", "of", "ZipNN least", "median", "most", "LZ4 median", "whole, ZipNN")
    rows = []
    for figures in record["chunks"]:
        zipnn = [size / encoded for size, encoded in zip(figures["sizes"], figures["zipnn"], strict=True)]
        lz4 = [size / encoded for size, encoded in zip(figures["sizes"], figures["lz4"], strict=True)]
        cells = [f"{figures['corpus']}: {figures['origin']}", str(len(zipnn)), f"{figures['chunk_size'] // MiB} MiB"]
        cells += [f"{value:.3f}x" for value in (min(zipnn), median(zipnn), max(zipnn))]
        rows.append((*cells, f"{median(lz4):.3f}x", f"{figures['ratio']:.3f}x"))
    theirs = f"{CHUNK_ZIPNN_RATIO:.2f}x"
    model = f"{COLUMN}: TinyLlama-1.1B"
    rows.append((model, str(CHUNKS), "64 MiB", theirs, theirs, theirs, f"{CHUNK_LZ4_RATIO:.2f}x", theirs))
    notes = "Each chunk is encoded, and would decode, alone. A model of one chunk of 64 MiB is cut into smaller chunks."
    return Table("bf16 model, chunk by chunk", notes, header, tuple(rows))


def projection_table(record: Json) -> Table:
    found = record["chunks"]
    header = ["model", "bf16 GB"]
    for figures in found:
        weights = ", generated weights" if figures["generated"] else ""
        header.append(f"ratio of {figures['corpus']}{weights}, {figures['ratio']:.3f}x")
    rows = []
    for projection in record["projections"]:
        cells = [projection["model"], f"{projection['gigabytes']:.0f}"]
        cells += [f"{projection['by_corpus'][figures['corpus']]:.1f}" for figures in found]
        rows.append((*cells, f"{projection['seed_gigabytes']:.1f}"))
    title = "Projection, not a measurement: larger models, GB"
    return Table(title, "The size divided by the ratio above.", (*header, COLUMN), tuple(rows))


def contention(record: Json) -> Iterator[str]:
    """Says if other processes had a part of the processor while rows were measured."""
    for place, title in (("one_core", "one core"), ("all_cores", "all cores")):
        shares = [row[place]["processor"] for row in record.get("rows", ()) if row[place]]
        if shares and median(shares) < _BUSY:
            yield (
                f"other processes were at work: measurements on {title} had {percent(median(shares))} of the time "
                "there, so those rates are too low"
            )


def _places(record: Json) -> list[tuple[str, str]]:
    """The places that were measured, and their column titles."""
    rows = record["rows"]
    workers = max((row["all_cores"]["workers"] for row in rows if row["all_cores"]), default=0)
    titles = {"one_core": "1 core", "all_cores": f"{workers} cores", "device": "GPU"}
    return [(place, titles[place]) for place in _PLACES if any(row[place] for row in rows)]


def _methods(row: Json) -> str:
    return " and ".join(row.get("methods", ())) or "hybrid_v2"


def _codecs(row: Json) -> str:
    """The codecs that hold at least a tenth of the row, most first."""
    shares = sorted(((original, name) for name, (original, _) in row["codecs"].items()), reverse=True)
    return "+".join(name for original, name in shares if original >= row["size"] / 10)


def _samples(rows: Sequence[Json]) -> int:
    return max((len(row["one_core"]["encode_seconds"]) for row in rows if row["one_core"]), default=0)


def _files(row: Json) -> str:
    return "1 file" if row["files"] == 1 else f"{row['files']:,} files"
