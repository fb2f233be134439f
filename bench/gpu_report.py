"""Puts the parts of a GPU check together, as JSON and Markdown.

    python bench/gpu_report.py describe WORK                  # the machine, once: WORK/machine.json
    python bench/gpu_report.py collect WORK --results DIR     # what the steps of bench/gpu_check.sh left in WORK so far
    python bench/gpu_report.py merge FILE... --results DIR    # results of several runs; of each step the last counts

It is made where nothing else works: without the package that is checked, of what is missing, cut off or empty.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

if importlib.util.find_spec("dumont_gpu") is None:  # the installation failed, and the report is about that
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from gpu_machine import slug
from gpu_results import SKIPPED, STOPPED, TIMED_OUT, Json, collect, describe, earlier, merge
from gpu_targets import Verdict, ans_rows, best, slowest_stage, speed, verdicts, whole_encodings
from whole_file import write_whole

from dumont_gpu.bench.tables import rate, table

KERNEL_NOTES = """\
GB/s of original bytes by the device's clock: by the median of {repeats} repeats, in brackets by the best. Everything is
in the device's memory; chunks of {chunk} MiB of normal weights (sigma = 0.02), a batch of them in one launch per kind
of block, other chunks in turn. Outputs are checked against the CPU's. The package writes blocks of 2^17 bytes.
"""
NVCOMP_NOTES = """\
On the same weights in the same run, compressed by nvCOMP itself; the best block size of each variant counts. "Typed"
means that it was told the element type when compressing, "type named" also when decompressing, "unchecked" that it
skips its own validation.
"""
LZ4_NOTES = """\
`dumont-gpu`: a call of nvCOMP for each chunk's compressed blocks, and a kernel that copies those that did not shrink,
all in one stream. nvCOMP: the compressed blocks of all chunks in one call, nothing else; of these bytes only.
"""
ENCODE_NOTES = """\
GB/s of original bytes by the device's clock: by the median of {repeats} repeats, in brackets by the best. Everything is
in the device's memory; chunks of {chunk} MiB of normal weights (sigma = 0.02), three launches each, one chunk after the
other in one stream or spread over several, as a job does. Streams are compared with the CPU encoder's, byte by byte.
"""
PART_NOTES = """\
Each kernel alone, over the same chunks: what it would reach if the others took no time. One that takes less than some
20 microseconds a chunk shows what a launch costs.
"""
COMPRESS_NOTES = """\
The same weights, compressed by nvCOMP in one call for all chunks; the best block size of each variant counts.
"""
LZ4_ENCODE_NOTES = """\
nvCOMP compresses blocks of 64 KiB, our kernels make a frame of them ("frame"); each is shown alone, too. "By the CPU"
is what the CPU's frame takes of the same text.
"""
PACK_NOTES = """\
Whole commands, from a source in the page cache to a durable snapshot; {repeats} repeats, each of everyone once. The one
before them compiles kernels, and its snapshot is decoded on the CPU. "Of the slowest stage" compares with the stages
alone, below; "memory" is what `--memory` allows for chunks in flight.
"""
JOB_NOTES = """\
Whole commands: seconds as the command reports them, and of the process with the interpreter's start. {repeats} repeats,
each of everyone once; the one before them compiles kernels and is compared with the source instead. Snapshots are in
the page cache. Restores end when the files are on disk.
"""


def publish(results: Json, folder: Path) -> list[Path]:
    """Writes `gpu-NAME.json`, and then `.md`: should that fail, the figures are safe."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = (folder / f"gpu-{slug(results['device'])}{suffix}" for suffix in (".json", ".md"))
    write_whole(data, json.dumps(results, indent=1) + "\n")
    write_whole(text, render(results))
    return [data, text]


def render(results: Json) -> str:
    """Returns the report; a step that did not run is left out."""
    steps = results["steps"]
    parts = [f"# dumont-gpu on {results['device']}\n", "Made by `bench/gpu_check.sh`.\n"]
    parts += _machines(steps)
    parts += ["## Targets\n", _targets(verdicts(results)), "## Steps\n", *_steps(steps)]
    sections = {"kernels": _kernels, "encode": _encode, "copies": _copies, "jobs": _jobs, "packs": _packs}
    for step, section in sections.items():
        if (found := steps.get(step)) and found["data"]:
            parts += section(found["data"])
    return "\n".join(parts)


