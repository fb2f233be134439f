"""Chooses, from results of the step "variants", the options of dumont_gpu/backends/kernel_options.py.

A variant is taken if its output was right for every type of weights, and if it decodes bf16, the largest batch of each
result, faster than the kernel as written by more than runs of one variant differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final

from dumont_gpu.bench.measure.gpu.variant_table import AS_WRITTEN, MEMORY, VARIANTS, compiler_options
from dumont_gpu.bench.report.tables import Json

LEAD: Final = 1.02  # the least ratio to the kernel as written: a smaller one may be noise
WEIGHTS: Final = "bf16"
_TABLE: Final = re.compile(r"(?<=\nOPTIONS: Final\[dict\[str, tuple\[str, \.\.\.\]\]\] = )\{.*?\}", re.DOTALL)


def variants_of(records: Iterable[Json]) -> dict[str, list[Json]]:
    """The rows of every record, by compute capability."""
    found: dict[str, list[Json]] = {}
    for record in records:
        data = (record["steps"].get("variants") or {}).get("data") or {}
        if data.get("capability"):
            found.setdefault(data["capability"], []).extend(data["variants"])
    return found


def rates(rows: list[Json]) -> dict[str, float]:
    """Bytes per second of each right variant, for the weights that count."""
    wrong = {row["variant"] for row in rows if not row["verified"]}
    counted = [row for row in rows if row["kind"] == WEIGHTS and row["variant"] not in wrong]
    largest = max((row["batch"] for row in counted), default=0)
    by_variant: dict[str, list[float]] = {}
    for row in counted:
        if row["batch"] == largest:
            by_variant.setdefault(row["variant"], []).append(row["size"] / median(row["seconds"]))
    return {variant: median(found) for variant, found in by_variant.items()}


def best_variant(rows: list[Json]) -> str:
    """The fastest variant that launches as they are can run: one of another size of memory changes the header."""
    found = rates(rows)
    usable = {name: rate for name, rate in found.items() if name in VARIANTS and MEMORY not in VARIANTS[name]}
    fastest = max(usable, key=lambda name: usable[name], default=AS_WRITTEN)
    return fastest if usable.get(fastest, 0) > LEAD * found.get(AS_WRITTEN, float("inf")) else AS_WRITTEN


def chosen(records: Iterable[Json]) -> dict[str, tuple[str, ...]]:
    best = {capability: best_variant(rows) for capability, rows in variants_of(records).items()}
    return {capability: compiler_options(VARIANTS[name]) for capability, name in sorted(best.items()) if VARIANTS[name]}


def write_options(module: Path, records: Iterable[Json]) -> dict[str, tuple[str, ...]]:
    """Replaces the table in the module's source; returns the table."""
    table = chosen(records)
    lines = [f'    "{capability}": ({" ".join(f"{chr(34)}{option}{chr(34)}," for option in options)}),\n'
             for capability, options in table.items()]  # fmt: skip
    text, count = _TABLE.subn("{\n" + "".join(lines) + "}" if lines else "{}", module.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{module.name} has no table OPTIONS")
    module.write_text(text, encoding="utf-8")
    return table
