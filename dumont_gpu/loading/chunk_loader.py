"""Loads what is wanted of a snapshot's files into memory: every chunk is fetched, checked and decoded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Final

from dumont_gpu import native
from dumont_gpu.buffers import Buffer, BufferPool, ClosedError, with_buffers
from dumont_gpu.codecs import Raw, codec_by_id
from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.forks import tell_in_children
from dumont_gpu.format.entries import Extent
from dumont_gpu.format.header import CHUNK_ALIGNMENT
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.loading.content import check_extents
from dumont_gpu.loading.kept_chunks import DecodedChunk, KeptChunks
from dumont_gpu.loading.wants import ChunkPieces, Want, count_pieces, cut
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.shortages import explain_shortages
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.reader import Snapshot, parallel_reads

KEPT: Final = 2  # tensors that follow each other share chunks: one of floats, one of the rest
_SMALL: Final = 1 * MiB  # what a program or the kernel reads at once; it may lie across two chunks
_RAW: Final = Raw().id

HostWant = Want[memoryview]
HostChunk = ChunkPieces[memoryview]


def nobody_waits(want: HostWant) -> None:
    """For callers that go on once all wants are complete."""


class ChunkLoader:
    """Loads wants by the CPU: small reads beside each other, large ones one at a time; after a fork in the child, too.

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
        self.kept = max(0, min(kept, room.memory // largest - room.buffers))
        self._fetched = replace(room, memory=room.memory - self.kept * largest).chunks(self._threads)
        self._size = largest + CHUNK_ALIGNMENT
        self.cancelled = False  # by a signal: the source gives nothing more
        self.forked()
        tell_in_children(self)

    def forked(self) -> None:
        """Makes locks and pools for this process."""
        self._loading = threading.Lock()  # held while threads of the loader load wants
        self._changing = threading.Condition()  # held while `_busy`, or the count of a want, changes
        self._busy: set[int] = set()  # chunks of small reads that run now: others wait, and need not decode them
        self._make_pools()

    def close(self) -> None:
        """Gives the memory for chunks back; whoever loads after that takes new memory."""
        self._decoded.give_back()
        self._encoded.empty()
        self._raw.empty()

    def load(self, wants: Sequence[HostWant]) -> None:
        """Fills the places of the wants. Raises as `run`."""
        chunks = cut(wants)
        for want in wants:
            clear_holes(want)
        self.run(chunks, nobody_waits)

    @explain_shortages()
    def run(self, chunks: Iterable[HostChunk], done: Callable[[HostWant], None]) -> None:
        """Loads chunks, nearly in their order; tells `done` of each want that is complete, from any thread.

        Args:
            chunks: the places of a chunk's wants are set when the iterable gives the chunk.
            done: not told of wants that no chunk has bytes of.

        Raises:
            DamagedError: bytes do not match their digest. Places of wants that are not complete are worthless.
            DumontError: the snapshot cannot be read.
        """
        with self._reading():
            if isinstance(chunks, Sequence) and _is_small(chunks):
                for chunk in chunks:
                    self._run_here(chunk, done)
            else:
                with self._loading:
                    self._run_in_threads(chunks, done)

    def _replace_pools(self) -> None:
        """After a failure: first makes new pools, for a signal may come at any point, then ends the old ones.

        Whoever waits for a buffer of the old ones tries again with the new ones.
        """
        decoded, encoded, raw = self._decoded, self._encoded, self._raw
        self._make_pools()
        for pool in (encoded, raw):
            pool.close()
        decoded.give_back()
        for pool in (encoded, raw):
            pool.empty()

    def _make_pools(self) -> None:
        """Begins with no chunk; whoever still works with a buffer gives it back to where it is from."""
        self._decoded = KeptChunks(self.kept)
        self._encoded = BufferPool(self._fetched, self._size)
        self._raw = BufferPool(self._threads + self.kept, self._size)

    def _run_here(self, chunk: HostChunk, done: Callable[[HostWant], None]) -> None:
        """Loads a chunk in the caller's thread: others would take longer to start than a small read takes."""
        with self._changing:
            self._changing.wait_for(lambda: chunk.number not in self._busy)
            self._busy.add(chunk.number)
        try:
            while not self._loaded_here(chunk, done):
                pass
        finally:
            with self._changing:
                self._busy.remove(chunk.number)
                self._changing.notify_all()

    def _loaded_here(self, chunk: HostChunk, done: Callable[[HostWant], None]) -> bool:
        """Loads a chunk; False if another read failed meanwhile and closed the pools."""
        try:
            buffer = self._encoded.acquire()
            try:
                if self._fetch((chunk, buffer), done) is not None:
                    self._decode((chunk, buffer), done)
            except Exception:
                buffer.release()
                raise
            except BaseException:  # a signal, at any point: nobody knows which buffers were given back
                self._replace_pools()
                raise
        except ClosedError:
            with self._loading:  # until that read is over, and there are new ones
                if self._encoded.closed or self._raw.closed:  # a second signal came while the first was dealt with
                    self._make_pools()
                return False
        return True

    def _run_in_threads(self, chunks: Iterable[HostChunk], done: Callable[[HostWant], None]) -> None:
        def cancel() -> None:
            if not isinstance(pipeline.error, Exception):  # a signal: nobody waits for the network any more
                self.cancelled = True
                self._snapshot.source.cancel()

        if self._encoded.closed or self._raw.closed:  # a second signal came while the first was dealt with
            self._make_pools()

        pipeline = Pipeline(self._encoded, self._raw, cancel=cancel)
        fetched = pipeline.stage(
            "fetch",
            lambda item: self._fetch(item, done),
            with_buffers(chunks, self._encoded),
            threads=parallel_reads(self._snapshot.source),
        )
        pipeline.stage("decode", lambda item: self._decode(item, done), fetched, threads=self._threads)
        try:
            pipeline.run()
        except ClosedError:
            self._replace_pools()
            raise DumontError(f"{self._snapshot.source.location}: another read was interrupted: read again") from None
        except BaseException:
            self._replace_pools()  # the pipeline has closed them
            raise

    def _fetch(
        self, item: tuple[HostChunk, Buffer], done: Callable[[HostWant], None]
    ) -> tuple[HostChunk, Buffer] | None:
        """Fetches a chunk; None if it was still there, and its pieces are in their places."""
        chunk, buffer = item
        kept = self._decoded.take(chunk.number)
        if kept is None:
            self._snapshot.read_chunk(chunk.number, _encoded_place(self._snapshot, chunk, buffer))
            return item
        self._deliver(chunk, kept, done)
        buffer.release()
        return None

    def _decode(self, item: tuple[HostChunk, Buffer], done: Callable[[HostWant], None]) -> None:
        chunk, buffer = item
        encoded, final = _encoded_place(self._snapshot, chunk, buffer), _final_place(self._snapshot, chunk)
        if final is not None:
            _check_and_decode(self._snapshot, chunk.number, encoded, final)
            self._check_content(chunk, final, set())
            count_pieces(chunk, self._changing, done)
        else:
            spare = self._raw.acquire()
            decoded = DecodedChunk(spare, spare.view[: self._snapshot.chunks[chunk.number].size_original])
            with _given_back_after_errors(spare):
                _check_and_decode(self._snapshot, chunk.number, encoded, decoded.content)
            self._deliver(chunk, decoded, done)
        buffer.release()

    def _deliver(self, chunk: HostChunk, decoded: DecodedChunk, done: Callable[[HostWant], None]) -> None:
        """Copies the pieces of a decoded chunk into their places; keeps the chunk."""
        content = decoded.content
        with _given_back_after_errors(decoded.buffer):
            self._check_content(chunk, content, decoded.checked)
        for piece in chunk.pieces:
            native.copy(
                _place(piece.want)[piece.at : piece.at + piece.size], content[piece.begin : piece.begin + piece.size]
            )
        self._decoded.keep(chunk.number, decoded)
        count_pieces(chunk, self._changing, done)

    def _check_content(self, chunk: HostChunk, content: memoryview, checked: set[Extent]) -> None:
        """Compares the content of files with its digests, if the loader is to verify it; adds extents to `checked`."""
        if not self._verify:
            return
        snapshot = self._snapshot

        def digest_of(extent: Extent) -> bytes:
            return snapshot.digest(content[extent.chunk_offset : extent.chunk_offset + extent.length])

        try:
            check_extents(chunk, digest_of, checked)
        except DamagedError as error:
            raise DamagedError(f"{snapshot.source.location}: chunk {chunk.number}: {error}") from None


def _final_place(snapshot: Snapshot, chunk: HostChunk) -> memoryview | None:
    """Returns where a chunk belongs, if all of it belongs into one place."""
    size = snapshot.chunks[chunk.number].size_original
    if not chunk.fills_one_place(size):
        return None
    (piece,) = chunk.pieces
    return _place(piece.want)[piece.at : piece.at + size]


def _encoded_place(snapshot: Snapshot, chunk: HostChunk, buffer: Buffer) -> memoryview:
    """Returns where a chunk is fetched to: into its final place, if it needs no decoding."""
    record = snapshot.chunks[chunk.number]
    if record.compressor_id == _RAW and record.size_compressed == record.size_original:
        final = _final_place(snapshot, chunk)
        if final is not None:
            return final
    return buffer.view[: record.size_compressed]


def _check_and_decode(snapshot: Snapshot, number: int, encoded: memoryview, content: memoryview) -> None:
    try:
        snapshot.check_chunk(number, encoded)
        if native.address_of(encoded) != native.address_of(content):
            codec_by_id(snapshot.chunks[number].compressor_id).decode(encoded, content)
    except DamagedError as error:
        raise DamagedError(f"{snapshot.source.location}: chunk {number}: {error}") from None


@contextmanager
def _given_back_after_errors(buffer: Buffer) -> Iterator[None]:
    try:
        yield
    except Exception:
        buffer.release()
        raise


def _is_small(chunks: Sequence[HostChunk]) -> bool:
    """Whether a read takes a chunk, or little of two: threads would take longer to start."""
    return len(chunks) <= 1 or (
        len(chunks) == 2 and sum(piece.size for chunk in chunks for piece in chunk.pieces) <= _SMALL
    )


def clear_holes(want: HostWant) -> None:
    """Makes the bytes of a want zero that no chunk holds."""
    for start, end in want.holes():
        native.clear(_place(want)[start:end])


def _place(want: HostWant) -> memoryview:
    assert want.place is not None
    return want.place