def _machines(steps: Json) -> Iterator[str]:
    """The machine of each step, once where they are alike but for the moment."""
    described: list[tuple[Json, list[str]]] = []
    for name, step in steps.items():
        same = (names for machine, names in described if _lasting(machine) == _lasting(step["machine"]))
        if names := next(same, None):
            names.append(name)
        else:
            described.append((step["machine"], [name]))
    for machine, names in described:
        lines = [f"- {name}: {value}" for name, value in machine.items()]
        yield "\n".join([f"- steps: {', '.join(names)}"] * (len(described) > 1) + lines) + "\n"


def _lasting(machine: Json) -> Json:
    return {name: value for name, value in machine.items() if name not in ("date", "load before")}


def _targets(found: list[Verdict]) -> str:
    words = {True: "met", False: "NOT MET", None: "not measured"}
    rows = ([verdict.what, verdict.wanted, verdict.found, words[verdict.met]] for verdict in found)
    return table(["target", "wanted", "found", ""], rows)


def _steps(steps: Json) -> Iterator[str]:
    rows = []
    for name, step in steps.items():
        code = step["exit_code"]
        words = {0: "ok", SKIPPED: "skipped"} | dict.fromkeys(TIMED_OUT, f"past its limit of {step['limit']} s")
        words |= dict.fromkeys(STOPPED, "stopped by a signal")
        if step["seconds"] < step["limit"]:
            words[137] = "KILLED, by this machine"
        outcome = words.get(code, f"FAILED ({code})")
        rows.append([name, f"{step['seconds']}", outcome])
    yield table(["step", "seconds", ""], rows)
    for name, step in steps.items():
        problems = (step["data"] or {}).get("problems", [])
        if step["exit_code"] == SKIPPED:
            yield f"- {name} was skipped: {'; '.join(step['log'][-1:])}\n"
        elif step["exit_code"] or problems:
            yield f"What `{name}` said last:\n"
            yield "\n".join(["```", *(problems or step["log"]), "```"]) + "\n"
        elif name in ("smoke", "tests", "sanitizer", "self_test"):
            yield f"- {name}: " + "; ".join(step["log"][-1:]) + "\n"


# --- kernels ----------------------------------------------------------------------------------------------------------


def _kernels(data: Json) -> Iterator[str]:
    yield "## Decoding on the device\n"
    yield KERNEL_NOTES.format(repeats=data["repeats"], chunk=data["chunk"] >> 20)
    batches = sorted({row["batch"] for row in data["zipnn"]})
    lines = []
    for kind, log2 in dict.fromkeys((row["kind"], row["block_log2"]) for row in data["zipnn"]):
        rows = {row["batch"]: row for row in data["zipnn"] if (row["kind"], row["block_log2"]) == (kind, log2)}
        stored = next(iter(rows.values()))["stored"]
        lines.append([f"{kind}, 2^{log2}", f"{stored:.4f}", *(_rate(rows.get(batch)) for batch in batches)])
    yield table(["ZipNN: weights, block", "stored", *(f"{batch} chunks" for batch in batches)], lines)
    yield "### nvCOMP\n"
    yield NVCOMP_NOTES
    batches = sorted({row["batch"] for row in data["nvcomp"]})
    lines = []
    for kind, variant in dict.fromkeys((row["kind"], row["variant"]) for row in data["nvcomp"]):
        rows = [row for row in data["nvcomp"] if (row["kind"], row["variant"]) == (kind, variant)]
        top = best(rows)
        of_block = {row["batch"]: row for row in rows if row["block"] == top["block"]}
        title = f"{kind}, {variant}, {top['block'] >> 10} KiB"
        lines.append([title, f"{top['stored']:.4f}", *(_rate(of_block.get(batch)) for batch in batches)])
    yield table(["nvCOMP: weights, variant, block", "stored", *(f"{batch} chunks" for batch in batches)], lines)
    yield from _against_ans(data)
    yield "### LZ4 frames\n"
    yield LZ4_NOTES
    lines = []
    for row in data["lz4"]:
        alone = rate(row["alone_size"], row["alone_seconds"])
        lines.append([row["kind"], f"{row['stored']:.4f}", f"{row['batch']}", _rate(row), alone])
    yield table(["content", "stored", "chunks", "dumont-gpu", "nvCOMP"], lines)
    yield "### What the compiler gave the kernels\n"
    lines = [
        [f"{row['kernel']}, {row['threads']} threads", f"{row['registers']}", f"{row['local']}",
         f"{row['static_shared'] + row['dynamic_shared']}", f"{row['ctas_per_sm']}"]
        for row in data["occupancy"]
    ]  # fmt: skip
    yield table(["kernel", "registers", "local bytes", "shared bytes", "CTAs per SM"], lines)


