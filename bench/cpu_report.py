"""Renders the results of the CPU benchmark, as they stand in its JSON file, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from dumont_gpu.bench.tables import rate, share, speedup, table

Json = dict[str, Any]
MB, MIB = 1e6, 1 << 20
FRESH = "dumont-gpu, fresh buffers"

CODEC_NOTES = """\
GB/s of original bytes: by the median of {repeats} runs, in brackets by the best. {size:.0f} MiB of normal weights
(sigma = 0.02), which are warm; each repeat runs everyone once, in a rotating order. Threads: one call for the whole, or
chunks shared by {cores} threads (`zipnn`: its own threads). "Hot" is {hot:.0f} MiB that stays in cache, {hot_repeats}
runs. `dumont-gpu` is given its buffers, as its pipeline has a pool of them; `zipnn`, `lz4` and `zstd` allocate their
output. Above 32 MiB, that means fresh pages from the kernel in each run, whose price is in the rows that are not hot;
"fresh buffers" pays it too, so it tells how much of the lead is the reuse of memory.
"""
JOB_NOTES = """\
Seconds of whole commands, process start to end. {repeats} repeats (peers marked * stop when their runs add up to
{minor_seconds:.0f} s), each of everyone once, in a rotating order. Before each run its source is read (so the page
cache is warm), the file system ({file_system}) synced, and {settle_seconds:.0f} s waited. It writes to a new place;
nothing is deleted until the end. `dumont-gpu` packs and restores are on disk when they end (but for `--no-sync`), as
are `restic`'s and `borg`'s packs; `tar`, `cp` and the other restores leave that to the kernel. `restic` before 0.15
fills holes with zeros. Peak memory is that of the largest process, and never below the {own_peak:.0f} MiB of the
benchmark that starts it.
"""


PROFILE_NOTES = """\
Medians of {repeats} runs of whole commands, page cache warm, restores with `--no-sync`; {content:.0f} MB in chunks,
stored in {stored:.0f} MB. "Busy" is the time of a stage's threads together, waiting for memory and disk included, but
not for one another. What no stage runs in is the rest of the job: the scan, the table of contents, directories, links
and times.
"""
STORED_STAGES = ("write", "fetch")  # the others move original bytes


def render(results: Json) -> str:
    """Returns the whole report; a part that was not run is left out."""
    parts = []
    if codecs := results.get("codecs"):
        parts += ["## Codecs, in memory\n", _machine(codecs["machine"]), *_codecs(codecs)]
    if jobs := results.get("jobs"):
        parts += ["## Jobs, by command line\n", _machine(jobs["machine"]), *_jobs(jobs)]
    if profile := results.get("profile"):
        parts += ["## Profile\n", _machine(profile["machine"]), *_profile(profile)]
    return "\n".join(["# dumont-gpu on the CPU\n", "Made by `python bench/cpu.py`.\n", *parts])


def _machine(machine: Json) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in machine.items()) + "\n"


# --- codecs -----------------------------------------------------------------------------------------------------------


def _codecs(part: Json) -> Iterator[str]:
    numbers = {"size": part["size"] / MIB, "hot": part["hot_size"] / MIB}
    yield CODEC_NOTES.format(**{**part, **numbers})
    if part["absent"]:
        yield f"Not installed, so left out: {', '.join(part['absent'])}.\n"
    threads = sorted({row["label"]["threads"] for row in part["figures"]})
    for count in threads:
        yield f"### Against zipnn, {part['default_path']} kernels, {_threads(count)}\n"
        yield _against_zipnn(part, count)
    for name in dict.fromkeys(row["weights"] for row in part["figures"]):
        yield f"### {name}, everyone\n"
        yield _everyone(part, name)
    yield "### This machine, for comparison, one thread\n"
    yield table(
        ["", "GB/s"], ((_reference(row, part), rate(row["size"], row["seconds"])) for row in part["references"])
    )


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _reference(row: Json, part: Json) -> str:
    if not row["name"].startswith("probe"):
        return str(row["name"])
    sample = part["sample_size"]
    return f"{row['name']}: {median(row['seconds']) * sample / row['size'] * 1e6:.0f} µs for {sample >> 10} KiB"


def _find(rows: Iterable[Json], size: int, **label: object) -> Json | None:
    """The row of `size` bytes whose label has these values."""
    return next((row for row in rows if row["size"] == size and label.items() <= row["label"].items()), None)


def _against_zipnn(part: Json, threads: int) -> str:
    header = ["weights, block", "stored", "zipnn", "encode", "zipnn", "faster", "fresh buffers",
              "decode", "zipnn", "faster", "fresh buffers"]  # fmt: skip
    lines = []
    for name in dict.fromkeys(row["weights"] for row in part["figures"]):
        rows = [row for row in part["figures"] if row["weights"] == name]
        for size, suffix in ((part["size"], ""), (part["hot_size"], ", hot")):
            for block_log2 in part["block_log2s"]:
                label = {"path": part["default_path"], "block_log2": block_log2, "threads": threads}
                ours = _find(rows, size, codec="dumont-gpu", **label)
                fresh = _find(rows, size, codec=FRESH, **label)
                theirs = _find(rows, size, codec="zipnn", threads=threads)
                if ours:
                    title = f"{name}, 2^{block_log2}{suffix}"
                    lines.append([title, f"{ours['stored']:.4f}", *_duel(ours, theirs, fresh)])
    return table(header, lines)


def _duel(ours: Json, theirs: Json | None, fresh: Json | None) -> Iterator[str]:
    yield f"{theirs['stored']:.4f}" if theirs else "-"
    for task in ("encode_seconds", "decode_seconds"):
        other = theirs[task] if theirs else []
        yield rate(ours["size"], ours[task])
        yield rate(ours["size"], other)
        yield speedup(ours[task], other)
        yield speedup(fresh[task], other) if fresh else ""


def _everyone(part: Json, name: str) -> str:
    threads = sorted({row["label"]["threads"] for row in part["figures"]})
    rows = [row for row in part["figures"] if row["weights"] == name]
    columns = [(part["size"], count) for count in threads] + [(part["hot_size"], 1)]
    titles = [_threads(count) for count in threads] + ["hot"]
    header = ["codec", "stored", *(f"{task}, {title}" for task in ("encode", "decode") for title in titles)]
    lines = []
    for label in dict.fromkeys((r["label"]["codec"], r["label"]["path"], r["label"]["block_log2"]) for r in rows):
        codec, path, block_log2 = label
        found = [_find(rows, size, codec=codec, path=path, block_log2=block_log2, threads=n) for size, n in columns]
        title = f"{codec}, {path}, 2^{block_log2}" if path else codec
        stored = next(row["stored"] for row in found if row)
        cells = [rate(r["size"], r[task]) if r else "-" for task in ("encode_seconds", "decode_seconds") for r in found]
        lines.append([title, f"{stored:.4f}", *cells])
    return table(header, lines)


# --- jobs -------------------------------------------------------------------------------------------------------------


def _jobs(part: Json) -> Iterator[str]:
    yield JOB_NOTES.format(**part, own_peak=part["own_peak_rss"] / MIB)
    for case, tree in part["trees"].items():
        size, disk = tree["size"] / MB, tree["disk_size"] / MB
        yield f"### {case.capitalize()}: {tree['files']:,} files, {size:.0f} MB, {disk:.0f} MB on disk\n"
        yield f"Made by: {tree['origin']}.\n"
        for job in ("pack", "restore"):
            rows = [row for row in part["figures"] if (row["case"], row["job"]) == (case, job)]
            yield _job_table(job, [row for row in rows if row["seconds"]])
            yield "".join(f"- {row['contender']}: {row['problem']}\n" for row in rows if row["problem"])
    yield "### Commands\n"
    commands = {(row["job"], row["contender"]): row["commands"] for row in part["figures"]}
    yield "".join(f"- {job}, {name}: `{' && '.join(lines)}`\n" for (job, name), lines in commands.items())


def _job_table(job: str, rows: Sequence[Json]) -> str:
    ours = [row for row in rows if row["contender"].startswith("dumont-gpu")]
    header = [job, "runs", "seconds", "best", "CPU seconds", "peak MiB", *(["MB"] if job == "pack" else [])]
    header += [f"{row['contender']} ÷ it" for row in ours]
    lines = []
    for row in rows:
        seconds = row["seconds"]
        line = [row["contender"] + ("*" if row["minor"] else ""), str(len(seconds))]
        line += [f"{median(seconds):.2f}", f"{min(seconds):.2f}", f"{median(row['cpu_seconds']):.2f}"]
        line += [f"{row['peak_rss'] / MIB:.0f}"]
        line += [f"{row['archive_size'] / MB:.1f}"] if job == "pack" else []
        line += [share(our["seconds"], seconds) if our is not row else "" for our in ours]
        lines.append(line)
    identical = all(row["identical"] for row in ours) if job == "restore" else False
    return table(header, lines) + ("\nWhat `dumont-gpu` restored was compared: identical.\n" if identical else "")


# --- profile ----------------------------------------------------------------------------------------------------------


def _profile(part: Json) -> Iterator[str]:
    codecs = part["jobs"]["pack"][0]["codec_bytes"].values()
    content, stored = sum(original for original, _ in codecs), sum(size for _, size in codecs)
    yield PROFILE_NOTES.format(**part, content=content / MB, stored=stored / MB)
    for name, runs in part["jobs"].items():
        wall, user, system = (median(run[key] for run in runs) for key in ("wall", "user", "system"))
        yield f"### {name}: {wall:.2f} s, processor {user:.2f} s and {system:.2f} s in the kernel\n"
        yield table(("stage", "busy, s", "GB/s while busy"), _stages(runs, content, stored))
    yield "### What one thread can do here\n"
    rows = ((name, f"{median(rates) / 1e9:.2f} ({max(rates) / 1e9:.2f})") for name, rates in part["limits"].items())
    yield table(("", "GB/s, median (best)"), rows)


def _stages(runs: Sequence[Json], content: int, stored: int) -> Iterator[Sequence[str]]:
    for stage in runs[0]["stage_seconds"]:
        busy = median(run["stage_seconds"][stage] for run in runs)
        size = stored if stage in STORED_STAGES else content
        yield stage, f"{busy:.2f}", f"{size / busy / 1e9:.2f}" if busy else "-"
    inside = median(run["seconds"] for run in runs)
    yield "the job from its first to its last moment", f"{inside:.2f}", "-"
    yield "Python's start and end", f"{median(run['wall'] for run in runs) - inside:.2f}", "-"
