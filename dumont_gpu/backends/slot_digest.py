"""The BLAKE3 digest of bytes that lie in a slot, computed by the device."""

from __future__ import annotations

from array import array

from dumont_gpu.backends.device import Stream
from dumont_gpu.backends.launches import RegionDigests, run
from dumont_gpu.native import layout


class SlotDigest:
    """Args:
    stream: the slot's.
    work: address of a region of the slot: the digest, and the description of the work.
    values: address of another region: scratch memory.
    host: host memory for the first region.
    """

    def __init__(self, stream: Stream, work: int, values: int, host: memoryview) -> None:
        self._stream, self._work, self._host = stream, work, host
        self._size = layout("kBlake3Value")
        self._job = RegionDigests(work, values, work + self._size)

    @staticmethod
    def regions(size: int) -> tuple[int, int]:
        """Returns the bytes of both regions, for digests of up to `size` bytes."""
        digest, values, table = RegionDigests.sizes(size)
        return digest + table, values

    def queue(self, begin: int, size: int) -> None:
        """Has the device hash `size` bytes of its memory after what it was asked for before."""
        _, _, table_size = RegionDigests.sizes(size)
        table = self._host[self._size : self._size + table_size]
        launches = self._job.describe(array("Q", [begin]), array("Q", [size]), table)
        self._stream.copy_in(self._work + self._size, table)
        run(self._stream, launches)
        self._stream.copy_out(self._host[: self._size], self._work)

    @property
    def found(self) -> bytes:
        """The digest, once the stream was synchronized."""
        return bytes(self._host[: self._size])