def _against_ans(data: Json) -> Iterator[str]:
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in data["zipnn"]):
        ours, theirs = best(row for row in data["zipnn"] if row["kind"] == kind), best(ans_rows(data, kind))
        if ours and theirs:
            ratio = (ours["size"] / median(ours["seconds"])) / (theirs["size"] / median(theirs["seconds"]))
            lines.append([kind, _rate(ours), _rate(theirs), f"{ratio:.2f}x"])
    if lines:
        yield "The best of each, by the median, whatever block and batch; for nvCOMP of the variants that check:\n"
        yield table(["weights", "ZipNN, dumont-gpu", "ANS, nvCOMP", "faster"], lines)


def _rate(row: Json | None) -> str:
    if not row:
        return "-"
    return rate(row["size"], row["seconds"]) + ("" if row["verified"] else " WRONG OUTPUT")


def _encode(data: Json) -> Iterator[str]:
    yield "## Encoding on the device\n"
    yield ENCODE_NOTES.format(repeats=data["repeats"], chunk=data["chunk"] >> 20)
    shapes = sorted({(row["batch"], row["streams"]) for row in data["zipnn"]})
    kinds = list(dict.fromkeys(row["kind"] for row in data["zipnn"]))

    def found(kind: str, part: str) -> dict[tuple[int, int], Json]:
        rows = (row for row in data["zipnn"] if (row["kind"], row["part"]) == (kind, part))
        return {(row["batch"], row["streams"]): row for row in rows}

    heads = [f"{batch} chunks, {streams} streams" for batch, streams in shapes]
    lines = []
    for kind in kinds:
        rows = found(kind, "all")
        stored = next((f"{row['stored']:.4f}" for row in rows.values()), "-")
        lines.append([kind, stored, *(_rate(rows.get(shape)) for shape in shapes)])
    yield table(["ZipNN: weights", "stored", *heads], lines)
    yield PART_NOTES
    parted = [shape for shape in shapes if any(shape in found(kind, "plan") for kind in kinds)]
    lines = [
        [f"{kind}, zipnn_{part}", *(_rate(found(kind, part).get(shape)) for shape in parted)]
        for kind in kinds
        for part in dict.fromkeys(row["part"] for row in data["zipnn"] if row["part"] != "all")
        if found(kind, part)
    ]
    yield table(["kernel", *(f"{batch} chunks, {streams} streams" for batch, streams in parted)], lines)
    yield COMPRESS_NOTES
    lines = []
    for kind in kinds:
        ours = best(whole_encodings(data, kind))
        theirs = [row for row in data["nvcomp"] if row["kind"] == kind and row["verified"]]
        for variant in dict.fromkeys(row["variant"] for row in theirs):
            top = best(row for row in theirs if row["variant"] == variant)
            ratio = f"{speed(ours) / speed(top):.2f}x" if ours else "-"
            lines.append([f"{kind}, {variant}, {top['block'] >> 10} KiB", f"{top['stored']:.4f}", f"{top['batch']}",
                          _rate(top), _rate(ours), ratio])  # fmt: skip
    yield table(["nvCOMP: weights, variant, block", "stored", "chunks", "nvCOMP", "ZipNN, dumont-gpu", "faster"], lines)
    yield LZ4_ENCODE_NOTES
    lines = [
        [f"{row['kind']}, {row['part']}", f"{row['stored']:.4f}", f"{row['stored_by_cpu']:.4f}", f"{row['batch']}",
         f"{row['streams']}", _rate(row)]
        for row in data["lz4"]
    ]  # fmt: skip
    yield table(["LZ4 frames: content, part", "stored", "by the CPU", "chunks", "streams", "GB/s"], lines)


# --- copies and jobs --------------------------------------------------------------------------------------------------


def _copies(data: Json) -> Iterator[str]:
    yield "## Copies\n"
    yield table(["", "GB/s"], ([row["name"], rate(row["size"], row["seconds"])] for row in data["copies"]))


def _jobs(data: Json) -> Iterator[str]:
    yield "## Restores\n"
    yield JOB_NOTES.format(repeats=data["repeats"])
    if data["opening"]:
        yield f"Opening the device costs a process {median(data['opening']):.2f} s, within all its figures.\n"
    lines = []
    for row in data["jobs"]:
        if row["seconds"]:
            title = f"{row['job']}, {row['place']} ({data['places'][row['place']]}), --device {row['device']}"
            same = {True: "identical", False: "DIFFERS", None: "not compared"}[row["identical"]]
            lines.append([title, f"{row['size'] / 1e6:.0f}", rate(row["size"], row["seconds"]),
                          f"{median(row['seconds']):.2f}", f"{median(row['wall']):.2f}", row["used"],
                          same])  # fmt: skip
    yield table(["restore", "MB", "GB/s", "seconds", "process", "ran on", "tree"], lines)
    yield from _busy(data["jobs"], lambda row: f"--device {row['device']}")
    yield from _stages_alone(data)


