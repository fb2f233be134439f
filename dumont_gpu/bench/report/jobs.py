"""Tables of whole jobs: by command line, over links, over http, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from dumont_gpu.bench.report.tables import MB, Json, Table, number, percent
from dumont_gpu.sizes import MiB

_ENCODED_STAGE: Final = {"pack": "write", "restore": "fetch"}  # moves encoded bytes; the others move original bytes


def job_rows(record: Json, job: str, case: str | None = None) -> list[Json]:
    """The contenders that did the job, the quickest first; of the first case, or of `case`."""
    case = case or next(iter(record["jobs"]["trees"]))
    rows = (row for row in record["jobs"]["figures"] if (row["case"], row["job"]) == (case, job) and row["seconds"])
    return sorted(rows, key=job_seconds)


def job_seconds(row: Json) -> float:
    """The quickest run: a disturbance only adds to the time of a command, and half a second is easily disturbed."""
    return float(min(row["seconds"]))


def job_tables(record: Json) -> Iterator[Table]:
    for case in record["jobs"]["trees"]:
        for job in ("pack", "restore"):
            yield _job_table(record, job, case)


def _job_table(record: Json, job: str, case: str) -> Table:
    rows = job_rows(record, job, case)
    ours = next((row for row in rows if row["contender"] == "dumont-gpu"), None)
    header = ["who", "runs", "seconds", "median", "its time / ours", "CPU seconds", "peak MiB"]
    header += ["MB", "its size / ours"] if job == "pack" else []
    lines = []
    for row in rows:
        name = row["contender"] + ("*" if row["minor"] else "")
        cells = [name, str(len(row["seconds"])), f"{job_seconds(row):.2f}", f"{median(row['seconds']):.2f}"]
        cells.append(f"{job_seconds(row) / job_seconds(ours):.2f}" if ours else "-")
        cells += [f"{median(row['cpu_seconds']):.2f}", f"{row['peak_rss'] / MiB:.0f}"]
        if job == "pack":
            cells.append(f"{row['archive_size'] / MB:.1f}")
            cells.append(f"{row['archive_size'] / ours['archive_size']:.2f}" if ours else "-")
        lines.append(tuple(cells))
    title = "end to end" if len(record["jobs"]["trees"]) == 1 else case
    return Table(f"{job.capitalize()}, {title}", _job_notes(record["jobs"], job, case), tuple(header), tuple(lines))


def _job_notes(part: Json, job: str, case: str) -> str:
    tree = part["trees"][case]
    rows = [row for row in part["figures"] if (row["case"], row["job"]) == (case, job)]
    bounds = [f"peers marked * stop when their runs add up to {part['minor_seconds']:.0f} s"]
    if part["enough_seconds"]:
        bounds.append(f"everyone after {part['enough_seconds']:.0f} s")
    notes = [
        f"Whole commands, process start to end, on {tree['files']:,} files, {tree['size'] / MB:.0f} MB, "
        f"{tree['disk_size'] / MB:.0f} MB on disk ({tree['origin']}); page cache warm, on {part['file_system']}, "
        f"{part['settle_seconds']:g} s of rest after a sync before each run",
        "seconds are those of the quickest run, and times are compared by them; everyone once in each turn, in a "
        f"rotating order; {'; '.join(bounds)}",
        "dumont-gpu ends when all is on disk (but for --no-sync), as packs of restic and borg do; tar, cp and other "
        "restores leave that to the kernel; restic before 0.15 fills holes with zeros",
        f"peak memory is that of the largest process, and never below the {(part['own_peak_rss'] or 0) / MiB:.0f} MiB "
        "of the benchmark that starts it",
    ]
    if job == "restore" and any(row["identical"] for row in rows):
        notes.append("trees that dumont-gpu restored were compared with the original: identical")
    notes += sorted({f"{row['contender']}: {row['problem']}" for row in rows if row["problem"]})
    commands = (f"{row['contender']}: `{' && '.join(row['commands'])}`" for row in rows if row["seconds"])
    return ". ".join(notes) + ". " + "; ".join(commands) + "."


def link_table(record: Json) -> Table:
    header = ("link", "runs", "MB sent", "seconds", "link alone", "of the link", "fetch, then restore", "saved")
    rows = []
    for link in record["links"]:
        two_steps = link["link_seconds"] + link["local_seconds"]
        cells = [f"{link['bits_per_second'] / 1e6:,.0f} Mbit/s", str(link["runs"]), f"{link['stored_size'] / MB:.1f}"]
        cells += [f"{link['seconds']:.2f}", f"{link['link_seconds']:.2f}"]
        cells.append(percent(link["link_seconds"] / link["seconds"]))
        rows.append((*cells, f"{two_steps:.2f}", percent(1 - link["seconds"] / two_steps)))
    first = record["links"][0]
    notes = (
        f"{first['original_size'] / MB:.0f} MB in chunks of {first['chunk_size'] // MiB} MiB (a large snapshot has as "
        "many of 64 MiB), medians, read as fast as a link of that rate would bring them (simulated, in this process, "
        f"no protocol); nothing is synced. Without a link: {first['local_seconds']:.2f} s."
    )
    return Table("Restore over a link", notes, header, tuple(rows))


def network_table(record: Json) -> Table:
    part = record["network"]
    link = f"a loopback of {part['rate']}" if part["rate"] else "a loopback without a limit"
    notes = f"A snapshot of {part['size'] / MB:.0f} MB from nginx over {link}; `restore --no-sync`. Peak memory of a "
    notes += f"child: {part['peak_rss'] / MiB:.0f} MiB."
    if kills := part.get("kills"):
        header = ("kills", "landed", "MB sent beyond the snapshot, median", "at most", "trees")
        sent = (number(median(kills["excess"]) / MB), number(max(kills["excess"]) / MB))
        row = (str(kills["count"]), str(kills["landed"]), *sent, "all the same")
        return Table("Restores killed at random moments, and given again", notes, header, (row,))
    rows = tuple(
        (name, f"{median(seconds):.2f}", ", ".join(f"{each:.2f}" for each in seconds))
        for name, seconds in part["runs"].items()
    )
    return Table("Restore over http", notes, ("who", "seconds, median", "of"), rows)


def profile_tables(record: Json) -> Iterator[Table]:
    part = record["profile"]
    codecs = part["jobs"]["pack"][0]["codec_bytes"].values()
    content, encoded = sum(original for original, _ in codecs), sum(size for _, size in codecs)
    notes = (
        f"Medians of {part['repeats']} runs of whole commands, page cache warm, restores with `--no-sync`; "
        f'{content / MB:.0f} MB in chunks, encoded in {encoded / MB:.0f} MB. "Busy" is the time of a stage\'s threads '
        "together, waiting for memory and disk included, but not for one another. No stage runs in the rest of the "
        "job: the scan, the table of contents, directories, links and times."
    )
    for name, runs in part["jobs"].items():
        wall, user, system = (median(run[key] for run in runs) for key in ("wall", "user", "system"))
        title = f"Profile, {name}: {wall:.2f} s, processor {user:.2f} s and {system:.2f} s in the kernel"
        yield Table(title, notes, ("stage", "busy, s", "GB/s while busy"), tuple(_stages(name, runs, content, encoded)))
    limits = part["limits"].items()
    rows = tuple((name, f"{median(rates) / 1e9:.2f} ({max(rates) / 1e9:.2f})") for name, rates in limits)
    yield Table("Profile: limits of one thread here", "GB/s, median (best).", ("work", "GB/s"), rows)


def _stages(job: str, runs: Sequence[Json], content: int, encoded: int) -> Iterator[tuple[str, str, str]]:
    for stage in runs[0]["stage_seconds"]:
        busy = median(run["stage_seconds"][stage] for run in runs)
        size = encoded if stage == _ENCODED_STAGE[job] else content
        yield stage, f"{busy:.2f}", f"{size / busy / 1e9:.2f}" if busy else "-"
    inside = median(run["seconds"] for run in runs)
    yield "the job from its first to its last moment", f"{inside:.2f}", "-"
    yield "Python's start and end", f"{median(run['wall'] for run in runs) - inside:.2f}", "-"
