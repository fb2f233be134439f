"""The reports on a snapshot: its contents (info), and its soundness (verify)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumont_gpu.cli.outcome import Report
from dumont_gpu.cli.report.findings import NO_BYTES, links_out_lines
from dumont_gpu.cli.report.words import (
    CODEC_NAMES,
    codec_lines,
    count_chunks,
    count_entries,
    count_kinds,
    fields_of,
    local_time,
)
from dumont_gpu.columns.views import count_changed, count_types
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import format_size
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.tree.links_out import links_out

if TYPE_CHECKING:  # for verify alone
    from dumont_gpu.jobs.verify import VerifyResult


def info(snapshot: Snapshot) -> Report:
    header, manifest = snapshot.header, snapshot.manifest
    codecs: dict[str, tuple[int, int]] = {}
    for chunk in snapshot.chunks:
        name = CODEC_NAMES[chunk.compressor_id]
        original, stored = codecs.get(name, (0, 0))
        codecs[name] = (original + chunk.size_original, stored + chunk.size_compressed)
    counts = {kind.value: count for kind, count in count_types(manifest.entries).items()}
    changed = count_changed(manifest.entries)
    leading_out = links_out(manifest.entries)
    size = snapshot.source.size
    created = local_time(manifest.created_ns)
    ratio = header.total_size_original / size if size else 1.0
    data = {
        "snapshot_path": snapshot.source.location,
        "snapshot_id": snapshot.id,
        "original_size": header.total_size_original,
        "compressed_size": size,
        "ratio": ratio,
        "num_chunks": header.num_chunks,
        "chunk_size": header.chunk_size,
        "digest": header.digest,
        "entries": counts,
        "changed": changed,
        "links_out": len(leading_out),
        "codec_bytes": codecs,
        "method": manifest.method,
        "tool": manifest.tool,
        "created_ns": manifest.created_ns,
    }
    lines = [
        f"{snapshot.source.location}: {format_size(header.total_size_original)} in {format_size(size)} ({ratio:.2f}x)",
        f"  {count_kinds(counts) if counts else 'no entries'}",
        *([NO_BYTES] if header.num_files and not header.total_size_original else []),
        *(links_out_lines(leading_out, followed=False) if leading_out else []),
        f"  {count_chunks(header.num_chunks)} of up to {format_size(header.chunk_size)}, covered by {header.digest}",
        *codec_lines(codecs),
        *([f"  {changed:,} changed while packed: ls -l marks them with !"] if changed else ()),
        f"  packed {created} by {printable(manifest.tool)}, method {printable(manifest.method)}",
        f"  {snapshot.id}",
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
