"""Maps chunks to the files that they hold, and checks the files' bytes in a chunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dumont_gpu.errors import DamagedError
from dumont_gpu.format.digests import Digest
from dumont_gpu.format.entries import Extent, FileEntry
from dumont_gpu.format.paths import printable

# Chunk number -> the files that have bytes in the chunk, each with its extents there in file order.
FileExtents = Sequence[tuple[FileEntry, Sequence[Extent]]]
Placement = Mapping[int, FileExtents]


def placement_of(files: Sequence[FileEntry]) -> Placement:
    """Returns the chunks that `files` need, with the extents that lie in each."""
    placement: dict[int, list[tuple[FileEntry, Sequence[Extent]]]] = defaultdict(list)
    for file in files:
        if len(file.extents) == 1:  # nearly every file
            placement[file.extents[0].chunk].append((file, file.extents))
            continue
        by_chunk: dict[int, list[Extent]] = {}
        for extent in file.extents:
            by_chunk.setdefault(extent.chunk, []).append(extent)
        for chunk, extents in by_chunk.items():
            placement[chunk].append((file, extents))
    return placement


def check_content(content: memoryview, placed: FileExtents, digest: Digest) -> None:
    """Checks every extent in a decoded chunk; bytes that several files share are hashed once.

    Args:
        content: the raw bytes of the chunk.
        placed: the files in the chunk, with their extents.
        digest: the digest function of extents.

    Raises:
        DamagedError: a file's bytes are not the bytes that were packed.
    """
    digests: dict[tuple[int, int], bytes] = {}
    for file, extents in placed:
        for extent in extents:
            key = extent.chunk_offset, extent.length
            if key not in digests:
                digests[key] = digest(content[key[0] : key[0] + key[1]])
            if digests[key] != extent.digest:
                raise DamagedError(f"{printable(file.path)}: its content does not match its digest")
