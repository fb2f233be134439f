"""Publishes a snapshot to S3 while it is made: parts go up as they fill, the one with header and index last.

The object appears when the upload completes, all of it at once, so nobody ever reads half a snapshot. The header is
known last, and byte 0 is in part 1: S3 takes parts in any order under numbers of our choice. obstore's own uploads do
not offer that, so it signs the requests and they are sent from here.

A publish that was stopped by a signal, by the network, or killed goes on when the same job is started again: the same
tree gives the same parts, and a part that the server has already is not sent (its ETag is the MD5 of what would be).
`unfinished` has the rules about whose upload that may be. Any other error takes the upload away.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import Final

from dumont_gpu.buffers import Buffer, BufferPool, ClosedError
from dumont_gpu.errors import (
    DumontError,
    GaveUpError,
    LeftBehind,
    NetworkError,
    leave_behind,
)
from dumont_gpu.pipeline import Channel
from dumont_gpu.progress import Notice
from dumont_gpu.shortages import shortage
from dumont_gpu.sizes import MiB, format_size
from dumont_gpu.storage.http_range import RangeConnection
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.proxies import PROXY_ERRORS
from dumont_gpu.storage.retry import RetryPolicy
from dumont_gpu.storage.s3_place import check_object, naming_key, signer_for
from dumont_gpu.storage.s3_requests import Part, S3Requests
from dumont_gpu.storage.tls import tls_context
from dumont_gpu.storage.unfinished import UnfinishedUpload

_PART_SIZE: Final = 8 * MiB  # S3 wants 5 at least; all parts but the last are of one size, as some servers insist on
_MAX_PARTS: Final = 10_000
_PARTS_PLANNED: Final = 9_000
_UPLOADERS: Final = 4
_SIGNAL_POLL: Final = 0.2  # seconds; a signal that another thread receives does not wake the main thread
_MEMORY: Final = 128 * MiB  # for parts on their way, as far as two parts fit
_HEAD_COMPARED: Final = 4096  # bytes by which an object is known: the header has a digest of everything
# To take an upload away, when somebody may be waiting to pull the plug.
_GRACE: Final = RetryPolicy(patience=8.0, first_contact=8.0, longest_delay=2.0)
_GRACE_TIMEOUT: Final = 3.0  # seconds


class S3Sink:
    """A snapshot in S3. Everything before the first byte that is written is held in memory until `commit`.

    Args:
        location: s3://bucket/key.
        options: how the network may be used.
        force: replace an object there that is no snapshot.

    Raises:
        UsageError: nothing may be written there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: the place cannot be written to, or a package is missing.
    """

    in_order = True

    def __init__(self, location: str, options: NetworkOptions | None = None, *, force: bool = False) -> None:
        self.location = location
        self._options = options or NetworkOptions()
        self._signer = signer_for(location)
        self._part_size = _PART_SIZE
        self._tls = tls_context(location)
        self._over = threading.Event()
        patience = self._options.patience(location)
        self._requests = S3Requests(self._signer, self._options, patience, self._tls, self._over)
        with naming_key(location):
            self._notes = () if force else check_object(self._requests)
            place = self._signer.address()
            self._upload = UnfinishedUpload(self._requests, f"{place.scheme}://{place.authority}{place.path}")
            try:
                self._say(self._upload.find(discard=self._options.discard))
            except BaseException:
                self._upload.release()
                raise
        self._parts: dict[int, Part] = {}  # what the object will be made of
        self._reused = 0  # bytes of them that were there before
        self._head: bytearray | None = None  # the parts that come last
        self._end = 0  # of what was written, but for the head
        self._part: Buffer | None = None  # the part that is being filled
        self._pool: BufferPool | None = None
        self._full: Channel[tuple[int, Buffer, int]] = Channel(_UPLOADERS)
        self._uploaders: list[tuple[threading.Thread, RangeConnection]] = []
        self._running = 0  # threads
        self._ending = threading.Condition()
        self._error: BaseException | None = None
        self._open = True

    def identities(self) -> frozenset[tuple[int, int]]:
        return frozenset()

    def notes(self) -> tuple[str, ...]:
        return self._notes

    def expect(self, size: int) -> None:
        """Chooses the size of the parts."""
        while self._part_size * _PARTS_PLANNED < size:
            self._part_size += MiB

    def write_at(self, offset: int, data: memoryview) -> None:
        with naming_key(self.location):
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
        with naming_key(self.location):
            self._finish_parts(size)
            assert self._head is not None
            self._requests.complete(self._upload.id, self._parts, memoryview(self._head)[: min(size, _HEAD_COMPARED)])
        self._open = False
        self._upload.forget()
        self._requests.close()
        if self._reused:
            sent = size - self._reused
            text = f"{format_size(self._reused)} were at the server already, {format_size(sent)} were sent"
            self._options.notice(Notice(self.location, text, {"reused": self._reused, "sent": sent}))

    def cancel(self) -> None:
        self._stop(NetworkError("the upload was given up"))

    def abort(self, error: BaseException | None = None) -> None:
        if not self._open:
            return
        self._open = False
        self.cancel()
        self._join()
        self._requests.close()
        try:
            left = self._kept(error) or self._taken_away()
        finally:
            self._upload.release()
        if left is not None and error is not None:
            leave_behind(error, left)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _start(self, first: int) -> None:
        """Holds the parts back that lie before `first`, wholly or partly, and gets the others going."""
        held = -(-first // self._part_size) * self._part_size
        self._head = bytearray(held)
        self._end = first
        self._pool = BufferPool(max(2, min(_UPLOADERS + 1, _MEMORY // self._part_size)), self._part_size)
        for number in range(_UPLOADERS):
            connection = self._requests.connect()
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

    def _put(self, number: int, data: memoryview, connection: RangeConnection | None = None) -> None:
        known = self._upload.parts.get(number)
        if known is not None and known.size == len(data) and _is(known, data):
            self._parts[number] = known
            with self._ending:
                self._reused += len(data)
            return
        try:
            self._parts[number] = self._requests.put(self._upload.id, number, data, connection)
        except (GaveUpError, *PROXY_ERRORS):
            raise
        except DumontError as error:
            if known is None or self._over.is_set():
                raise
            text = f"{error}; it may not replace a part of an unfinished upload: the same command begins anew"
            raise DumontError(text) from None

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
        last = range(0, len(head), self._part_size) or range(0 if self._parts else 1)  # an upload has at least one part
        for start in last:
            self._put(start // self._part_size + 1, head[start : start + self._part_size])

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

    # --- an early end ---------------------------------------------------------------------------------------------

    def _kept(self, error: BaseException | None) -> LeftBehind | None:
        """What stays at the server, if the same job may go on from it; None: nothing should stay."""
        kept = sum(part.size for part in (self._upload.parts | self._parts).values())
        if not _may_go_on(error) or not self._upload.remembered or self._options.discard:
            return None
        if not kept and not isinstance(error, GaveUpError):  # without a network there is no taking away either
            return None
        return self._left(f"{format_size(kept)} are kept at the server, to go on from", kept, goes_on=True)

    def _taken_away(self) -> LeftBehind | None:
        """Takes the upload away; None: the server says that it is gone."""
        options = replace(self._options, connect_timeout=_GRACE_TIMEOUT, read_timeout=_GRACE_TIMEOUT, retry=_GRACE)
        requests = S3Requests(self._signer, options, options.patience(self.location), self._tls, threading.Event())
        reason = "the server still has it"
        try:
            if requests.abort(self._upload.id):
                self._upload.forget()
                return None
        except DumontError as error:
            reason = str(error)
        finally:
            requests.close()
        return self._left(f"an upload could not be taken away ({reason})", None, goes_on=False)

    def _left(self, text: str, size: int | None, *, goes_on: bool) -> LeftBehind:
        facts: dict[str, str | int] = {
            "bucket": self._signer.bucket, "key": self._signer.key, "upload_id": self._upload.plain_id
        }  # fmt: skip
        named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        return LeftBehind(f"{text}: {named}", facts if size is None else facts | {"size": size}, goes_on)

    def _say(self, texts: list[str]) -> None:
        for text in texts:
            self._options.notice(Notice(self.location, text))


def _may_go_on(error: BaseException | None) -> bool:
    """Whether a job that ended so may end well another time: stopped by a signal, the network, what ran short."""
    if error is None:
        return False
    return not isinstance(error, Exception) or isinstance(error, GaveUpError) or bool(shortage(error))


def _is(part: Part, data: memoryview) -> bool:
    return part.etag.strip('"').lower() == hashlib.md5(data, usedforsecurity=False).hexdigest()
