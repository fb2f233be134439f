"""The targets of a GPU check: wanted, found, met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from dumont_gpu.bench.report.tables import Json

H200 = "H200"
DECODE_RATES = {"bf16": 1200e9, "fp32": 1000e9, "fp16": 800e9, "fp8 e4m3": 600e9}  # bytes/s on an H200, many chunks
ONE_CHUNK_RATE = 900e9  # of bf16, a single chunk of 64 MiB
ENCODE_RATE = 600e9  # of bf16
AGAINST_ANS = 2.0
OF_NVCOMP_LZ4 = 0.9
OF_SLOWEST_STAGE = 0.9  # of a job on a disk
OF_COPIES = 0.6  # of a job in memory, where copies to and from the device should be what limits it
OF_LIMIT = 0.9  # of a load into device memory: by the slower of the copy of encoded bytes and the decoding
AGAINST_PLAIN_COPY = 1.3  # times as fast as raw bytes that already are in pinned memory
OURS, OPENED = "dumont-gpu, {}", "dumont-gpu, {}, opened before"  # contenders of a load; of a framework
PLAIN_COPY, FILE_COPY = "pinned memory, plain copy", "raw file, through pinned buffers"
SAFETENSORS = "safetensors, load_file"
WRITTEN_BLOCK_LOG2 = 17  # as the package writes


@dataclass(frozen=True, slots=True)
class Verdict:
    what: str
    wanted: str
    found: str
    met: bool | None  # None: no figures


def verdicts(results: Json) -> list[Verdict]:
    kernels, encode, jobs, packs = (_data(results, step) for step in ("kernels", "encode", "jobs", "packs"))
    device = results["device"]["detail"]
    found = [*_zipnn(kernels, device), *_lz4(kernels), *_encode(encode, device), *_restores(jobs), *_packs(packs)]
    return [*found, *load_verdicts(_data(results, "loads"))]


def best(rows: Iterable[Json]) -> Json:
    """The row of the highest rate by its median; empty if there is none."""
    return max(rows, key=speed, default={})


def ans_rows(kernels: Json, kind: str) -> list[Json]:
    """nvCOMP's ANS on these weights, where its output is right, and it checks its input as our kernels do."""
    return [
        row
        for row in kernels["nvcomp"]
        if row["kind"] == kind and "ANS" in row["variant"] and "unchecked" not in row["variant"] and row["verified"]
    ]


def speed(row: Json) -> float:
    """Bytes per second by the median."""
    return float(row["size"] / median(row["seconds"]))


def _data(results: Json, step: str) -> Json:
    return (results["steps"].get(step) or {}).get("data") or {}


def _zipnn(kernels: Json, device: str) -> Iterator[Verdict]:
    rows = [row for row in kernels.get("zipnn", []) if row["verified"] and row["block_log2"] == WRITTEN_BLOCK_LOG2]
    for kind, wanted in DECODE_RATES.items():
        ours = best(row for row in rows if row["kind"] == kind)
        yield _rate(f"ZipNN decode of {kind}, on the device", ours, wanted, device)
    alone = best(row for row in rows if row["kind"] == "bf16" and row["batch"] == 1)
    yield _rate("ZipNN decode of bf16, a chunk alone", alone, ONE_CHUNK_RATE, device)
    ours = best(row for row in rows if row["kind"] == "bf16")
    theirs = best(ans_rows(kernels, "bf16")) if kernels else {}
    ratio = speed(ours) / speed(theirs) if ours and theirs else None
    yield Verdict(
        "ZipNN decode of bf16, against nvCOMP's ANS in the same run", f"{AGAINST_ANS}x", _times(ratio),
        _at_least(ratio, AGAINST_ANS),
    )  # fmt: skip


def _rate(what: str, ours: Json, wanted: float, device: str) -> Verdict:
    met = speed(ours) >= wanted if ours and H200 in device else None
    return Verdict(what, f"{wanted / 1e9:.0f} GB/s on an H200", f"{speed(ours) / 1e9:.0f} GB/s" if ours else "-", met)


def _lz4(kernels: Json) -> Iterator[Verdict]:
    row = next((row for row in kernels.get("lz4", []) if row["kind"] == "text" and row["verified"]), None)
    ratio = speed(row) * median(row["alone_seconds"]) / row["alone_size"] if row else None
    wanted = f"{OF_NVCOMP_LZ4:.0%} of nvCOMP's own"
    yield Verdict("LZ4 frames of text, on the device", wanted, _percent(ratio), _at_least(ratio, OF_NVCOMP_LZ4))


