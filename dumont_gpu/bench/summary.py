"""A benchmark's record as tables of text, whoever shows them: terminal, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from dumont_gpu.bench.seed_table import CHUNK_LZ4_RATIO, CHUNK_ZIPNN_RATIO, CHUNKS, ROWS
from dumont_gpu.sizes import MiB

Json = dict[str, Any]
_MB: Final = 1e6
_SEED: Final = {row.key: row for row in ROWS}
_BUSY: Final = 0.85  # of the time; below, rates say more about other processes than about this one
_PLACES: Final = ("one_core", "all_cores", "device")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column is text, the others are numbers."""

    title: str
    notes: str  # how it was measured
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(record: Json) -> list[Table]:
    """Returns a table for each part that was run."""
    found: list[Table] = []
    if "rows" in record:
        found += [_row_table(record, corpus) for corpus in record["corpora"]]
    if record.get("float_peers"):
        found.append(_float_table(record))
    if record.get("chunks"):
        found += [_chunk_table(record), _projection_table(record)]
    if record.get("jobs", {}).get("figures"):
        found += [_job_table(record, job) for job in ("pack", "restore")]
    if record.get("links"):
        found.append(_link_table(record))
    return found


def headline(record: Json) -> str:
    """Returns one line on what was measured where."""
    device = record["device"]
    gpu = f"{device['name']}: {device['detail']}" if device["name"] else "no GPU"
    return f"dumont-gpu {record['version']} on {record['machine']['CPU']}, {gpu}, {record['machine']['date']}"


# --- figures ----------------------------------------------------------------------------------------------------------


def ratio(row: Json) -> float:
    return float(row["size"] / row["stored_size"])


def rate(row: Json, place: str, task: str) -> float | None:
    """MB/s of original bytes, by the median; None where nothing was measured, or the place had no part in it."""
    rates = row[place]
    if not rates or not rates[f"{task}_seconds"] or not rates[f"{task}_share"]:
        return None
    size = rates["coded_size"] * rates["workers"] * rates[f"{task}_passes"]
    return float(size / median(rates[f"{task}_seconds"]) / _MB)


