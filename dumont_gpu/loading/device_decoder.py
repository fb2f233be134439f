"""Decodes a chunk into the places of its pieces in device memory: on the device, or by the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from dumont_gpu.backends.device import Device, DeviceRegion, Stream
from dumont_gpu.backends.device_codecs import DEVICE_CODECS, DeviceCodec
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.buffers import BufferPool
from dumont_gpu.codecs import Raw, codec_by_id
from dumont_gpu.errors import DamagedError, DeviceError
from dumont_gpu.format.header import ChunkRecord
from dumont_gpu.loading.content import check_extents
from dumont_gpu.loading.load_slots import LoadSlot, LoadSlots
from dumont_gpu.loading.load_tally import LoadTally
from dumont_gpu.loading.wants import ChunkPieces, Want
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import Snapshot

WORTH_THE_TRIP: Final = 64 * KiB  # smaller chunks are decoded by the CPU, and go up as raw bytes
_RAW: Final = Raw().id

DeviceWant = Want[DeviceRegion]
DeviceChunk = ChunkPieces[DeviceRegion]


class DeviceDecoder:
    """Decodes chunks of DEVICE_CODECS on the device, all others by the CPU. Used from many threads.

    If the device finds a fault in a chunk, or another digest, the CPU checks and decodes the chunk again, as for a
    restore: the CPU alone decides which chunks are damaged.

    Args:
        snapshot: has the chunks.
        device: stays open until `close`.
        pinning: pins the host memory that is copied from.
        memory: bytes of device memory for slots; None: a part of what is free.
        verify: whether the content of files is compared with their digests, too.
        tally: told what was decoded where.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        device: Device,
        pinning: Pinning,
        memory: int | None,
        tally: LoadTally,
        *,
        verify: bool,
    ) -> None:
        self._snapshot, self._device, self._pinning = snapshot, device, pinning
        self._tally, self._verify = tally, verify
        largest = max((chunk.size_original for chunk in snapshot.chunks), default=1)
        self._slots = LoadSlots(device, pinning, largest, memory)
        self._streams: dict[int, Stream] = {}  # by thread: for chunks that the CPU decodes
        self._counting = threading.Lock()

    def begin(self) -> None:
        """Called before each load: threads of the last one have ended."""
        self._streams.clear()

    def close(self) -> None:
        """Ends what the device still does, then frees the memory that it does it with."""
        for stream in self._streams.values():
            with suppress(DeviceError):  # a lost device does nothing more
                stream.synchronize()
        self._slots.close()

    def deliver_kept(self, chunk: DeviceChunk) -> bool:
        """Copies the pieces of a chunk into their places if a slot still holds it; returns whether one does."""
        with self._naming(chunk), self._slots.lease_of(chunk.number) as slot:
            if slot is not None:
                self._check_content(chunk, slot, slot.raw(self._snapshot.chunks[chunk.number].size_original))
                self._deliver(chunk, slot)
            return slot is not None

    def decode(self, chunk: DeviceChunk, encoded: memoryview, raw: BufferPool) -> None:
        """Checks a chunk, and brings its pieces into their places; when it returns, they are there.

        Args:
            raw: buffers for what the CPU decodes.

        Raises:
            DamagedError: bytes do not match their digest.
            DeviceError: the device is lost.
        """
        with self._naming(chunk):
            there = self._decode_there(chunk, encoded)
            if not there:
                self._decode_here(chunk, encoded, raw)
        with self._counting:
            self._tally.add(self._snapshot.chunks[chunk.number].size_original, there=there)

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
        with self._pinning.in_use(encoded), self._slots.lease() as slot:
            whole = chunk.fills_one_place(size)
            out = place_of(chunk.pieces[0].want).part(chunk.pieces[0].at, size) if whole else slot.raw(size)
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

    def _decode_here(self, chunk: DeviceChunk, encoded: memoryview, raw: BufferPool) -> None:
        """Checks and decodes a chunk on the CPU, and copies its pieces to the device."""
        snapshot, record = self._snapshot, self._snapshot.chunks[chunk.number]
        snapshot.check_chunk(chunk.number, encoded)
        spare = None
        content = encoded
        if record.compressor_id != _RAW or len(encoded) != record.size_original:
            spare = raw.acquire()
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
                place = place_of(piece.want).part(piece.at, piece.size)
                stream.copy_in(place.address, content[piece.begin : piece.begin + piece.size])
            stream.synchronize()
        if spare is not None:
            spare.release()

    def _deliver(self, chunk: DeviceChunk, slot: LoadSlot) -> None:
        """Copies the pieces of a chunk that is in a slot into their places; the slot keeps the chunk."""
        raw = slot.raw(self._snapshot.chunks[chunk.number].size_original)
        for piece in chunk.pieces:
            place = place_of(piece.want).part(piece.at, piece.size)
            slot.stream.copy(place.address, raw.address + piece.begin, piece.size)
        slot.stream.synchronize()
        slot.holds = chunk.number

    def _on_device(self, chunk: DeviceChunk) -> DeviceCodec | None:
        """Returns how the device decodes a chunk; None for a chunk that the CPU decodes."""
        return codec_on_device(self._snapshot, self._snapshot.chunks[chunk.number], self._device)

    def _stream(self) -> Stream:
        thread = threading.get_ident()
        if thread not in self._streams:
            self._streams[thread] = self._device.new_stream()
        return self._streams[thread]


def codec_on_device(snapshot: Snapshot, record: ChunkRecord, device: Device) -> DeviceCodec | None:
    """Returns how a device decodes a chunk; None for a chunk that the CPU decodes."""
    if record.size_original < WORTH_THE_TRIP or snapshot.header.digest != "blake3":
        return None
    how = DEVICE_CODECS.get(record.compressor_id)
    return None if how is None or (how.needs_lz4 and not device.has_lz4) else how


def share_for_cpu(snapshot: Snapshot, device: Device) -> float:
    """Returns which part of a snapshot's raw bytes, from 0 to 1, the CPU decodes for a device."""
    size = sum(record.size_original for record in snapshot.chunks)
    there = sum(
        record.size_original for record in snapshot.chunks if codec_on_device(snapshot, record, device) is not None
    )
    return 1 - there / size if size else 0.0


def place_of(want: DeviceWant) -> DeviceRegion:
    assert want.place is not None
    return want.place
