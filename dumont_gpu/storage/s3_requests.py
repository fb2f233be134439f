"""The requests of one multipart upload to S3: signed by obstore, sent from here, tried again while that may help.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html and its siblings.
"""

from __future__ import annotations

import html
import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, TypeVar
from urllib.parse import quote
from xml.sax.saxutils import escape

from dumont_gpu.errors import DumontError, NetworkError, SnapshotNotFoundError
from dumont_gpu.sizes import MiB
from dumont_gpu.storage.addresses import Address
from dumont_gpu.storage.answers import DeniedError, ExpiredError
from dumont_gpu.storage.http_range import RangeConnection, failure, received
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.object_store import Method, ObjectSigner
from dumont_gpu.storage.retry import Patience, TransientError
from dumont_gpu.storage.tls import TlsContext

T = TypeVar("T")

_ANSWER: Final = 4 * MiB  # bytes of an answer that are read, at most: 1,000 parts take 0.3
_PAGES: Final = 11  # of a list of parts: an upload has 10,000 at most
_COPY_RATE: Final = 32 * MiB  # bytes per second: some servers copy all parts before they answer a completion
_UPLOAD_ID: Final = re.compile(rb"<UploadId>\s*([^<]{1,2048}?)\s*</UploadId>")
_ERROR: Final = re.compile(rb"<Error>.*?<Code>[A-Za-z0-9]{1,64}</Code>", re.DOTALL)
_PART: Final = re.compile(rb"<Part>(.*?)</Part>", re.DOTALL)
_UPLOAD: Final = re.compile(rb"<Upload>(.*?)</Upload>", re.DOTALL)
_MORE: Final = re.compile(rb"<IsTruncated>\s*true\s*</IsTruncated>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the server has."""

    number: int
    size: int  # bytes
    etag: str  # as the server spells it, with its quotes
    modified: float = 0.0  # seconds since 1970, by the server's clock


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that is neither completed nor aborted."""

    id: str  # percent-encoded
    begun: float  # seconds since 1970, by the server's clock


class S3Requests:
    """Requests about one object. The errors do not name the object.

    Args:
        signer: of the object.
        options: how the network may be used.
        patience: of the whole transfer.
        tls: shared by all connections.
        over: once it is set, no request is tried again.
    """

    def __init__(
        self,
        signer: ObjectSigner,
        options: NetworkOptions,
        patience: Patience,
        tls: TlsContext,
        over: threading.Event,
    ) -> None:
        self._signer, self._options, self._patience, self._tls, self._over = signer, options, patience, tls, over
        self._sent: Callable[[int], None] = lambda count: None
        self._connection = self.connect()
        self.server_time = time.time()  # by the last answer to a list

    def connect(self) -> RangeConnection:
        connection = RangeConnection(self._options, self._tls)
        connection.sent = self._sent
        return connection

    def watch(self, moved: Callable[[int], None]) -> None:
        """Makes `moved` be called with the size of each piece of content that is sent, from now on."""
        self._sent = self._connection.sent = moved

    def close(self) -> None:
        self._connection.close()

    def begin(self) -> str:
        """Begins an upload; returns its id, percent-encoded."""
        answer, _ = self._request("POST", "uploads=")
        found = _UPLOAD_ID.search(answer)
        if found is None:
            raise DumontError("the server does not begin an upload")
        return quote(html.unescape(found[1].decode("utf-8", "replace")), safe="")

    def put(self, upload_id: str, number: int, data: memoryview, connection: RangeConnection | None = None) -> Part:
        query = f"partNumber={number}&uploadId={upload_id}"
        try:
            _, response = self._request("PUT", query, data, connection)
        except SnapshotNotFoundError:
            _gone()
        return Part(number, len(data), response.getheader("ETag", ""))

    def parts(self, upload_id: str) -> dict[int, Part]:
        """Returns the parts of an upload that the server has, by number.

        Raises:
            SnapshotNotFoundError: there is no such upload, or no longer.
        """
        found: dict[int, Part] = {}
        marker = 0
        for _ in range(_PAGES):
            answer, response = self._request("GET", f"part-number-marker={marker}&uploadId={upload_id}")
            self._note_time(response)
            page = {part.number: part for part in _parse_parts(answer)}
            found |= page
            if not _MORE.search(answer) or max(page, default=0) <= marker:
                break
            marker = max(page)
        return found

    def uploads(self) -> list[Upload]:
        """Returns the first 1,000 unfinished uploads of this object; asks only once."""
        query = f"prefix={quote(self._signer.key, safe='')}&uploads="
        response = self._connection.request("GET", self._signer.bucket_address(query), {})
        self._check(response, self._connection)
        answer = received(response, _ANSWER)
        self._note_time(response)
        return list(_parse_uploads(answer, self._signer.key))

    def complete(self, upload_id: str, parts: dict[int, Part], head: memoryview) -> None:
        """Makes the object appear.

        Args:
            upload_id: of the upload.
            parts: all parts.
            head: the first bytes of the object, which show whether it is there after an answer was lost.
        """
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag></Part>"
            for part in sorted(parts.values(), key=lambda part: part.number)
        )
        document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        copying = min(sum(part.size for part in parts.values()) / _COPY_RATE, self._options.retry.patience)
        connection = RangeConnection(
            replace(self._options, read_timeout=self._options.read_timeout + copying), self._tls
        )
        try:
            self._request("POST", f"uploadId={upload_id}", document, connection)
        except SnapshotNotFoundError:
            if not self._is_there(head):  # not completed by an earlier request whose answer was lost
                _gone()
        finally:
            connection.close()

    def abort(self, upload_id: str) -> bool:
        """Takes an upload away; returns whether the server then says that the upload is gone.

        Parts on their way may arrive after an abort: then another abort is needed.
        """
        for _ in range(3):
            try:
                self._request("DELETE", f"uploadId={upload_id}")
                self._request("GET", f"uploadId={upload_id}")
            except SnapshotNotFoundError:
                return True
        return False

    def first_bytes(self, count: int) -> bytes:
        """Returns the beginning of the object: `count` bytes, or all of a smaller object.

        A server without ranges begins to send the whole object, and is stopped.

        Raises:
            SnapshotNotFoundError: there is no such object.
            DeniedError: these credentials may not read the object, though they may be allowed to write it.
        """

        def attempt(connection: RangeConnection) -> bytes:
            response = connection.request("GET", self._signed("GET", ""), {"Range": f"bytes=0-{count - 1}"})
            if response.status == 416:  # an empty object has no first byte
                connection.close()
                return b""
            self._check(response, connection)
            found = received(response, count)
            if not response.isclosed():
                connection.close()
            return found

        return self._repeated(attempt, self._connection)

    def _is_there(self, head: memoryview) -> bool:
        try:
            return self.first_bytes(len(head)) == head
        except (SnapshotNotFoundError, DeniedError):
            return False

    def _note_time(self, response: http.client.HTTPResponse) -> None:
        try:
            self.server_time = parsedate_to_datetime(response.getheader("Date", "")).timestamp()
        except (TypeError, ValueError):
            self.server_time = time.time()

    def _request(
        self,
        method: Method,
        query: str,
        content: memoryview | bytes | None = None,
        connection: RangeConnection | None = None,
    ) -> tuple[bytes, http.client.HTTPResponse]:
        """Sends a signed request, and sends it again while that may help; returns the answer."""
        if content is None and method == "POST":
            content = b""
        return self._repeated(
            lambda connection: self._attempt(method, query, content, connection), connection or self._connection
        )

    def _repeated(self, attempt: Callable[[RangeConnection], T], connection: RangeConnection) -> T:
        attempts = self._patience.attempts(connection.read_timeout)
        while True:
            try:
                return attempt(connection)
            except TransientError as error:
                self._patience.contacted |= connection.answered
                delay = attempts.after(error)
                connection.close()
                self._options.wait(self._over, delay)
                if self._over.is_set():
                    raise NetworkError("the upload was given up") from None

    def _attempt(
        self, method: Method, query: str, content: memoryview | bytes | None, connection: RangeConnection
    ) -> tuple[bytes, http.client.HTTPResponse]:
        response = connection.request(method, self._signed(method, query), {}, content)
        self._check(response, connection)
        answer = received(response, _ANSWER)
        if _ERROR.search(answer):  # a server may send status 200 before it has done the work
            connection.close()
            raise failure(response, answer, "the server does not complete the upload")
        self._patience.heard()
        return answer, response

    def _check(self, response: http.client.HTTPResponse, connection: RangeConnection) -> None:
        """Raises the error of an answer that is no success."""
        if response.status // 100 == 2:
            return
        error = failure(response)
        connection.close()
        if isinstance(error, ExpiredError) and self._signer.renew():
            raise TransientError(str(error))
        raise error

    def _signed(self, method: Method, query: str) -> Address:
        return self._patience.once_known(lambda: self._signer.address(method, query))


def _gone() -> NoReturn:
    who = "somebody has ended it, or a rule of the bucket"
    raise DumontError(f"the upload is no longer there: {who}; the same command begins anew") from None


def _parse_parts(answer: bytes) -> Iterator[Part]:
    for found in _PART.finditer(answer):
        number, size = _field(found[1], b"PartNumber"), _field(found[1], b"Size")
        if number.isascii() and number.isdigit() and size.isascii() and size.isdigit():
            modified = _seconds(_field(found[1], b"LastModified"))
            yield Part(int(number[:9]), int(size[:18]), _field(found[1], b"ETag"), modified)


def _parse_uploads(answer: bytes, key: str) -> Iterator[Upload]:
    for found in _UPLOAD.finditer(answer):
        if _field(found[1], b"Key") == key and (upload_id := _field(found[1], b"UploadId")):
            yield Upload(quote(upload_id, safe=""), _seconds(_field(found[1], b"Initiated")))


def _field(element: bytes, name: bytes) -> str:
    found = re.search(rb"<%s>([^<]{0,4096})</%s>" % (name, name), element)
    return html.unescape(found[1].decode("utf-8", "replace")).strip() if found else ""


def _seconds(text: str) -> float:
    """Seconds since 1970 of a time such as 2026-11-28T17:00:00.000Z; in doubt, the far future, which is never old."""
    try:
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return float("inf")