def whole_encodings(encode: Json, kind: str) -> list[Json]:
    """Encodings of such weights from start to end, with the right output."""
    return [row for row in encode["zipnn"] if row["kind"] == kind and row["part"] == "all" and row["verified"]]


def _encode(encode: Json, device: str) -> Iterator[Verdict]:
    ours = best(whole_encodings(encode, "bf16")) if encode else {}
    yield _rate("ZipNN encode of bf16, on the device", ours, ENCODE_RATE, device)


def _restores(jobs: Json) -> Iterator[Verdict]:
    for place in ("disk", "memory"):
        restored = [row for row in jobs.get("jobs", []) if row["place"] == place and row["job"] == "bf16 file"]
        ours = next((row for row in restored if row["used"].startswith("cuda") and row["identical"]), None)
        yield _job(f"restore of a bf16 file, {place}", ours, jobs, place)


def _packs(packs: Json) -> Iterator[Verdict]:
    for place in ("disk", "memory"):
        packed = [row for row in packs.get("packs", []) if row["place"] == place and row["job"] == "bf16 file"]
        plain = (row for row in packed if not row["paranoid"] and not row["memory"])  # the default of the command
        ours = next((row for row in plain if row["used"].startswith("cuda") and row["verified"]), None)
        yield _job(f"pack of a bf16 file, {place}", ours, packs, place)


def load_verdicts(loads: Json) -> list[Verdict]:
    """Verdicts on loads of a bf16 file by CuPy: a whole call each, which opens the snapshot and pins its buffers."""
    found = []
    for place in ("disk", "memory"):
        ours = load_row(loads, place, OURS.format("cupy"))
        limit, plain = load_limit(loads, place), load_row(loads, place, PLAIN_COPY)
        what = f"{limit['stage']}, {speed(limit) / 1e9:.0f} GB/s" if limit else "copy in or decode"
        share = speed(ours) / speed(limit) if ours and limit else None
        wanted = f"{OF_LIMIT:.0%} of the slower stage of the device ({what})"
        found.append(
            Verdict(f"load of a bf16 file to the device, {place}", wanted, _percent(share), _at_least(share, OF_LIMIT))
        )
        ratio = faster(ours, plain)
        found.append(
            Verdict(
                f"load against a plain pinned copy of the raw bytes, {place}", f"{AGAINST_PLAIN_COPY}x", _times(ratio),
                _at_least(ratio, AGAINST_PLAIN_COPY),
            )
        )  # fmt: skip
    return found


def load_row(loads: Json, place: str, who: str) -> Json:
    """The row of a contender; empty if it has no figures, or its tensors are wrong."""
    rows = (row for row in loads.get("loads", []) if (row["place"], row["who"]) == (place, who))
    return next((row for row in rows if row["seconds"] and row["verified"] is not False), {})


def load_limit(loads: Json, place: str) -> Json:
    """The slower of what the device must do: to take the encoded bytes, and to decode them; empty unless both
    were measured."""
    stages = [slowest_stage(loads, place, of) for of in ("copy in", "decode")]
    return min(stages, key=speed) if all(stages) else {}


def faster(ours: Json, theirs: Json) -> float | None:
    """Their seconds over ours, by the median of turns: a disturbance hits both contenders of a turn."""
    if not ours or not theirs:
        return None
    return float(median(their / our for our, their in zip(ours["seconds"], theirs["seconds"], strict=False)))


def slowest_stage(data: Json, place: str, of: str = "") -> Json:
    """The slowest stage of those measured alone, whose name begins with `of`; empty if no stage was."""
    stages = (row for row in data.get("stages", []) if row["place"] == place and row["stage"].startswith(of))
    return min(stages, key=speed, default={})


def _job(what: str, ours: Json | None, data: Json, place: str) -> Verdict:
    """A job on a disk against its slowest stage; in memory against pinned copies, which run both ways at once."""
    share, of = (OF_COPIES, "copy") if place == "memory" else (OF_SLOWEST_STAGE, "")
    slowest = slowest_stage(data, place, of)
    ratio = speed(ours) / speed(slowest) if ours and ours["seconds"] and slowest else None
    wanted = f"{share:.0%} of the slowest {of or 'stage'} alone" + (f" ({slowest['stage']})" if slowest else "")
    return Verdict(what, wanted, _percent(ratio), _at_least(ratio, share))


def _at_least(value: float | None, wanted: float) -> bool | None:
    return None if value is None else value >= wanted


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
