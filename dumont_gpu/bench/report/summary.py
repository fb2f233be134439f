"""A record as tables, a headline and problems, whoever shows them: terminal, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterator

from dumont_gpu.bench.report.by_type import chunk_table, contention, projection_table, row_table
from dumont_gpu.bench.report.codecs import codec_tables
from dumont_gpu.bench.report.gpu import gpu_tables
from dumont_gpu.bench.report.jobs import job_tables, link_table, network_table, profile_tables
from dumont_gpu.bench.report.loads import load_tables
from dumont_gpu.bench.report.tables import Json, Table


def tables(record: Json) -> list[Table]:
    """Returns the tables of each part that was run."""
    found: list[Table] = []
    if "rows" in record:
        found += [row_table(record, corpus) for corpus in record["corpora"]]
    if record.get("codecs", {}).get("figures"):
        found += codec_tables(record["codecs"])
    if record.get("chunks"):
        found += [chunk_table(record), projection_table(record)]
    if record.get("jobs", {}).get("figures"):
        found += job_tables(record)
    if record.get("links"):
        found.append(link_table(record))
    if "network" in record:
        found.append(network_table(record))
    if "load" in record:
        found += load_tables(record["load"])
    if "profile" in record:
        found += profile_tables(record)
    return found + gpu_tables(record)


def headline(record: Json) -> str:
    """Returns a line that names program, machine and device."""
    device = record["device"]
    if "machine" not in record:  # a GPU check: each step has its own
        return f"dumont-gpu on {device['detail']}"
    gpu = f"{device['name']}: {device['detail']}" if device["name"] else "no GPU"
    return f"dumont-gpu {record['version']} on {record['machine']['CPU']}, {gpu}, {record['machine']['date']}"


def problems(record: Json) -> Iterator[str]:
    """Yields warnings and failures."""
    if "rows" in record and not record["device"]["name"]:
        yield f"no GPU columns: {record['device']['detail']}"
    yield from contention(record)
    for failure in record.get("failures", ()):
        yield f"FAILED: {failure}"
