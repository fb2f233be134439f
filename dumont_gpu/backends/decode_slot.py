"""Decoding one chunk on a device."""

from __future__ import annotations

from dumont_gpu import native
from dumont_gpu.backends.device import Device, DeviceRegion
from dumont_gpu.backends.launches import FrameDecoding, run, zipnn_block_count, zipnn_decoding, zipnn_table_size
from dumont_gpu.backends.pinning import Pinning
from dumont_gpu.backends.slot_digest import SlotDigest
from dumont_gpu.backends.slots import Slot
from dumont_gpu.codecs.lz4 import frame_content_size
from dumont_gpu.errors import DamagedError
from dumont_gpu.native import layout
from dumont_gpu.sizes import KiB


class DecodeSlot(Slot):
    """Device memory for encoded bytes and their digest, raw bytes, the list of a chunk's blocks, and their statuses."""

    def __init__(self, device: Device, pinning: Pinning, chunk_size: int) -> None:
        _, _, table, results, work, _ = regions = _regions(chunk_size)
        super().__init__(device, pinning, regions, (table, results, work))
        self._encoded, self._out, self._table, self._results, work_at, values_at = self.addresses
        self._host_table, self._host_results, host_digest = self.host
        self._digest = SlotDigest(self.stream, work_at, values_at, host_digest)

    @staticmethod
    def size(chunk_size: int) -> int:
        """Bytes of device memory."""
        return sum(_regions(chunk_size)) + len(_regions(chunk_size)) * 4 * KiB

    def load(self, encoded: memoryview, digest: bytes | None) -> bool:
        """Copies a chunk to the device; returns whether its BLAKE3 digest is `digest`. None: it has been checked.

        Waits for the answer: no decoder, ours neither, sees bytes that are not known to be those that were packed.
        """
        self.stream.copy_in(self._encoded, encoded)
        if digest is not None:
            self._digest.queue(self._encoded, len(encoded))
        self.stream.synchronize()
        return digest is None or self._digest.found == digest

    def raw(self, size: int) -> DeviceRegion:
        """Returns the slot's own memory for a chunk of `size` raw bytes."""
        return DeviceRegion(self._out, size)

    def digest_of(self, region: DeviceRegion) -> bytes:
        """Returns the BLAKE3 digest of device memory, of no more bytes than the slot has room for."""
        self._digest.queue(region.address, len(region))
        self.stream.synchronize()
        return self._digest.found

    def decode_zipnn(self, encoded: memoryview, out: memoryview | DeviceRegion) -> bool | None:
        """Decodes the chunk that was loaded, `encoded`, into host memory, or into device memory at any address.

        Returns True if `out` holds it, False if it has a fault, None if it is for the CPU.
        """
        blocks = native.zipnn_device_blocks(encoded, len(out), self._host_table)
        if blocks is None:
            return None
        self.stream.copy_in(self._table, self._host_table[: blocks * layout("DeviceBlock")])
        self.stream.clear(self._results, 4 * blocks)
        run(self.stream, zipnn_decoding(blocks, self._encoded, self._address(out), self._table, self._results))
        return not any(self._finish(out, 4 * blocks))

    def decode_lz4(self, encoded: memoryview, out: memoryview | DeviceRegion) -> bool | None:
        """Decodes and returns as `decode_zipnn` does."""
        try:
            if frame_content_size(encoded) != len(out):
                return None
        except DamagedError:
            return None
        frames = FrameDecoding(self._encoded, self._address(out), self._table, self._results)
        blocks = frames.describe(encoded, len(out), self._host_table)
        if blocks is None:
            return None
        self.stream.copy_in(self._table, self._host_table)
        self.stream.clear(self._results, 12 * blocks.compressed)
        if blocks.compressed:
            self.stream.decode_lz4(frames.batch(blocks))
        run(self.stream, frames.launches(blocks))
        sizes = 8 * blocks.compressed
        found = self._finish(out, sizes + 4 * blocks.compressed)
        _, _, _, raw_sizes = blocks.arrays
        expected = self._host_table[raw_sizes : raw_sizes + sizes]
        return found[:sizes] == expected and not any(found[sizes:])

    def _address(self, out: memoryview | DeviceRegion) -> int:
        """Returns where the device writes a chunk that goes to `out`."""
        return out.address if isinstance(out, DeviceRegion) else self._out

    def _finish(self, out: memoryview | DeviceRegion, results: int) -> memoryview:
        """Waits until `out` holds the chunk; returns the first `results` bytes of the kernels' results."""
        self.stream.copy_out(self._host_results[:results], self._results)
        if isinstance(out, memoryview):
            self.stream.copy_out(out, self._out)
        self.stream.synchronize()
        return self._host_results[:results]


def _regions(chunk_size: int) -> tuple[int, int, int, int, int, int]:
    encoded, out, table, results = FrameDecoding.regions(chunk_size)
    table, results = max(table, zipnn_table_size(chunk_size)), max(results, 4 * zipnn_block_count(chunk_size))
    return encoded, out, table, results, *SlotDigest.regions(encoded)
