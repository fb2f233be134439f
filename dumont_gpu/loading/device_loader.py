"""Loads what is wanted of a snapshot's files into device memory: encoded bytes go up, and kernels decode them there."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from dumont_gpu.backends.device import Device
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.buffers import Buffer, BufferPool, with_buffers
from dumont_gpu.format.header import CHUNK_ALIGNMENT
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import ChunkRoom, thread_count
from dumont_gpu.loading.device_decoder import DeviceChunk, DeviceDecoder, DeviceWant, place_of, share_for_cpu
from dumont_gpu.loading.load_slots import SLOTS
from dumont_gpu.loading.load_tally import LoadTally
from dumont_gpu.loading.wants import count_pieces, cut
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.shortages import explain_shortages
from dumont_gpu.snapshot.reader import Snapshot, parallel_reads

LOCAL_READS: Final = 8  # copies out of the page cache at 5 to 10 GB/s each: together about what PCIe carries


def local_readers(threads: int) -> int:
    """Returns how many threads read a local file for a device while `threads` decode: one could not keep PCIe busy."""
    return max(1, min(LOCAL_READS, threads // 2))


class DeviceLoader:
    """Loads wants, one call at a time; see `DeviceDecoder`.

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
        self._threads = SLOTS + math.ceil(thread_count(options.jobs) * share_for_cpu(snapshot, device))
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
        self._decoder: DeviceDecoder | None = None  # with its device memory, from the first load on
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
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._pinning.close()

    def load(self, wants: Sequence[DeviceWant]) -> None:
        """Fills the places of the wants. Raises as `run`."""
        chunks = cut(wants)
        holes = [place_of(want).part(start, end - start) for want in wants for start, end in want.holes()]
        if holes:
            stream = self._device.new_stream()
            for hole in holes:
                stream.clear(hole.address, hole.size)
            stream.synchronize()
        self.run(chunks, lambda want: None)

    @explain_shortages()
    def run(self, chunks: Iterable[DeviceChunk], done: Callable[[DeviceWant], None]) -> None:
        """Loads chunks as `ChunkLoader.run` does; when it returns, the device has finished.

        Raises:
            DamagedError: bytes do not match their digest. Places of wants that are not complete are worthless.
            DeviceError: the device is lost, or has no memory for a chunk.
            DumontError: the snapshot cannot be read.
        """
        with self._loading, self._reading():
            decoder = self._decoder = self._decoder or self._new_decoder()
            decoder.begin()
            try:
                if isinstance(chunks, Sequence) and len(chunks) <= 1:
                    self._run_here(decoder, chunks, done)  # threads would take longer than a small tensor
                else:
                    self._run_in_threads(decoder, chunks, done)
            except BaseException:
                self._start_afresh()
                raise

    def _new_decoder(self) -> DeviceDecoder:
        return DeviceDecoder(self._snapshot, self._device, self._pinning, self._memory, self.tally, verify=self._verify)

    def _start_afresh(self) -> None:
        """After a failure: the pipeline has closed its pools, and what is queued on the device is nobody's any more.

        When `run` returns, its caller may free the places: work that waits in a stream must not write there later.
        """
        decoder, pinning = self._decoder, self._pinning
        self._decoder, self._pinning = None, Pinning(self._device)
        self._make_pools()  # first: a signal may come at any point, and must not leave closed ones
        if decoder is not None:
            decoder.close()
        pinning.close()

    def _make_pools(self) -> None:
        encoded, raw = self._largest_encoded + CHUNK_ALIGNMENT, self._largest + CHUNK_ALIGNMENT
        self._encoded = BufferPool(self._most_buffers, encoded, self._pinning.pin_later)
        self._raw = BufferPool(self._threads, raw, self._pinning.pin_later)

    def _run_here(
        self, decoder: DeviceDecoder, chunks: Sequence[DeviceChunk], done: Callable[[DeviceWant], None]
    ) -> None:
        for item in with_buffers(chunks, self._encoded):
            if self._fetch(decoder, item, done) is not None:
                self._decode(decoder, item, done)

    def _run_in_threads(
        self, decoder: DeviceDecoder, chunks: Iterable[DeviceChunk], done: Callable[[DeviceWant], None]
    ) -> None:
        def cancel() -> None:
            if not isinstance(pipeline.error, Exception):  # a signal: nobody waits for the network any more
                self._snapshot.source.cancel()

        most = len(chunks) if isinstance(chunks, Sequence) else self._threads
        pipeline = Pipeline(self._encoded, self._raw, cancel=cancel)
        fetched = pipeline.stage(
            "fetch",
            lambda item: self._fetch(decoder, item, done),
            with_buffers(chunks, self._encoded),
            threads=min(self._readers, most),
        )
        threads = min(self._threads, self._most_buffers, most)
        pipeline.stage("decode", lambda item: self._decode(decoder, item, done), fetched, threads=threads)
        try:
            pipeline.run()
        except BaseException:
            _join(pipeline)
            raise

    def _fetch(
        self, decoder: DeviceDecoder, item: tuple[DeviceChunk, Buffer], done: Callable[[DeviceWant], None]
    ) -> tuple[DeviceChunk, Buffer] | None:
        """Fetches a chunk; None if a slot still held it, and its pieces are in their places."""
        chunk, buffer = item
        if not decoder.deliver_kept(chunk):
            self._snapshot.read_chunk(chunk.number, _encoded_in(self._snapshot, chunk, buffer))
            return item
        buffer.release()
        count_pieces(chunk, self._counting, done)
        return None

    def _decode(
        self, decoder: DeviceDecoder, item: tuple[DeviceChunk, Buffer], done: Callable[[DeviceWant], None]
    ) -> None:
        chunk, buffer = item
        decoder.decode(chunk, _encoded_in(self._snapshot, chunk, buffer), self._raw)
        buffer.release()
        count_pieces(chunk, self._counting, done)


def _join(pipeline: Pipeline) -> None:
    """Waits until no thread of a pipeline that failed writes to the caller's memory any more, whatever signals come."""
    while True:
        try:
            return pipeline.join()
        except BaseException:  # a second signal: the threads were told to end by the first
            continue


def _encoded_in(snapshot: Snapshot, chunk: DeviceChunk, buffer: Buffer) -> memoryview:
    return buffer.view[: snapshot.chunks[chunk.number].size_compressed]
