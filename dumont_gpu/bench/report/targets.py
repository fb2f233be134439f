"""The targets of a GPU check: wanted, found, met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from dumont_gpu.bench.report.tables import Json

ZIPNN_RATE = 600e9  # bytes of bf16 per second on an H200, decoded
ENCODE_RATE = 300e9  # encoded
H200 = "H200"
AGAINST_ANS = 1.5
OF_NVCOMP_LZ4 = 0.9
OF_SLOWEST_STAGE = 0.9
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
    return [*_zipnn(kernels, device), *_lz4(kernels), *_encode(encode, device), *_restores(jobs), *_packs(packs)]


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
    rows = [row for row in kernels.get("zipnn", []) if row["kind"] == "bf16" and row["verified"]]
    ours = best(row for row in rows if row["block_log2"] == WRITTEN_BLOCK_LOG2)
    wanted = f"{ZIPNN_RATE / 1e9:.0f} GB/s on an H200"
    met = speed(ours) >= ZIPNN_RATE if ours and H200 in device else None
    yield Verdict("ZipNN decode of bf16, on the device", wanted, f"{speed(ours) / 1e9:.0f} GB/s" if ours else "-", met)
    theirs = best(ans_rows(kernels, "bf16")) if kernels else {}
    ratio = speed(ours) / speed(theirs) if ours and theirs else None
    yield Verdict(
        "that, against nvCOMP's ANS in the same run", f"{AGAINST_ANS}x", _times(ratio), _at_least(ratio, AGAINST_ANS)
    )


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
    wanted = f"{ENCODE_RATE / 1e9:.0f} GB/s on an H200"
    met = speed(ours) >= ENCODE_RATE if ours and H200 in device else None
    yield Verdict("ZipNN encode of bf16, on the device", wanted, f"{speed(ours) / 1e9:.0f} GB/s" if ours else "-", met)


def _restores(jobs: Json) -> Iterator[Verdict]:
    for place in ("disk", "memory"):
        restored = [row for row in jobs.get("jobs", []) if row["place"] == place and row["job"] == "bf16 file"]
        ours = next((row for row in restored if row["used"].startswith("cuda") and row["identical"]), None)
        yield _of_slowest(f"restore of a bf16 file, {place}", ours, jobs, place)


def _packs(packs: Json) -> Iterator[Verdict]:
    for place in ("disk", "memory"):
        packed = [row for row in packs.get("packs", []) if row["place"] == place and row["job"] == "bf16 file"]
        plain = (row for row in packed if not row["paranoid"] and not row["memory"])  # the default of the command
        ours = next((row for row in plain if row["used"].startswith("cuda") and row["verified"]), None)
        yield _of_slowest(f"pack of a bf16 file, {place}", ours, packs, place)


def slowest_stage(data: Json, place: str) -> Json:
    """The slowest stage of those measured alone; empty if no stage was."""
    return min((row for row in data.get("stages", []) if row["place"] == place), key=speed, default={})


def _of_slowest(what: str, ours: Json | None, data: Json, place: str) -> Verdict:
    slowest = slowest_stage(data, place)
    ratio = speed(ours) / speed(slowest) if ours and ours["seconds"] and slowest else None
    wanted = f"{OF_SLOWEST_STAGE:.0%} of the slowest stage alone" + (f" ({slowest['stage']})" if slowest else "")
    return Verdict(what, wanted, _percent(ratio), _at_least(ratio, OF_SLOWEST_STAGE))


def _at_least(value: float | None, wanted: float) -> bool | None:
    return None if value is None else value >= wanted


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
