"""The parts that a snapshot is uploaded in: how large they are, which the server has, how they fill and go up."""

from __future__ import annotations

import hashlib
import threading
from typing import Final

from dumont_gpu.buffers import Buffer, BufferPool
from dumont_gpu.channel import Channel
from dumont_gpu.errors import DumontError, GaveUpError
from dumont_gpu.pipeline import Pipeline
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.proxies import PROXY_ERRORS
from dumont_gpu.storage.s3_requests import Part, S3Requests
from dumont_gpu.storage.unfinished import UnfinishedUpload

# S3 wants 5 MiB at least. All parts but the last have one size, as some servers insist on that.
_SMALLEST: Final = 8 * MiB
_MAX_PARTS: Final = 10_000
_PARTS_PLANNED: Final = 9_000
_THREADS: Final = 4
_MEMORY: Final = 128 * MiB  # for parts on their way, as far as two parts fit


class PartSize:
    """The size of the parts, in bytes."""

    def __init__(self) -> None:
        self.bytes = _SMALLEST

    def fit(self, size: int) -> None:
        """Makes the parts so large that few enough of them hold a snapshot of `size` bytes."""
        while self.bytes * _PARTS_PLANNED < size:
            self.bytes += MiB


class SentParts:
    """The parts that the object will be made of: sent now, or found at the server.

    Args:
        requests: about the object.
        upload: which the parts belong to.
        over: set once nobody wants the object any more.
    """

    def __init__(self, requests: S3Requests, upload: UnfinishedUpload, over: threading.Event) -> None:
        self._requests, self._upload, self._over = requests, upload, over
        self._lock = threading.Lock()
        self.parts: dict[int, Part] = {}
        self.reused = 0  # bytes of parts that the server had before

    @property
    def kept(self) -> int:
        """Bytes that the server has of this upload, now and from before."""
        return sum(part.size for part in (self._upload.parts | self.parts).values())

    def put(self, number: int, data: memoryview, connection: RangeConnection | None = None) -> None:
        """Sends a part, unless the server has a part of this number with the same bytes."""
        known = self._upload.parts.get(number)
        if known is not None and known.size == len(data) and _is(known, data):
            with self._lock:
                self.parts[number] = known
                self.reused += len(data)
            return
        try:
            self.parts[number] = self._requests.put(self._upload.id, number, data, connection)
        except (GaveUpError, *PROXY_ERRORS):
            raise
        except DumontError as error:
            if known is None or self._over.is_set():
                raise
            text = f"{error}; it may not replace a part of an unfinished upload: the same command begins anew"
            raise DumontError(text) from None


class PartWriter:
    """Cuts a snapshot's bytes into parts, which threads upload as they fill.

    Bytes before the first write are the head. The head is known last, and byte 0 is in part 1: the parts that hold
    bytes of the head stay in memory until `finish`. The other bytes come in order.

    Args:
        first: offset of the first write.
        part_size: bytes.
        sent: where the parts go.
        requests: make the connections.
        over: set as soon as a part fails, so that the other threads try nothing again.
    """

    def __init__(
        self, first: int, part_size: int, sent: SentParts, requests: S3Requests, over: threading.Event
    ) -> None:
        self._part_size, self._sent, self._over = part_size, sent, over
        self._head = bytearray(-(-first // part_size) * part_size)
        self._end = first  # of the bytes that came in order
        self._part: Buffer | None = None  # the part that is being filled
        self._connections = [requests.connect() for _ in range(_THREADS)]
        self._idle = list(self._connections)
        self._pool = BufferPool(max(2, min(_THREADS + 1, _MEMORY // part_size)), part_size)
        self._pipeline = Pipeline(self._pool, cancel=self._give_up)
        self._full: Channel[tuple[int, Buffer, int]] = self._pipeline.items(_THREADS)
        self._pipeline.stage("upload", self._upload, self._full, threads=_THREADS, enough=1)
        self._pipeline.start()

    def write_at(self, offset: int, data: memoryview) -> None:
        if offset >= self._end:
            with self._pipeline.feeding():
                self._append_zeros(offset - self._end)
                self._append(data)
        elif offset + len(data) <= len(self._head):
            self._head[offset : offset + len(data)] = data
        else:
            raise DumontError("a part was written twice; this is a defect of dumont-gpu")

    def finish(self, size: int) -> memoryview:
        """Uploads what is left of a snapshot of `size` bytes, the head last; returns the head.

        Raises:
            the first error of any part.
        """
        with self._pipeline.feeding():
            self._append_zeros(size - self._end)
            if self._part is not None:
                self._send_part()
        self._full.finish()
        self._pipeline.run()
        self._close()
        head = memoryview(self._head)[:size]
        # An upload has at least one part.
        for start in range(0, len(head), self._part_size) or range(0 if self._sent.parts else 1):
            self._sent.put(start // self._part_size + 1, head[start : start + self._part_size])
        return head

    def fail(self, error: BaseException) -> None:
        """Makes writes fail, now and later; an error that came first stays."""
        self._pipeline.fail(error)

    def join(self) -> None:
        """Waits for the threads, which end by themselves after `fail`."""
        self._pipeline.join()
        self._close()

    def _append_zeros(self, count: int) -> None:
        while count > 0:
            step = min(count, MiB)
            self._append(memoryview(bytes(step)))
            count -= step

    def _append(self, data: memoryview) -> None:
        if self._end < len(self._head):
            count = min(len(data), len(self._head) - self._end)
            self._head[self._end : self._end + count] = data[:count]
            self._end += count
            data = data[count:]
        while len(data):
            if self._part is None:
                self._part = self._pool.acquire()
            at = self._end % self._part_size
            count = min(len(data), self._part_size - at)
            self._part.view[at : at + count] = data[:count]
            self._end += count
            data = data[count:]
            if at + count == self._part_size:
                self._send_part()

    def _send_part(self) -> None:
        """Hands the part that is being filled to the threads."""
        assert self._part is not None
        number, size = (self._end - 1) // self._part_size + 1, (self._end - 1) % self._part_size + 1
        if number > _MAX_PARTS:
            raise DumontError(f"the snapshot has more than {_MAX_PARTS} parts; this is a defect of dumont-gpu")
        part, self._part = self._part, None
        self._full.put((number, part, size))

    def _upload(self, item: tuple[int, Buffer, int]) -> None:
        number, buffer, size = item
        connection = self._idle.pop()  # the connection used last: it is open already
        self._sent.put(number, buffer.view[:size], connection)
        self._idle.append(connection)
        buffer.release()

    def _give_up(self) -> None:
        self._over.set()
        for connection in self._connections:
            connection.shut()

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()


def _is(part: Part, data: memoryview) -> bool:
    return part.etag.strip('"').lower() == hashlib.md5(data, usedforsecurity=False).hexdigest()
