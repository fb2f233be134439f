"""What a snapshot holds: totals, codecs, id."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from dumont_gpu.codecs import CODECS
from dumont_gpu.columns.views import count_changed, count_types
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.tree.links_out import links_out


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The totals of a snapshot. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    original_size: int  # of the regular files
    compressed_size: int  # of the whole snapshot
    ratio: float  # original size over compressed size
    num_files: int  # entries, directories and links included
    num_chunks: int
    chunk_size: int  # raw bytes in a chunk, at most
    digest: str  # "blake3" or "sha256"
    entries: dict[str, int]  # how many are files, directories, links: by the format's names
    changed: int  # files that changed while they were packed
    links_out: tuple[FileEntry, ...]  # symlinks whose target is not in the snapshot
    codec_bytes: dict[str, tuple[int, int]]  # codec -> (raw bytes, encoded bytes)
    method: str
    tool: str  # that packed it
    created_ns: int  # nanoseconds since 1970


def snapshot_info(snapshot: Snapshot) -> SnapshotInfo:
    """Returns the totals of an open snapshot."""
    header, manifest, size = snapshot.header, snapshot.manifest, snapshot.source.size
    names = {codec.id: codec.name for codec in CODECS}
    codecs: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for chunk in snapshot.chunks:
        original, stored = codecs[names[chunk.compressor_id]]
        codecs[names[chunk.compressor_id]] = original + chunk.size_original, stored + chunk.size_compressed
    return SnapshotInfo(
        snapshot_path=snapshot.source.location,
        snapshot_id=snapshot.id,
        original_size=header.total_size_original,
        compressed_size=size,
        ratio=header.total_size_original / size if size else 1.0,
        num_files=header.num_files,
        num_chunks=header.num_chunks,
        chunk_size=header.chunk_size,
        digest=header.digest,
        entries={kind.value: count for kind, count in count_types(manifest.entries).items()},
        changed=count_changed(manifest.entries),
        links_out=tuple(links_out(manifest.entries)),
        codec_bytes=dict(codecs),
        method=manifest.method,
        tool=manifest.tool,
        created_ns=manifest.created_ns,
    )
