"""Publishes a snapshot to S3 while it is made: parts go up as they fill, the one with header and index last.

The object appears when the upload completes, all of it at once, so nobody ever reads half a snapshot; what a failed
pack uploaded is taken away again. The header is known last, and byte 0 is in part 1: S3 takes parts in any order under
numbers of our choice. obstore's own uploads do not offer that, so it signs the requests and they are sent from here.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import threading
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from dumont_gpu.errors import DumontError, NetworkError, SnapshotNotFoundError, UnsupportedError
from dumont_gpu.format import MiB
from dumont_gpu.pipeline import Buffer, BufferPool, Channel, ClosedError
from dumont_gpu.storage.http_range import RangeConnection, failure, received, tls_context
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.object_store import Method, ObjectSigner
from dumont_gpu.storage.retry import TransientError, patience

_PART_SIZE: Final = 8 * MiB  # S3 wants 5 at least; all parts but the last are of one size, as some servers insist on
_MAX_PARTS: Final = 10_000
_PARTS_PLANNED: Final = 9_000
_UPLOADERS: Final = 4
_SIGNAL_POLL: Final = 0.2  # seconds; a signal that another thread receives does not wake the main thread
_MEMORY: Final = 128 * MiB  # for parts on their way, as far as two parts fit
_UPLOAD_ID: Final = re.compile(rb"<UploadId>\s*([^<]{1,2048}?)\s*</UploadId>")
_ERROR: Final = re.compile(rb"<Error>.*?<Code>([A-Za-z0-9]{1,64})</Code>", re.DOTALL)
_ANSWER: Final = 1 * MiB  # bytes of an answer that are read, at most


class S3Sink:
    """A snapshot in S3. Everything before the first byte that is written is held in memory until `commit`."""

    def __init__(self, location: str, options: NetworkOptions | None = None) -> None:
        self.location = location
        self._options = options or NetworkOptions()
        self._signer = ObjectSigner(location)
        if self._signer.scheme != "s3":
            raise UnsupportedError(f"{location}: snapshots can be published to s3:// only; pack to a file and copy it")
        if os.environ.get("AWS_SERVER_SIDE_ENCRYPTION"):  # its headers would have to be signed: obstore signs none
            raise UnsupportedError(f"{location}: AWS_SERVER_SIDE_ENCRYPTION is not supported: set it for the bucket")
        self._part_size = _PART_SIZE
        self._tls = tls_context()
        self._connection = RangeConnection(self._options, self._tls)
        with self._naming():
            self._upload_id = self._begin()
        self._etags: dict[int, str] = {}
        self._head: bytearray | None = None  # the parts that come last
        self._end = 0  # of what was written, but for the head
        self._part: Buffer | None = None  # the part that is being filled
        self._pool: BufferPool | None = None
        self._full: Channel[tuple[int, Buffer, int]] = Channel(_UPLOADERS)
        self._uploaders: list[tuple[threading.Thread, RangeConnection]] = []
        self._running = 0  # threads
        self._ending = threading.Condition()
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._open = True

    def identities(self) -> frozenset[tuple[int, int]]:
        return frozenset()

    def notes(self) -> tuple[str, ...]:
        return ()

    def expect(self, size: int) -> None:
        """Chooses the size of the parts."""
        while self._part_size * _PARTS_PLANNED < size:
            self._part_size += MiB

    def write_at(self, offset: int, data: memoryview) -> None:
        with self._naming():
            if self._head is None:
                self._start(offset)
            assert self._head is not None
            if offset >= self._end:
                self._append_zeros(offset - self._end)
                self._append(data)
            elif offset + len(data) <= len(self._head):
                self._head[offset : offset + len(data)] = data
            else:
                raise DumontError("a part was written twice; this is a defect of dumont-gpu")

    def commit(self, size: int) -> None:
        with self._naming():
            self._finish_parts(size)
            self._complete()
        self._open = False
        self._connection.close()

    def cancel(self) -> None:
        self._stop(NetworkError("the upload was given up"))

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        self.cancel()
        self._join()
        # What fails here was said already, by the error that led here; S3 keeps the parts until its own rules end them.
        with contextlib.suppress(DumontError, TransientError):
            self._request("DELETE", f"uploadId={self._upload_id}")
        self._connection.close()

    # --- parts ----------------------------------------------------------------------------------------------------

    def _start(self, first: int) -> None:
        """Holds the parts back that lie before `first`, wholly or partly, and gets the others going."""
        held = -(-first // self._part_size) * self._part_size
        self._head = bytearray(held)
        self._end = first
        self._pool = BufferPool(max(2, min(_UPLOADERS + 1, _MEMORY // self._part_size)), self._part_size)
        for number in range(_UPLOADERS):
            connection = RangeConnection(self._options, self._tls)
            thread = threading.Thread(target=self._upload_parts, args=(connection,), name=f"dumont-upload-{number}")
            self._running += 1
            try:
                thread.start()
            except RuntimeError:  # the machine allows no more: those that run upload everything
                with self._ending:
                    self._running -= 1
                if not self._uploaders:
                    raise
                return
            self._uploaders.append((thread, connection))

    def _append_zeros(self, count: int) -> None:
        while count > 0:
            step = min(count, MiB)
            self._append(memoryview(bytes(step)))
            count -= step

    def _append(self, data: memoryview) -> None:
        assert self._head is not None and self._pool is not None
        if self._end < len(self._head):
            count = min(len(data), len(self._head) - self._end)
            self._head[self._end : self._end + count] = data[:count]
            self._end += count
            data = data[count:]
        while len(data):
            if self._part is None:
                self._part = self._acquire()
            at = self._end % self._part_size
            count = min(len(data), self._part_size - at)
            self._part.view[at : at + count] = data[:count]
            self._end += count
            data = data[count:]
            if at + count == self._part_size:
                self._send_part()

    def _acquire(self) -> Buffer:
        assert self._pool is not None
        try:
            return self._pool.acquire()
        except ClosedError:
            raise self._error or NetworkError("the upload was given up") from None

    def _send_part(self) -> None:
        """Hands the part that is being filled to the threads."""
        assert self._part is not None
        number, size = (self._end - 1) // self._part_size + 1, (self._end - 1) % self._part_size + 1
        if number > _MAX_PARTS:
            raise DumontError(f"the snapshot has more than {_MAX_PARTS} parts; this is a defect of dumont-gpu")
        part, self._part = self._part, None
        try:
            self._full.put((number, part, size))
        except ClosedError:
            raise self._error or NetworkError("the upload was given up") from None

    def _upload_parts(self, connection: RangeConnection) -> None:
        try:
            for number, buffer, size in self._full:
                self._put(number, buffer.view[:size], connection)
                buffer.release()
        except ClosedError:
            pass  # another thread failed, and says why
        except BaseException as error:
            self._stop(error)
        finally:
            connection.close()
            with self._ending:
                self._running -= 1
                self._ending.notify_all()

    def _put(self, number: int, data: memoryview | bytearray, connection: RangeConnection) -> None:
        query = f"partNumber={number}&uploadId={self._upload_id}"
        _, etag = self._request("PUT", query, memoryview(data), connection)
        self._etags[number] = etag

    def _finish_parts(self, size: int) -> None:
        """Sends the last part, waits for all of them, and sends the head."""
        if self._head is None:
            self._start(0)
        assert self._head is not None
        self._append_zeros(size - self._end)
        if self._part is not None:
            self._send_part()
        self._full.finish()
        self._join()
        if self._error is not None:
            raise self._error
        head = memoryview(self._head)[:size]
        last = range(0, len(head), self._part_size) or range(0 if self._etags else 1)  # an upload has at least one part
        for start in last:
            self._put(start // self._part_size + 1, head[start : start + self._part_size], self._connection)

    def _stop(self, error: BaseException) -> None:
        """Ends the threads; the first error wins."""
        if self._error is None:
            self._error = error
        self._over.set()
        self._full.close()
        if self._pool is not None:
            self._pool.close()
        for _, connection in self._uploaders:
            connection.shut()

    def _join(self) -> None:
        """Waits for the threads; not by joining at first, as that is not safe against signals (see `Pipeline`)."""
        with self._ending:
            while self._running:
                self._ending.wait(_SIGNAL_POLL)
        for thread, _ in self._uploaders:
            thread.join()

    # --- requests -------------------------------------------------------------------------------------------------

    def _begin(self) -> str:
        answer, _ = self._request("POST", "uploads=")
        found = _UPLOAD_ID.search(answer)
        if found is None:
            raise NetworkError("the server does not begin an upload")
        return quote(html.unescape(found[1].decode("utf-8", "replace")), safe="")

    def _complete(self) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in sorted(self._etags.items())
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer, _ = self._request("POST", f"uploadId={self._upload_id}", document)
        failed = _ERROR.search(answer)
        if failed is not None:  # status 200 is sent before the server has done it
            raise NetworkError(f"the server does not complete the upload: {failed[1].decode('ascii')}")

    def _request(
        self,
        method: Method,
        query: str,
        content: memoryview | bytes = b"",
        connection: RangeConnection | None = None,
    ) -> tuple[bytes, str]:
        """Sends a signed request, again if that may help; returns the answer and its ETag."""
        connection = connection or self._connection
        left = patience(self._options.retry, first=query == "uploads=")
        while True:
            try:
                response = connection.request(method, self._signer.address(method, query), {}, content)
                if response.status // 100 == 2:
                    return received(response, _ANSWER), response.getheader("ETag", "")
                connection.close()
                raise failure(response)
            except TransientError as error:
                delay = left.after(error, 0)
                if delay is None:
                    raise NetworkError(f"{error}; gave up after every retry: try again later") from None
                self._options.wait(self._over, delay)
                if self._over.is_set():
                    raise NetworkError("the upload was given up") from None

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except SnapshotNotFoundError:
            raise SnapshotNotFoundError(f"{self.location}: no such bucket") from None
        except DumontError as error:
            raise type(error)(f"{self.location}: {error}") from None
