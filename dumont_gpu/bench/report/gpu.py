"""Tables of a GPU check: targets, steps, kernels both ways, copies, restores, packs and loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

from dumont_gpu.bench.report.gpu_kernels import hashing, variants
from dumont_gpu.bench.report.gpu_loads import loads
from dumont_gpu.bench.report.gpu_stages import stages_alone
from dumont_gpu.bench.report.gpu_steps import steps_table
from dumont_gpu.bench.report.tables import MB, Json, Table, rate
from dumont_gpu.bench.report.targets import ans_rows, best, slowest_stage, speed, verdicts, whole_encodings
from dumont_gpu.sizes import KiB, MiB

_CLOCK: Final = (
    "GB/s of original bytes by the device's clock: by the median of {repeats} repeats, with the best in brackets. "
    "Everything is in the device's memory; chunks of {chunk} MiB of normal weights (sigma = 0.02), "
)
_DECODE: Final = (
    _CLOCK + "a batch of them in one launch, other chunks in turn. Outputs are checked against "
    "the CPU's. The package writes blocks of 2^17 bytes."
)
_DECODE_NVCOMP: Final = (
    "The same weights in the same run, compressed by nvCOMP itself; the best block size of each variant counts. "
    '"Typed" means that nvCOMP was told the element type when compressing, "type named" also when decompressing, '
    '"unchecked" that it skips its own validation; "by the binding" is `nvcomp.Codec`, which allocates its outputs.'
)
_DECODE_LZ4: Final = (
    "dumont-gpu: a call of nvCOMP for each chunk's compressed blocks, and a kernel that copies the raw blocks, all in "
    "one stream. nvCOMP: the compressed blocks of all chunks in one call, and nothing else; GB/s of these bytes only."
)
_ENCODE: Final = (
    _CLOCK + "three launches each, one chunk after the other in one stream or spread over several, as a job does. "
    "Streams are compared with the CPU encoder's, byte by byte."
)
_PARTS: Final = (
    "Each kernel alone, over the same chunks: its rate if the others took no time. A kernel that takes less than some "
    "20 microseconds a chunk shows the cost of a launch."
)
_ENCODE_NVCOMP: Final = (
    "The same weights, compressed by nvCOMP in one call for all chunks; the best block size of each variant counts."
)
_ENCODE_LZ4: Final = (
    'nvCOMP compresses blocks of 64 KiB, our kernels make a frame of them ("frame"); each is shown alone, too. "By the '
    "CPU\" is the size of the CPU's frame of the same text."
)
_RESTORES: Final = (
    "Whole commands: seconds as the command reports them, and of the process with the interpreter's start. {repeats} "
    "repeats, each of everyone once; a run before them compiles kernels, and its tree is compared with the source. "
    "Snapshots are in the page cache. Restores end when the files are on disk."
)
_PACKS: Final = (
    "Whole commands, from a source in the page cache to a durable snapshot; {repeats} repeats, each of everyone once. "
    'A run before them compiles kernels, and its snapshot is decoded on the CPU. "Of the slowest stage" compares with '
    'the stages alone, below; "memory" is the `--memory` for chunks in flight.'
)
_VERDICTS: Final = {True: "met", False: "NOT MET", None: "not measured"}


def gpu_tables(record: Json) -> list[Table]:
    """Returns the tables of the steps of a GPU check; a step that did not run is left out."""
    steps = record.get("steps")
    if not steps:
        return []
    targets = tuple((v.what, v.wanted, v.found, _VERDICTS[v.met]) for v in verdicts(record))
    found = [Table("Targets", "", ("target", "wanted", "found", "verdict"), targets), steps_table(steps)]
    sections = {
        "kernels": _kernels,
        "variants": variants,
        "encode": _encode,
        "copies": _copies,
        "jobs": _restores,
        "packs": _packs,
        "loads": loads,
    }
    for step, section in sections.items():
        if step in steps and steps[step]["data"]:
            found += section(steps[step]["data"])
    return found


# --- kernels ----------------------------------------------------------------------------------------------------------


def _kernels(data: Json) -> Iterator[Table]:
    batches = sorted({row["batch"] for row in data["zipnn"]})
    heads = tuple(f"{batch} chunks" for batch in batches)
    lines = []
    for kind, log2 in dict.fromkeys((row["kind"], row["block_log2"]) for row in data["zipnn"]):
        rows = {row["batch"]: row for row in data["zipnn"] if (row["kind"], row["block_log2"]) == (kind, log2)}
        stored = next(iter(rows.values()))["stored"]
        lines.append((f"{kind}, 2^{log2}", f"{stored:.4f}", *(_rate(rows.get(batch)) for batch in batches)))
    notes = _DECODE.format(repeats=data["repeats"], chunk=data["chunk"] // MiB)
    yield Table("Decoding on the device: ZipNN", notes, ("weights, block", "stored", *heads), tuple(lines))
    yield _nvcomp_decoders(data)
    yield from _against_ans(data)
    lines = []
    for row in data["lz4"]:
        alone = rate(row["alone_size"], row["alone_seconds"])
        lines.append((row["kind"], f"{row['stored']:.4f}", f"{row['batch']}", _rate(row), alone))
    header = ("content", "stored", "chunks", "dumont-gpu", "nvCOMP")
    yield Table("Decoding on the device: LZ4 frames", _DECODE_LZ4, header, tuple(lines))
    yield from hashing(data)
    lines = [
        (f"{row['kernel']}, {row['threads']} threads", f"{row['registers']}", f"{row['local']}",
         f"{row['static_shared'] + row['dynamic_shared']}", f"{row['ctas_per_sm']}")
        for row in data["occupancy"]
    ]  # fmt: skip
    header = ("kernel", "registers", "local bytes", "shared bytes", "CTAs per SM")
    yield Table("Kernels as compiled", "", header, tuple(lines))


def _nvcomp_decoders(data: Json) -> Table:
    batches = sorted({row["batch"] for row in data["nvcomp"]})
    lines = []
    for kind, variant in dict.fromkeys((row["kind"], row["variant"]) for row in data["nvcomp"]):
        rows = [row for row in data["nvcomp"] if (row["kind"], row["variant"]) == (kind, variant)]
        top = best(rows)
        of_block = {row["batch"]: row for row in rows if row["block"] == top["block"]}
        title = f"{kind}, {variant}, {top['block'] // KiB} KiB"
        lines.append((title, f"{top['stored']:.4f}", *(_rate(of_block.get(batch)) for batch in batches)))
    header = ("weights, variant, block", "stored", *(f"{batch} chunks" for batch in batches))
    return Table("Decoding on the device: nvCOMP", _DECODE_NVCOMP, header, tuple(lines))


def _against_ans(data: Json) -> Iterator[Table]:
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in data["zipnn"]):
        ours, theirs = best(row for row in data["zipnn"] if row["kind"] == kind), best(ans_rows(data, kind))
        if ours and theirs:
            lines.append((kind, _rate(ours), _rate(theirs), f"{speed(ours) / speed(theirs):.2f}x"))
    if lines:
        notes = "The best of each by the median, whatever block and batch; of nvCOMP, the variants that check."
        header = ("weights", "ZipNN, dumont-gpu", "ANS, nvCOMP", "faster")
        yield Table("Decoding on the device: against ANS", notes, header, tuple(lines))


def _encode(data: Json) -> Iterator[Table]:
    shapes = sorted({(row["batch"], row["streams"]) for row in data["zipnn"]})
    kinds = list(dict.fromkeys(row["kind"] for row in data["zipnn"]))

    def found(kind: str, part: str) -> dict[tuple[int, int], Json]:
        rows = (row for row in data["zipnn"] if (row["kind"], row["part"]) == (kind, part))
        return {(row["batch"], row["streams"]): row for row in rows}

    def heads(shapes: list[tuple[int, int]]) -> list[str]:
        return [f"{batch} chunks, {streams} streams" for batch, streams in shapes]

    lines: list[tuple[str, ...]] = []
    for kind in kinds:
        rows = found(kind, "all")
        stored = next((f"{row['stored']:.4f}" for row in rows.values()), "-")
        lines.append((kind, stored, *(_rate(rows.get(shape)) for shape in shapes)))
    notes = _ENCODE.format(repeats=data["repeats"], chunk=data["chunk"] // MiB)
    yield Table("Encoding on the device: ZipNN", notes, ("weights", "stored", *heads(shapes)), tuple(lines))
    parted = [shape for shape in shapes if any(shape in found(kind, "plan") for kind in kinds)]
    lines = [
        (f"{kind}, zipnn_{part}", *(_rate(found(kind, part).get(shape)) for shape in parted))
        for kind in kinds
        for part in dict.fromkeys(row["part"] for row in data["zipnn"] if row["part"] != "all")
        if found(kind, part)
    ]
    yield Table("Encoding on the device: each kernel", _PARTS, ("kernel", *heads(parted)), tuple(lines))
    yield _nvcomp_encoders(data, kinds)
    lines = [
        (f"{row['kind']}, {row['part']}", f"{row['stored']:.4f}", f"{row['stored_by_cpu']:.4f}", f"{row['batch']}",
         f"{row['streams']}", _rate(row))
        for row in data["lz4"]
    ]  # fmt: skip
    header = ("content, part", "stored", "by the CPU", "chunks", "streams", "GB/s")
    yield Table("Encoding on the device: LZ4 frames", _ENCODE_LZ4, header, tuple(lines))


def _nvcomp_encoders(data: Json, kinds: list[str]) -> Table:
    lines = []
    for kind in kinds:
        ours = best(whole_encodings(data, kind))
        theirs = [row for row in data["nvcomp"] if row["kind"] == kind and row["verified"]]
        for variant in dict.fromkeys(row["variant"] for row in theirs):
            top = best(row for row in theirs if row["variant"] == variant)
            faster = f"{speed(ours) / speed(top):.2f}x" if ours else "-"
            title = f"{kind}, {variant}, {top['block'] // KiB} KiB"
            lines.append((title, f"{top['stored']:.4f}", f"{top['batch']}", _rate(top), _rate(ours), faster))
    header = ("weights, variant, block", "stored", "chunks", "nvCOMP", "ZipNN, dumont-gpu", "faster")
    return Table("Encoding on the device: nvCOMP", _ENCODE_NVCOMP, header, tuple(lines))


def _rate(row: Json | None) -> str:
    if not row:
        return "-"
    return rate(row["size"], row["seconds"]) + ("" if row["verified"] else " WRONG OUTPUT")


# --- copies and jobs --------------------------------------------------------------------------------------------------


def _copies(data: Json) -> Iterator[Table]:
    rows = tuple((row["name"], rate(row["size"], row["seconds"])) for row in data["copies"])
    yield Table("Copies", "GB/s, median (best).", ("copy", "GB/s"), rows)


def _restores(data: Json) -> Iterator[Table]:
    lines = []
    for row in (row for row in data["jobs"] if row["seconds"]):
        title = f"{row['job']}, {row['place']} ({data['places'][row['place']]}), --device {row['device']}"
        same = {True: "identical", False: "DIFFERS", None: "not compared"}[row["identical"]]
        lines.append((title, f"{row['size'] / MB:.0f}", *_times(row), row["used"], same))
    notes = _RESTORES.format(repeats=data["repeats"])
    if data["opening"]:
        notes += f" Opening the device costs a process {median(data['opening']):.2f} s, within all its figures."
    header = ("restore", "MB", "GB/s", "seconds", "process", "ran on", "tree")
    busy = _busy(data["jobs"], lambda row: f"--device {row['device']}")
    yield Table("Restores", f"{notes}\n{busy}", header, tuple(lines))
    yield stages_alone("Restores", data)


def _packs(data: Json) -> Iterator[Table]:
    lines = []
    for row in (row for row in data["packs"] if row["seconds"]):
        title = f"{row['job']}, {row['place']} ({data['places'][row['place']]}), {row['label']}"
        slowest = slowest_stage(data, row["place"]) if row["used"].startswith("cuda") else {}
        share = f"{speed(row) / speed(slowest):.0%}" if slowest and row["job"] == "bf16 file" else "-"
        right = {True: "right", False: "WRONG", None: "not checked"}[row["verified"]]
        sizes = f"{row['size'] / MB:.0f}", f"{row['stored'] / MB:.2f}"
        lines.append((title, *sizes, *_times(row), share, _cost(row, data["packs"]), row["used"], right))
    header = ("pack", "MB", "stored MB", "GB/s", "seconds", "process", "of the slowest stage", "cost of --paranoid",
              "ran on", "content")  # fmt: skip
    notes = f"{_PACKS.format(repeats=data['repeats'])}\n{_busy(data['packs'], lambda row: str(row['label']))}"
    yield Table("Packs", notes, header, tuple(lines))
    yield stages_alone("Packs", data)


def _times(row: Json) -> tuple[str, str, str]:
    return rate(row["size"], row["seconds"]), f"{median(row['seconds']):.2f}", f"{median(row['wall']):.2f}"


def _cost(row: Json, rows: list[Json]) -> str:
    """How much longer --paranoid takes."""
    same = ("job", "place", "device", "memory")
    plain = (other for other in rows if not other["paranoid"] and all(other[name] == row[name] for name in same))
    without = next(plain, None)
    if not row["paranoid"] or without is None or not without["seconds"]:
        return ""
    return f"{median(row['seconds']) / median(without['seconds']) - 1:+.0%}"


def _busy(rows: list[Json], label: Callable[[Json], str]) -> str:
    lines = ["Busy seconds of the stages, summed over their threads, medians:"]
    for row in rows:
        stages = {name for seconds in row["stage_seconds"] for name in seconds}
        shown = ", ".join(f"{name} {median(s[name] for s in row['stage_seconds']):.2f}" for name in sorted(stages))
        lines.append(f"- {row['job']}, {row['place']}, {label(row)}: {shown or 'none'}")
    return "\n".join(lines)
