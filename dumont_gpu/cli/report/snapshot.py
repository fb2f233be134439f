"""The reports on a snapshot: its contents (info), and its soundness (verify)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.findings import NO_BYTES, links_out_lines
from dumont_gpu.cli.report.words import (
    codec_lines,
    count_chunks,
    count_entries,
    count_kinds,
    fields_of,
    local_time,
)
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import format_size

if TYPE_CHECKING:  # each for one command alone
    from dumont_gpu.jobs.info import SnapshotInfo
    from dumont_gpu.jobs.verify import VerifyResult


def info(found: SnapshotInfo) -> Report:
    data = fields_of(found) | {"links_out": len(found.links_out)}
    lines = [
        f"{found.snapshot_path}: {format_size(found.original_size)} in {format_size(found.compressed_size)} "
        f"({found.ratio:.2f}x)",
        f"  {count_kinds(found.entries) if found.entries else 'no entries'}",
        *([NO_BYTES] if found.num_files and not found.original_size else []),
        *(links_out_lines(found.links_out, followed=False) if found.links_out else []),
        f"  {count_chunks(found.num_chunks)} of up to {format_size(found.chunk_size)}, covered by {found.digest}",
        *codec_lines(found.codec_bytes),
        *([f"  {found.changed:,} changed while packed: ls -l marks them with !"] if found.changed else ()),
        f"  packed {local_time(found.created_ns)} by {printable(found.tool)}, method {printable(found.method)}",
        f"  {found.snapshot_id}",
    ]
    return Report(data, lines)


def verified(result: VerifyResult) -> Report:
    content = (
        "" if result.content_size is None else f", {format_size(result.content_size)} of content decoded and checked"
    )
    lines = [
        f"ok: {result.snapshot_path}: {format_size(result.stored_size)} in {count_chunks(result.num_chunks)} match "
        f"their digests{content} ({count_entries(result.num_files)}, {result.seconds:.1f} s)",
        f"  {result.snapshot_id}",
    ]
    return Report(fields_of(result), lines)
