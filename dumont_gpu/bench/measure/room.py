"""Chunks in memory, planned as a pack plans them: what the table by type and the chunks of a model are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.bench.corpora.corpus import Corpus
from dumont_gpu.buffers import BufferPool
from dumont_gpu.codecs import Codec, Raw
from dumont_gpu.disk.direct_io import read_at
from dumont_gpu.errors import DumontError
from dumont_gpu.jobs.pack_stages import GAIN
from dumont_gpu.plan.cutter import PlannedChunk
from dumont_gpu.plan.methods import make_method
from dumont_gpu.plan.planner import Plan
from dumont_gpu.sizes import align_up
from dumont_gpu.tree.globs import Patterns
from dumont_gpu.tree.source.files import SourceFile
from dumont_gpu.tree.source.scan import scan

RAW: Final = Raw()


@dataclass(slots=True)
class Chunk:
    """A chunk in memory: its original content, and its encoded bytes."""

    codec: Codec
    content: memoryview
    room: memoryview  # for the encoded bytes
    size: int = 0  # of the encoded bytes; 0: the chunk does not shrink, and stays raw

    @property
    def encoded(self) -> memoryview:
        return self.room[: self.size] if self.size else self.content

    @property
    def compressor_id(self) -> int:
        return self.codec.id if self.size else RAW.id

    @property
    def limit(self) -> int:
        """The most encoded bytes that are worth keeping."""
        return int(len(self.content) * GAIN)


class Room:
    """Memory for one row at a time, allocated once and pinned, as the product's buffer pools are.

    Args:
        workers: threads that work side by side, on each of the backends.
        limit: original bytes of one row.
        chunk_size: the most original bytes in one chunk.
        device: pins the memory.
    """

    def __init__(self, workers: int, limit: int, chunk_size: int, device: CudaBackend | None) -> None:
        pin = device.pin if device is not None else lambda memory: None
        arena = align_up(limit) + chunk_size
        self.limit, self.chunk_size = limit, chunk_size
        self._contents, self._encoded = (BufferPool(1, arena, pin).acquire().view for _ in range(2))
        self.outputs = [BufferPool(1, chunk_size, pin).acquire().view for _ in range(workers)]
        if device is not None:
            device.pinning.wait()

    def load(self, files: Sequence[SourceFile], method: str) -> list[Chunk]:
        """Plans `files` as a pack by `method` would, and reads the first chunks into memory.

        Raises:
            DumontError: a file became shorter.
        """
        chunks: list[Chunk] = []
        at = 0
        planned = Plan(files, make_method(method), self.chunk_size, 1).chunks()
        for plan in planned:
            if at + plan.size > self.limit and chunks:
                break
            content = self._contents[at : at + plan.size]
            _read(plan, files, content)
            chunks.append(Chunk(plan.codec, content, self._encoded[at : at + plan.size]))
            at += align_up(plan.size)
        planned.close()  # type: ignore[attr-defined]  # a generator, which holds threads
        return chunks


@contextmanager
def scanned(corpus: Corpus) -> Iterator[dict[str, SourceFile]]:
    found = scan([str(corpus.root)], Patterns(()).excludes)
    try:
        yield {file.entry.path: file for file in found.files}
    finally:
        found.close()


def _read(plan: PlannedChunk, files: Sequence[SourceFile], out: memoryview) -> None:
    for extent in plan.extents:
        with files[extent.file].open() as fd:
            target = out[extent.chunk_offset : extent.chunk_offset + extent.length]
            if read_at(fd, extent.file_offset, target) != extent.length:
                raise DumontError(f"{files[extent.file].entry.path}: became shorter while it was measured")