def times(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times our seconds they took, by the median of turns: what disturbs a turn disturbs both."""
    return median(their / our for their, our in zip(theirs, ours, strict=False))


def compressors(row: Json) -> str:
    """The codecs that hold at least a tenth of the row, most first."""
    shares = sorted(((original, name) for name, (original, _) in row["codecs"].items()), reverse=True)
    return "+".join(name for original, name in shares if original >= row["size"] / 10)


def seed_row(key: str) -> Any:
    return _SEED[key]


def job_rows(record: Json, job: str) -> list[Json]:
    """Those who did the job, the quickest first."""
    rows = [row for row in record["jobs"]["figures"] if row["job"] == job and row["seconds"]]
    return sorted(rows, key=job_seconds)


def job_seconds(row: Json) -> float:
    """The quickest run: whatever disturbs a command only adds to its time, and half a second is easily disturbed."""
    return float(min(row["seconds"]))


# --- tables -----------------------------------------------------------------------------------------------------------


def _places(record: Json) -> list[tuple[str, str]]:
    """The places that were measured, and their column titles."""
    rows = record["rows"]
    workers = max((row["all_cores"]["workers"] for row in rows if row["all_cores"]), default=0)
    titles = {"one_core": "1 core", "all_cores": f"{workers} cores", "device": "GPU"}
    return [(place, titles[place]) for place in _PLACES if any(row[place] for row in rows)]


def _row_table(record: Json, corpus: str) -> Table:
    places = _places(record)
    header = ["type", "codec", "ratio", "RTX 3060"]
    for task in ("compress", "decompress"):
        header += [f"{task}, {title}" for _, title in places] + ["RTX 3060"]
    rows, origins = [], []
    for row in (row for row in record["rows"] if row["corpus"] == corpus):
        seed = seed_row(row["key"])
        cells = [seed.title, compressors(row), f"{_short(ratio(row))}x", f"{_short(seed.ratio)}x"]
        for task, theirs in (("encode", seed.encode), ("decode", seed.decode)):
            cells += [_number(rate(row, place, task)) for place, _ in places] + [_number(theirs)]
        rows.append((*cells, "ok" if row["intact"] else "DAMAGED"))
        label = "" if not row["generated"] or corpus == "seed" else "NOT REAL, "
        origins.append(f"{seed.title}: {label}{row['origin']} ({_files(row)}, {row['size'] / _MB:.1f} MB)")
    notes = (
        f"{record['corpora'][corpus]}. MB/s of original bytes: the codecs alone, in memory and warm, median of "
        f"{_samples(record['rows'])} samples of at least 0.05 s; stored bytes need no codec and are not in them. ok: "
        f"every chunk decoded to the same SHA-256. RTX 3060: the figures of {record['seed_source']}. "
        f"{'. '.join(origins)}."
    )
    return Table(f"By type, corpus {corpus}, MB/s", notes, (*header, "intact"), tuple(rows))


def _float_table(record: Json) -> Table:
    header = ("corpus", "who", "ratio", "compress", "ours is faster", "decompress", "ours is faster")
    lines = []
    for row in record["float_peers"]:
        ours = next(r for r in record["float_peers"] if (r["corpus"], r["who"]) == (row["corpus"], "dumont-gpu"))
        cells = [row["corpus"], row["who"], f"{row['size'] / row['stored_size']:.3f}x"]
        for task in ("encode_seconds", "decode_seconds"):
            seconds = median(row[task])
            cells += [_number(row["size"] / seconds / _MB), f"{times(row[task], ours[task]):.1f}x"]
        lines.append(tuple(cells))
    turns = len(record["float_peers"][0]["encode_seconds"])
    notes = (
        f"The first chunk of the bf16 model, in memory, one core, median of {turns} turns, everyone once in each. Ours "
        "is given its buffers, as the product's pipeline does; the others allocate their output, which is part of "
        "their time. Packages that are not installed are left out."
    )
    return Table("bf16 weights, other packages, MB/s", notes, header, tuple(lines))


def _samples(rows: Sequence[Json]) -> int:
    return max((len(row["one_core"]["encode_seconds"]) for row in rows if row["one_core"]), default=0)


def _chunk_table(record: Json) -> Table:
    header = ("model", "chunks", "of", "ZipNN least", "median", "most", "LZ4 median", "whole, ZipNN")
    rows = []
    for figures in record["chunks"]:
        zipnn = [size / stored for size, stored in zip(figures["sizes"], figures["zipnn"], strict=True)]
        lz4 = [size / stored for size, stored in zip(figures["sizes"], figures["lz4"], strict=True)]
        cells = [f"{figures['corpus']}: {figures['origin']}", str(len(zipnn)), f"{figures['chunk_size'] // MiB} MiB"]
        cells += [f"{value:.3f}x" for value in (min(zipnn), median(zipnn), max(zipnn))]
        rows.append((*cells, f"{median(lz4):.3f}x", f"{figures['ratio']:.3f}x"))
    seed = f"{CHUNK_ZIPNN_RATIO:.2f}x"
    rows.append(("RTX 3060: TinyLlama-1.1B", str(CHUNKS), "64 MiB", seed, seed, seed, f"{CHUNK_LZ4_RATIO:.2f}x", seed))
    notes = "Each chunk is encoded, and would decode, alone. A model of one chunk of 64 MiB is cut into smaller ones."
    return Table("bf16 model, chunk by chunk", notes, header, tuple(rows))


def _projection_table(record: Json) -> Table:
    found = record["chunks"]
    header = ["model", "bf16 GB"]
    for figures in found:
        weights = ", generated weights" if figures["generated"] else ""
        header.append(f"ratio of {figures['corpus']}{weights}, {figures['ratio']:.3f}x")
    header.append("RTX 3060")
    rows = []
    for projection in record["projections"]:
        cells = [projection["model"], f"{projection['gigabytes']:.0f}"]
        cells += [f"{projection['by_corpus'][figures['corpus']]:.1f}" for figures in found]
        rows.append((*cells, f"{projection['seed_gigabytes']:.1f}"))
    return Table("Projection, not a measurement: larger models, GB", "The size divided by the ratio above.",
                 tuple(header), tuple(rows))  # fmt: skip


def _job_table(record: Json, job: str) -> Table:
    jobs = record["jobs"]
    rows = job_rows(record, job)
    ours = next((row for row in rows if row["contender"] == "dumont-gpu"), None)
    header = ["who", "runs", "seconds", "median", "its time / ours"] + (
        ["MB", "its size / ours"] if job == "pack" else []
    )
    lines = []
    for row in rows:
        cells = [row["contender"], str(len(row["seconds"])), f"{job_seconds(row):.2f}", f"{median(row['seconds']):.2f}"]
        cells.append(f"{job_seconds(row) / job_seconds(ours):.2f}" if ours else "-")
        if job == "pack":
            cells.append(f"{row['archive_size'] / _MB:.1f}")
            cells.append(f"{row['archive_size'] / ours['archive_size']:.2f}" if ours else "-")
        lines.append(tuple(cells))
    tree = jobs["tree"]
    absent = sorted({f"{row['contender']}: {row['problem']}" for row in jobs["figures"] if row["problem"]})
    notes = (
        f"Whole commands on the corpus {jobs['corpus']}: {tree['files']:,} files, {tree['size'] / _MB:.0f} MB, page "
        f"cache warm, on {jobs['file_system']}; the quickest run and the median, times compared by the quickest; "
        f"everyone once in each turn, in a rotating order; slow peers stop after {jobs['minor_seconds']:.0f} s, "
        f"all of them after {jobs['enough_seconds']:.0f} s. "
        f"dumont-gpu ends when all is on disk (but --no-sync)"
        + ("; what it restored was compared with the original" if job == "restore" else "")
        + "." + "".join(f" {text}." for text in absent)
    )  # fmt: skip
    return Table(f"{job.capitalize()}, end to end", notes, tuple(header), tuple(lines))


def _link_table(record: Json) -> Table:
    header = ("link", "runs", "MB sent", "seconds", "link alone", "of the link", "fetch, then restore", "saved")
    rows = []
    for link in record["links"]:
        two_steps = link["link_seconds"] + link["local_seconds"]
        cells = [f"{link['bits_per_second'] / 1e6:,.0f} Mbit/s", str(link["runs"]), f"{link['stored_size'] / _MB:.1f}"]
        cells += [
            f"{link['seconds']:.2f}",
            f"{link['link_seconds']:.2f}",
            _share(link["link_seconds"] / link["seconds"]),
        ]
        rows.append((*cells, f"{two_steps:.2f}", _share(1 - link["seconds"] / two_steps)))
    first = record["links"][0]
    notes = (
        f"{first['original_size'] / _MB:.0f} MB in chunks of {first['chunk_size'] // MiB} MiB (a large snapshot has as "
        "many of 64 MiB), medians, read as fast as a link of that rate would bring them (simulated, in this process, "
        f"no protocol); nothing is synced. Without a link: {first['local_seconds']:.2f} s."
    )
    return Table("Restore over a link", notes, header, tuple(rows))


def contention(record: Json) -> Iterator[str]:
    """Says if other processes had a part of the processor while rows were measured."""
    for place, title in (("one_core", "one core"), ("all_cores", "all cores")):
        shares = [row[place]["processor"] for row in record.get("rows", ()) if row[place]]
        if shares and median(shares) < _BUSY:
            yield (
                f"other processes were at work: what was measured on {title} had {_share(median(shares))} of the time "
                "there, so those rates are too low"
            )


def problems(record: Json) -> Iterator[str]:
    """What must not be overlooked."""
    if not record["device"]["name"]:
        yield f"no GPU columns: {record['device']['detail']}"
    yield from contention(record)
    for failure in record["failures"]:
        yield f"FAILED: {failure}"


def _files(row: Json) -> str:
    return "1 file" if row["files"] == 1 else f"{row['files']:,} files"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
