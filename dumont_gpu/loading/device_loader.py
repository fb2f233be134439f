"""Loads what is wanted of a snapshot's files into device memory: encoded bytes go up, and kernels decode them there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final

from dumont_gpu.backends.device import Device, DeviceRegion, Stream
from dumont_gpu.backends.device_codecs import DEVICE_CODECS, DeviceCodec
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.codecs import Raw, codec_by_id
from dumont_gpu.errors import DamagedError, DeviceError, DumontError
from dumont_gpu.format.header import CHUNK_ALIGNMENT
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.loading.content import check_extents
from dumont_gpu.loading.load_slots import SLOTS, LoadSlot, LoadSlots
from dumont_gpu.loading.load_tally import LoadTally
from dumont_gpu.loading.wants import ChunkPieces, Want, cut
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import Snapshot, parallel_reads

LOCAL_READS: Final = 8  # copies out of the page cache at 5 to 10 GB/s each: together about what PCIe carries
WORTH_THE_TRIP: Final = 64 * KiB  # smaller chunks are decoded by the CPU, and go up as raw bytes
_RAW: Final = Raw().id

DeviceWant = Want[DeviceRegion]
DeviceChunk = ChunkPieces[DeviceRegion]


def local_readers(threads: int) -> int:
    """Returns how many threads read a local file for a device while `threads` decode: one could not keep PCIe busy."""
    return max(1, min(LOCAL_READS, threads // 2))


class DeviceLoader:
    """Loads wants, one call at a time: chunks of DEVICE_CODECS by the device, all others by the CPU.

    If the device finds a fault in a chunk, or another digest, the CPU checks and decodes the chunk again, as for a
    restore: the CPU alone decides which chunks are damaged.

    Args:
        snapshot: has the files.
        options: threads, memory for chunks, device memory for slots.
        device: stays open as long as the loader.
        verify: whether the content of files is compared with their digests, too, as far as their chunks are loaded.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        options: ReadOptions,
        device: Device,
        *,
        verify: bool,
        reading: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._snapshot, self._device, self._verify, self._memory = snapshot, device, verify, options.gpu_memory
        self._reading = reading
        self._threads = thread_count(options.jobs) + SLOTS
        source = snapshot.source
        self._readers = parallel_reads(source) if source.remote else local_readers(thread_count(options.jobs))
        largest = max((chunk.size_original for chunk in snapshot.chunks), default=1)
        room = ChunkRoom.of_machine(options.memory, largest, others=self._readers)
        self._most_buffers = room.chunks(self._threads)
        self._largest = largest
        self._largest_encoded = max((chunk.size_compressed for chunk in snapshot.chunks), default=1)
        self.tally = LoadTally()
        self._loading = threading.Lock()  # held while wants are loaded
        self._counting = threading.Lock()  # held while the count of a want changes
        self._pinning = Pinning(device)
        self._slots: LoadSlots | None = None
        self._streams: dict[int, Stream] = {}  # by thread: for chunks that the CPU decodes
        self._make_pools()

    def close(self) -> None:
        """Gives all device memory back, once a call that is loading has ended."""
        with self._loading:
            self._give_back()

    @property
    def refusal(self) -> str:
        """Why host memory is not pinned, which makes copies slow; empty if it is."""
        return self._pinning.refusal

    def wait_for_pinning(self) -> None:
        """Waits until the host memory that was taken so far is pinned: measurements begin afterwards."""
        self._pinning.wait()

    def _give_back(self) -> None:
        """Ends what the device still does, then frees the memory that it does it with."""
        for stream in self._streams.values():
            with suppress(DeviceError):  # a lost device does nothing more
                stream.synchronize()
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        self._pinning.close()

    def load(self, wants: Sequence[DeviceWant]) -> None:
        """Fills the places of the wants. Raises as `run`."""
        chunks = cut(wants)
        holes = [_place(want).part(start, end - start) for want in wants for start, end in want.holes()]
        if holes:
            stream = self._device.new_stream()
            for hole in holes:
                stream.clear(hole.address, hole.size)
            stream.synchronize()
        self.run(chunks, lambda want: None)

    def run(self, chunks: Iterable[DeviceChunk], done: Callable[[DeviceWant], None]) -> None:
        """Loads chunks as `ChunkLoader.run` does; when it returns, the device has finished.

        Raises:
            DamagedError: bytes do not match their digest. Places of wants that are not complete are worthless.
            DeviceError: the device is lost, or has no memory for a chunk.
            DumontError: the snapshot cannot be read.
        """
        with self._loading, self._reading():
            if self._slots is None:
                self._slots = LoadSlots(self._device, self._pinning, self._largest, self._memory)
            self._streams.clear()  # of threads that have ended
            try:
                if isinstance(chunks, Sequence) and len(chunks) <= 1:
                    self._run_here(chunks, done)  # threads would take longer than a small tensor
                else:
                    self._run_in_threads(chunks, done)
            except BaseException:
                self._start_afresh()
                raise

    def _start_afresh(self) -> None:
        """After a failure: the pipeline has closed its pools, and what is queued on the device is nobody's any more.

        When `run` returns, its caller may free the places: work that waits in a stream must not write there later.
        """
        self._give_back()
        self._pinning = Pinning(self._device)  # otherwise buffers of the old pools would stay, pinned, until `close`
        self._make_pools()

    def _make_pools(self) -> None:
        encoded, raw = self._largest_encoded + CHUNK_ALIGNMENT, self._largest + CHUNK_ALIGNMENT
        self._encoded = BufferPool(self._most_buffers, encoded, self._pinning.pin_later)
        self._raw = BufferPool(self._threads, raw, self._pinning.pin_later)

    def _run_here(self, chunks: Sequence[DeviceChunk], done: Callable[[DeviceWant], None]) -> None:
        for item in with_buffers(chunks, self._encoded):
            if self._fetch(item, done) is not None:
                self._decode(item, done)

    def _run_in_threads(self, chunks: Iterable[DeviceChunk], done: Callable[[DeviceWant], None]) -> None:
        def cancel() -> None:
            if not isinstance(pipeline.error, DumontError):  # a signal: nobody waits for the network any more
                self._snapshot.source.cancel()

        most = len(chunks) if isinstance(chunks, Sequence) else self._threads
        pipeline = Pipeline(self._encoded, self._raw, cancel=cancel)
        fetched = pipeline.stage(
            "fetch",
            lambda item: self._fetch(item, done),
            with_buffers(chunks, self._encoded),
            threads=min(self._readers, most),
        )
        threads = min(self._threads, self._most_buffers, most)
        pipeline.stage("decode", lambda item: self._decode(item, done), fetched, threads=threads)
        pipeline.run()

    def _fetch(
        self, item: tuple[DeviceChunk, Buffer], done: Callable[[DeviceWant], None]
    ) -> tuple[DeviceChunk, Buffer] | None:
        """Fetches a chunk; None if a slot still held it, and its pieces are in their places."""
        chunk, buffer = item
        assert self._slots is not None
        with self._naming(chunk), self._slots.lease_of(chunk.number) as slot:
            if slot is not None:
                self._check_content(chunk, slot, slot.raw(self._snapshot.chunks[chunk.number].size_original))
                self._deliver(chunk, slot)
        if slot is None:
            self._snapshot.read_chunk(chunk.number, self._encoded_in(chunk, buffer))
            return item
        buffer.release()
        self._count(chunk, done)
        return None

    def _decode(self, item: tuple[DeviceChunk, Buffer], done: Callable[[DeviceWant], None]) -> None:
        chunk, buffer = item
        encoded = self._encoded_in(chunk, buffer)
        with self._naming(chunk):
            there = self._decode_there(chunk, encoded)
            if not there:
                self._decode_here(chunk, encoded)
        buffer.release()
        with self._counting:
            size = self._snapshot.chunks[chunk.number].size_original
            self.tally.on_device += size if there else 0
            self.tally.on_cpu += 0 if there else size
            self.tally.repeated += there is False
        self._count(chunk, done)

    @contextmanager
    def _naming(self, chunk: DeviceChunk) -> Iterator[None]:
        """Puts the snapshot and the chunk before the message of an error."""
        try:
            yield
        except DamagedError as error:
            raise DamagedError(f"{self._snapshot.source.location}: chunk {chunk.number}: {error}") from None

    def _decode_there(self, chunk: DeviceChunk, encoded: memoryview) -> bool | None:
        """Decodes a chunk on the device; returns whether that could be done, None for a chunk that the CPU decodes."""
        snapshot, record = self._snapshot, self._snapshot.chunks[chunk.number]
        how = self._on_device(chunk)
        if how is None:
            return None
        size = record.size_original
        assert self._slots is not None
        with self._pinning.in_use(encoded), self._slots.lease() as slot:
            whole = chunk.fills_one_place(size)
            out = _place(chunk.pieces[0].want).part(chunk.pieces[0].at, size) if whole else slot.raw(size)
            if not slot.load(encoded, snapshot.manifest.chunk_digests[chunk.number]):
                return False
            if not (done := how.decode(slot, encoded, out)):
                return done
            self._check_content(chunk, slot, out)
            if not whole:
                self._deliver(chunk, slot)
        return True

    def _check_content(self, chunk: DeviceChunk, slot: LoadSlot, content: DeviceRegion) -> None:
        """Compares the content of files with its digests, if the loader is to verify it."""
        if self._verify:
            check_extents(chunk, lambda extent: slot.digest_of(content.part(extent.chunk_offset, extent.length)))

    def _decode_here(self, chunk: DeviceChunk, encoded: memoryview) -> None:
        """Checks and decodes a chunk on the CPU, and copies its pieces to the device."""
        snapshot, record = self._snapshot, self._snapshot.chunks[chunk.number]
        snapshot.check_chunk(chunk.number, encoded)
        spare: Buffer | None = None
        content = encoded
        if record.compressor_id != _RAW or len(encoded) != record.size_original:
            spare = self._raw.acquire()
            content = spare.view[: record.size_original]
            codec_by_id(record.compressor_id).decode(encoded, content)
        if self._verify:
            check_extents(
                chunk,
                lambda extent: snapshot.digest(content[extent.chunk_offset : extent.chunk_offset + extent.length]),
            )
        with self._pinning.in_use(content):
            stream = self._stream()
            for piece in chunk.pieces:
                place = _place(piece.want).part(piece.at, piece.size)
                stream.copy_in(place.address, content[piece.begin : piece.begin + piece.size])
            stream.synchronize()
        if spare is not None:
            spare.release()

    def _deliver(self, chunk: DeviceChunk, slot: LoadSlot) -> None:
        """Copies the pieces of a chunk that is in a slot into their places; the slot keeps the chunk."""
        raw = slot.raw(self._snapshot.chunks[chunk.number].size_original)
        for piece in chunk.pieces:
            place = _place(piece.want).part(piece.at, piece.size)
            slot.stream.copy(place.address, raw.address + piece.begin, piece.size)
        slot.stream.synchronize()
        slot.holds = chunk.number

    def _count(self, chunk: DeviceChunk, done: Callable[[DeviceWant], None]) -> None:
        for piece in chunk.pieces:
            with self._counting:
                piece.want.left -= 1
                last = not piece.want.left
            if last:
                done(piece.want)

    def _encoded_in(self, chunk: DeviceChunk, buffer: Buffer) -> memoryview:
        return buffer.view[: self._snapshot.chunks[chunk.number].size_compressed]

    def _on_device(self, chunk: DeviceChunk) -> DeviceCodec | None:
        """Returns how the device decodes a chunk; None for a chunk that the CPU decodes."""
        record = self._snapshot.chunks[chunk.number]
        if record.size_original < WORTH_THE_TRIP or self._snapshot.header.digest != "blake3":
            return None
        how = DEVICE_CODECS.get(record.compressor_id)
        return None if how is None or (how.needs_lz4 and not self._device.has_lz4) else how

    def _stream(self) -> Stream:
        thread = threading.get_ident()
        if thread not in self._streams:
            self._streams[thread] = self._device.new_stream()
        return self._streams[thread]


def _place(want: DeviceWant) -> DeviceRegion:
    assert want.place is not None
    return want.place
