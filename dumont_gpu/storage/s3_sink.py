"""Publishes a snapshot to S3 while it is made: parts go up as they fill, the part with header and index last.

The object appears when the upload completes, all of it at once, so nobody ever reads half a snapshot. S3 takes parts
in any order under numbers that the client chooses. obstore's own uploads do not offer that: obstore only signs the
requests, and this package sends them.

A publish that is stopped by a signal, by the network or by a kill goes on when the same job is started again: the same
tree gives the same parts, and a part that the server has already is not sent (its ETag is the MD5 of the part's bytes).
`unfinished` has the rules about whose upload that may be. After any other error the upload is taken away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from dumont_gpu.disk.outputs import Identity, Output
from dumont_gpu.errors import DumontError, GaveUpError, LeftBehind, NetworkError, leave_behind
from dumont_gpu.progress import Notice
from dumont_gpu.shortages import shortage
from dumont_gpu.sizes import format_size
from dumont_gpu.storage.base import Sink
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.retry import RetryPolicy
from dumont_gpu.storage.s3_parts import PartSize, PartWriter, SentParts
from dumont_gpu.storage.s3_place import check_key, check_object, naming_key, signer_for
from dumont_gpu.storage.s3_requests import S3Requests
from dumont_gpu.storage.tls import tls_context
from dumont_gpu.storage.unfinished import UnfinishedUpload

_HEAD_COMPARED: Final = 4096  # bytes by which an object is known: the header has a digest of everything
# For taking an upload away while a user may be waiting for the end.
_GRACE: Final = RetryPolicy(patience=8.0, first_contact=8.0, longest_delay=2.0)
_GRACE_TIMEOUT: Final = 3.0  # seconds
_GIVEN_UP: Final = "the upload was given up"


def open_sink(location: str, options: NetworkOptions, *, force: bool) -> Sink:
    return S3Sink(location, options, force=force)


def check_place(location: str, sources: Sequence[str], options: NetworkOptions | None, *, force: bool) -> Output:
    """Asks the server, if there are `options`; otherwise `open_sink` will do that."""
    if options is not None:
        check_key(location, options, force=force)
    return Output(Path(location))


class S3Sink:
    """A snapshot in S3.

    Args:
        location: s3://bucket/key.
        options: how the network may be used.
        force: replace an object there that is no snapshot.

    Raises:
        UsageError: nothing may be written there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: the place cannot be written to, or a package is missing.
    """

    files: frozenset[Identity] = frozenset()
    forward = False  # the first part, with the header, is sent last

    def __init__(self, location: str, options: NetworkOptions | None = None, *, force: bool = False) -> None:
        self.location = location
        self._options = options or NetworkOptions()
        self._signer = signer_for(location)
        self._tls = tls_context(location)
        self._over = threading.Event()
        patience = self._options.patience(location)
        self._requests = S3Requests(self._signer, self._options, patience, self._tls, self._over)
        with naming_key(location):
            self.notes = () if force else check_object(self._requests)
            place = self._signer.address()
            self._upload = UnfinishedUpload(self._requests, f"{place.scheme}://{place.authority}{place.path}")
            try:
                self._say(self._upload.find(discard=self._options.discard))
            except BaseException:
                self._upload.release()
                raise
        self.parts = PartSize()
        self._sent = SentParts(self._requests, self._upload, self._over)
        self._writer: PartWriter | None = None  # from the first write on
        self._open = True

    def watch(self, moved: Callable[[int], None]) -> None:
        self._requests.watch(moved)

    def write_at(self, offset: int, data: memoryview) -> None:
        with naming_key(self.location):
            self._writing(offset).write_at(offset, data)

    def commit(self, size: int) -> None:
        with naming_key(self.location):
            head = self._writing(0).finish(size)
            self._requests.complete(self._upload.id, self._sent.parts, head[:_HEAD_COMPARED])
        self._open = False
        self._upload.forget()
        self._requests.close()
        if self._sent.reused:
            reused, sent = self._sent.reused, size - self._sent.reused
            text = f"{format_size(reused)} were at the server already, {format_size(sent)} were sent"
            self._options.notice(Notice(self.location, text, {"reused": reused, "sent": sent}))

    def cancel(self) -> None:
        self._over.set()
        if self._writer is not None:
            self._writer.fail(NetworkError(_GIVEN_UP))

    def abort(self, error: BaseException | None = None) -> None:
        if not self._open:
            return
        self._open = False
        self.cancel()
        if self._writer is not None:
            self._writer.join()
        self._requests.close()
        try:
            left = self._kept(error) or self._taken_away()
        finally:
            self._upload.release()
        if left is not None and error is not None:
            leave_behind(error, left)

    def _writing(self, first: int) -> PartWriter:
        """Returns the writer of the parts; the first call makes it, for a first write at `first`."""
        if not self._open:
            raise DumontError("the upload is over; this is a defect of dumont-gpu")
        if self._writer is None:
            self._writer = PartWriter(first, self.parts.bytes, self._sent, self._requests, self._over)
            if self._over.is_set():  # `cancel`, in another thread, may have come before there was a writer
                self._writer.fail(NetworkError(_GIVEN_UP))
        return self._writer

    # --- an early end ---------------------------------------------------------------------------------------------

    def _kept(self, error: BaseException | None) -> LeftBehind | None:
        """Returns the parts that stay at the server, if the same job may go on from them; None: nothing should stay."""
        kept = self._sent.kept
        if not _may_go_on(error) or not self._upload.remembered or self._options.discard:
            return None
        if not kept and not isinstance(error, GaveUpError):  # without a network there is no taking away either
            return None
        return self._left(f"{format_size(kept)} are kept at the server, to go on from", kept, goes_on=True)

    def _taken_away(self) -> LeftBehind | None:
        """Takes the upload away; returns None if the server says that the upload is gone."""
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
    """Whether the same job may succeed another time: a signal, the network, or a shortage of this machine ended it."""
    if error is None:
        return False
    return not isinstance(error, Exception) or isinstance(error, GaveUpError) or bool(shortage(error))
