"""Loads what is wanted of a snapshot's files into memory: every chunk is fetched, checked and decoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from dumont_gpu import native
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.codecs import Raw, codec_by_id
from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.format.entries import Extent
from dumont_gpu.format.header import CHUNK_ALIGNMENT
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.loading.wants import ChunkPieces, Want, cut
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.snapshot.reader import Snapshot, parallel_reads

KEPT: Final = 2  # tensors that follow each other share chunks: one of floats, one of the rest
_RAW: Final = Raw().id

HostWant = Want[memoryview]
HostChunk = ChunkPieces[memoryview]


def nobody_waits(want: HostWant) -> None:
    """For callers that go on once all wants are complete."""


@dataclass(slots=True)
class _Decoded:
    """A decoded chunk in memory of the loader."""

    buffer: Buffer
    content: memoryview
    checked: set[Extent] = field(default_factory=set)  # extents whose content was compared with their digests


class ChunkLoader:
    """Loads wants, one call at a time, by the CPU.

    Args:
        snapshot: has the files.
        options: threads, and memory for chunks.
        verify: whether the content of files is compared with their digests, too, as far as their chunks are loaded.
        kept: how many decoded chunks stay, for the next call; fewer where the memory asks.
        reading: entered while the snapshot is read.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        options: ReadOptions,
        *,
        verify: bool,
        kept: int = KEPT,
        reading: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._snapshot, self._verify, self._reading = snapshot, verify, reading
        self._threads = thread_count(options.jobs)
        largest = max((chunk.size_original for chunk in snapshot.chunks), default=1)
        others = 2 if snapshot.source.remote else 1
        room = ChunkRoom.of_machine(options.memory, largest, others=others)
        self._kept = max(0, min(kept, room.memory // largest - room.buffers))
        self._fetched = replace(room, memory=room.memory - self._kept * largest).chunks(self._threads)
        self._size = largest + CHUNK_ALIGNMENT
        self._loading = threading.Lock()  # held while wants are loaded
        self._changing = threading.Lock()  # held while `_decoded`, or the count of a want, changes
        self._decoded: OrderedDict[int, _Decoded] = OrderedDict()  # the last one last
        self._make_pools()

    def close(self) -> None:
        """Has nothing that memory management does not take."""

    def load(self, wants: Sequence[HostWant]) -> None:
        """Fills the places of the wants. Raises as `run`."""
        chunks = cut(wants)
        for want in wants:
            clear_holes(want)
        self.run(chunks, nobody_waits)

    def run(self, chunks: Iterable[HostChunk], done: Callable[[HostWant], None]) -> None:
        """Loads chunks, nearly in their order; tells `done` of each want that is complete, from any thread.

        Args:
            chunks: the places of a chunk's wants are set when the iterable gives the chunk.
            done: not told of wants that no chunk has bytes of.

        Raises:
            DamagedError: bytes do not match their digest. Places of wants that are not complete are worthless.
            DumontError: the snapshot cannot be read.
        """
        with self._loading, self._reading():
            try:
                if isinstance(chunks, Sequence) and len(chunks) <= 1:
                    self._run_here(chunks, done)  # threads would take longer than a small read
                else:
                    self._run_in_threads(chunks, done)
            except BaseException:
                self._decoded.clear()
                self._make_pools()  # a pipeline that failed has closed them
                raise

    def _make_pools(self) -> None:
        self._encoded = BufferPool(self._fetched, self._size)
        self._raw = BufferPool(self._threads + self._kept, self._size)

    def _run_here(self, chunks: Sequence[HostChunk], done: Callable[[HostWant], None]) -> None:
        for item in with_buffers(chunks, self._encoded):
            if self._fetch(item, done) is not None:
                self._decode(item, done)

    def _run_in_threads(self, chunks: Iterable[HostChunk], done: Callable[[HostWant], None]) -> None:
        def cancel() -> None:
            if not isinstance(pipeline.error, DumontError):  # a signal: nobody waits for the network any more
                self._snapshot.source.cancel()

        pipeline = Pipeline(self._encoded, self._raw, cancel=cancel)
        fetched = pipeline.stage(
            "fetch",
            lambda item: self._fetch(item, done),
            with_buffers(chunks, self._encoded),
            threads=parallel_reads(self._snapshot.source),
        )
        pipeline.stage("decode", lambda item: self._decode(item, done), fetched, threads=self._threads)
        pipeline.run()

    def _fetch(
        self, item: tuple[HostChunk, Buffer], done: Callable[[HostWant], None]
    ) -> tuple[HostChunk, Buffer] | None:
        """Fetches a chunk; None if it was still there, and its pieces are in their places."""
        chunk, buffer = item
        with self._changing:
            kept = self._decoded.pop(chunk.number, None)
        if kept is None:
            self._snapshot.read_chunk(chunk.number, self._encoded_place(chunk, buffer))
            return item
        buffer.release()
        self._deliver(chunk, kept, done)
        return None

    def _decode(self, item: tuple[HostChunk, Buffer], done: Callable[[HostWant], None]) -> None:
        chunk, buffer = item
        encoded, final = self._encoded_place(chunk, buffer), self._final_place(chunk)
        if final is not None:
            self._check_and_decode(chunk, encoded, final)
            self._check_content(chunk, final, set())
            self._count(chunk, done)
        else:
            spare = self._raw.acquire()
            decoded = _Decoded(spare, spare.view[: self._snapshot.chunks[chunk.number].size_original])
            self._check_and_decode(chunk, encoded, decoded.content)
            self._deliver(chunk, decoded, done)
        buffer.release()

    def _final_place(self, chunk: HostChunk) -> memoryview | None:
        """Returns where a chunk belongs, if all of it belongs into one place."""
        size = self._snapshot.chunks[chunk.number].size_original
        if not chunk.fills_one_place(size):
            return None
        (piece,) = chunk.pieces
        return _place(piece.want)[piece.at : piece.at + size]

    def _encoded_place(self, chunk: HostChunk, buffer: Buffer) -> memoryview:
        """Returns where a chunk is fetched to: into its final place, if it needs no decoding."""
        record = self._snapshot.chunks[chunk.number]
        if record.compressor_id == _RAW and record.size_compressed == record.size_original:
            final = self._final_place(chunk)
            if final is not None:
                return final
        return buffer.view[: record.size_compressed]

    def _check_and_decode(self, chunk: HostChunk, encoded: memoryview, content: memoryview) -> None:
        snapshot, number = self._snapshot, chunk.number
        try:
            snapshot.check_chunk(number, encoded)
            if native.address_of(encoded) != native.address_of(content):
                codec_by_id(snapshot.chunks[number].compressor_id).decode(encoded, content)
        except DamagedError as error:
            raise DamagedError(f"{snapshot.source.location}: chunk {number}: {error}") from None

    def _deliver(self, chunk: HostChunk, decoded: _Decoded, done: Callable[[HostWant], None]) -> None:
        """Copies the pieces of a decoded chunk into their places; keeps the chunk."""
        content = decoded.content
        self._check_content(chunk, content, decoded.checked)
        for piece in chunk.pieces:
            native.copy(
                _place(piece.want)[piece.at : piece.at + piece.size], content[piece.begin : piece.begin + piece.size]
            )
        self._keep(chunk.number, decoded)
        self._count(chunk, done)

    def _check_content(self, chunk: HostChunk, content: memoryview, checked: set[Extent]) -> None:
        """Compares the content of files with its digests, if the loader is to verify it; adds extents to `checked`."""
        for extent, path in chunk.extents if self._verify else ():
            if extent in checked:
                continue
            found = self._snapshot.digest(content[extent.chunk_offset : extent.chunk_offset + extent.length])
            if found != extent.digest:
                raise DamagedError(
                    f"{self._snapshot.source.location}: chunk {chunk.number}: {printable(path)}: its content does not "
                    "match its digest"
                )
            checked.add(extent)

    def _count(self, chunk: HostChunk, done: Callable[[HostWant], None]) -> None:
        """Counts the pieces of a chunk, which are in their places."""
        for piece in chunk.pieces:
            with self._changing:
                piece.want.left -= 1
                last = not piece.want.left
            if last:
                done(piece.want)

    def _keep(self, number: int, decoded: _Decoded) -> None:
        with self._changing:
            self._decoded[number] = decoded
            oldest = self._decoded.popitem(last=False)[1] if len(self._decoded) > self._kept else None
        if oldest is not None:
            oldest.buffer.release()


def clear_holes(want: HostWant) -> None:
    """Makes the bytes of a want zero that no chunk holds."""
    for start, end in want.holes():
        native.clear(_place(want)[start:end])


def _place(want: HostWant) -> memoryview:
    assert want.place is not None
    return want.place