def _stages_alone(data: Json) -> Iterator[str]:
    yield "Each stage alone, GB/s of original bytes:\n"
    stages = list(dict.fromkeys(row["stage"] for row in data["stages"]))
    lines = []
    for place in dict.fromkeys(row["place"] for row in data["stages"]):
        of_place = {row["stage"]: row for row in data["stages"] if row["place"] == place}
        cells = (rate(of_place[s]["size"], of_place[s]["seconds"]) if s in of_place else "-" for s in stages)
        lines.append([place, *cells])
    yield table(["place", *stages], lines)


def _packs(data: Json) -> Iterator[str]:
    yield "## Packs\n"
    yield PACK_NOTES.format(repeats=data["repeats"])
    lines = []
    for row in (row for row in data["packs"] if row["seconds"]):
        title = f"{row['job']}, {row['place']} ({data['places'][row['place']]}), {row['label']}"
        slowest = slowest_stage(data, row["place"]) if row["used"].startswith("cuda") else {}
        share = f"{speed(row) / speed(slowest):.0%}" if slowest and row["job"] == "bf16 file" else "-"
        right = {True: "right", False: "WRONG", None: "not checked"}[row["verified"]]
        lines.append([title, f"{row['size'] / 1e6:.0f}", f"{row['stored'] / 1e6:.2f}",
                      rate(row["size"], row["seconds"]),
                      f"{median(row['seconds']):.2f}", f"{median(row['wall']):.2f}", share, _cost(row, data["packs"]),
                      row["used"], right])  # fmt: skip
    heads = ["pack", "MB", "stored MB", "GB/s", "seconds", "process", "of the slowest stage", "cost of --paranoid"]
    yield table([*heads, "ran on", "content"], lines)
    yield from _busy(data["packs"], lambda row: row["label"])
    yield from _stages_alone(data)


def _cost(row: Json, rows: list[Json]) -> str:
    """How much longer --paranoid takes."""
    same = ("job", "place", "device", "memory")
    plain = (other for other in rows if not other["paranoid"] and all(other[name] == row[name] for name in same))
    without = next(plain, None)
    if not row["paranoid"] or without is None or not without["seconds"]:
        return ""
    return f"{median(row['seconds']) / median(without['seconds']) - 1:+.0%}"


def _busy(rows: list[Json], label: Callable[[Json], str]) -> Iterator[str]:
    yield "Busy seconds of the stages, summed over their threads, medians:\n"
    lines = []
    for row in rows:
        stages = {name for seconds in row["stage_seconds"] for name in seconds}
        shown = ", ".join(f"{name} {median(s[name] for s in row['stage_seconds']):.2f}" for name in sorted(stages))
        lines.append(f"- {row['job']}, {row['place']}, {label(row)}: {shown or 'none'}")
    yield "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the report of a GPU check.")
    default_results = Path(__file__).resolve().parent / "results"
    commands = parser.add_subparsers(dest="command", required=True)
    describing, collecting = (commands.add_parser(name) for name in ("describe", "collect"))
    describing.add_argument("--device", type=int, default=0)
    for command in (describing, collecting):
        command.add_argument("work", type=Path)
    merging = commands.add_parser("merge")
    merging.add_argument("files", type=Path, nargs="+")
    for command in (collecting, merging):
        command.add_argument("--results", type=Path, default=default_results, metavar="DIR")
    options = parser.parse_args()
    try:
        if options.command == "describe":
            describe(options.work, options.device)
            return 0
        if options.command == "collect":
            new = collect(options.work)
            results = merge([*earlier(options.results / f"gpu-{slug(new['device'])}.json"), new])
        else:
            results = merge(json.loads(file.read_text(encoding="utf-8")) for file in options.files)
        for path in publish(results, options.results):
            print(f"written: {path.name}", file=sys.stderr)
    except OSError as error:
        print(f"gpu_report.py: {error.strerror or error}: {error.filename or options.results}", file=sys.stderr)
        return 1
    except Exception as error:  # of a report, not of what it is about
        traceback.print_exc()
        print(f"gpu_report.py: no report: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
