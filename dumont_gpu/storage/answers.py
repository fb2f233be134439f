"""Turns the answer of a server that failed into an error, with the server's own words and a hint.

S3, Google Cloud Storage and Azure put a code and a message into small XML documents; others send JSON, or a page for
people.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UnsupportedError
from dumont_gpu.format.header import MAGIC
from dumont_gpu.sizes import one_line
from dumont_gpu.storage.retry import BUSY_STATUSES, RETRIED_STATUSES, TransientError, parse_retry_after

MOST_READ: Final = 4096  # bytes of an answer's body that are read
_LONGEST_MESSAGE: Final = 300  # characters of the server's message that are shown
_CLOCK_TOLERANCE: Final = timedelta(
    minutes=5
)  # S3 and Azure tolerate 15 minutes; servers' own clocks are not exact either
_SECRETS: Final = re.compile(r"(?<=://)[^/@\s]*@|\?\S*")  # in an address that a message repeats
_EXPIRED: Final = re.compile(r"\bexpired\b|not valid in the specified time frame", re.IGNORECASE)
_EXPECTED_REGION: Final = re.compile(r"expecting '([a-z0-9-]{1,40})'")
_JSON_NAMES: Final = ("error", "message", "error_description", "detail")

_KEYS: Final = "check the access key and the secret key, or the profile that they come from"
_RIGHTS: Final = (
    "these credentials may not do that here: check the bucket's name, its policy and whose credentials they are"
)
_RENEW: Final = "the signed address or its credentials have expired: get new ones"
_NAME: Final = "check the bucket's name"

NO_BUCKET: Final = "no such bucket"
NO_SNAPSHOT: Final = "no such snapshot"

# The hint for each code: first the codes of S3, then those of Google Cloud Storage and of Azure.
_HINTS: Final[dict[str, str]] = {
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _RENEW,
    "ExpiredToken": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "AccountProblem": _RIGHTS,
    "InvalidBucketName": _NAME,
    "KMS.DisabledException": "the key that the bucket encrypts with is disabled",
    "InvalidObjectState": "the object is archived: have it restored in the bucket first",
    "AuthenticationRequired": "set GOOGLE_APPLICATION_CREDENTIALS",
    "UserProjectMissing": "the bucket wants to know who pays, which is not supported",
    "AuthenticationFailed": "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "InvalidAuthenticationInfo": "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "AuthorizationFailure": _RIGHTS,
    "AuthorizationPermissionMismatch": _RIGHTS,
}
_OTHER_REGION: Final = frozenset({"IllegalLocationConstraintException", "InvalidRegionName", "PermanentRedirect"})
_OR_ANOTHER_REGION: Final = _OTHER_REGION | {"AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"}
_CLOCK_CODES: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestNotYetValid"})
_MISSING: Final = {"NoSuchBucket": NO_BUCKET, "ContainerNotFound": NO_BUCKET}
# Another attempt may help, whatever the status says.
_TRANSIENT_CODES: Final = frozenset(
    {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "ServerBusy", "OperationAborted"}
)
_STATUS_HINTS: Final = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it redirects without saying where to"),
    400: "check the address",
    401: "check the credentials",
    403: "check the address and the credentials",
}

# Documents that come in place of a snapshot: name, media types, and first bytes (in lower case).
_DOCUMENTS: Final[tuple[tuple[str, tuple[str, ...], tuple[bytes, ...]], ...]] = (
    ("a web page", ("text/html", "application/xhtml+xml"), (b"<!doctype html", b"<html", b"<head")),
    ("an XML document", ("text/xml", "application/xml"), (b"<?xml", b"<error")),
    ("a JSON document", ("application/json", "application/problem+json"), (b"{", b"[")),
)


class DeniedError(DumontError):
    """The server knows these credentials, and does not let them do that here."""


class ExpiredError(DumontError):
    """The signature has expired, or the keys that made it have: an attempt with new keys may succeed."""


_MEANT: Final[dict[str, type[DumontError]]] = {
    _RENEW: ExpiredError,
    _RIGHTS: DeniedError,
    _STATUS_HINTS[403]: DeniedError,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a server; of its body at most the first `MOST_READ` bytes."""

    status: int
    reason: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True, slots=True)
class Words:
    """The server's own words about a failure; empty where it has none."""

    code: str = ""
    message: str = ""
    region: str = ""  # of the bucket, where the server names it


def words(answer: Answer) -> Words:
    """Finds code, message and region in the body of an answer, or else in its headers."""
    text = answer.body.lstrip()[:MOST_READ].decode("utf-8", "replace")  # S3 keeps a connection alive with blanks
    found = _json_words(text) if text.lstrip()[:1] == "{" else _xml_words(text)
    code = found.code or _plain(answer.header("x-ms-error-code"), 64)
    region = _plain(answer.header("x-amz-bucket-region"), 40) or found.region
    return Words(code, found.message or _plain(answer.header("x-error-message")), region)


def failure(answer: Answer, now: datetime | None = None, what: str = "") -> Exception:
    """Returns the error to raise for an answer that is no success; its message does not name the snapshot.

    Args:
        now: by this machine's clock, which may be wrong itself.
        what: stands in the message for a status that says success.

    TransientError          RETRIED_STATUSES, and codes that say so
    SnapshotNotFoundError   404 and 410
    ExpiredError            keys or a signature have expired
    DeniedError             the keys are right, but may not do that
    DumontError             everything else: asking again brings the same answer
    """
    said, status = words(answer), answer.status
    reason = (what or f"the server answers {status} {_plain(answer.reason, 60)}".rstrip()) + _quoted(said)
    if status in RETRIED_STATUSES or said.code in _TRANSIENT_CODES:
        busy = status in BUSY_STATUSES or said.code in ("SlowDown", "ServerBusy")
        return TransientError(reason, parse_retry_after(answer.header("Retry-After")), busy)
    if status in (404, 410):
        return SnapshotNotFoundError(_MISSING.get(said.code, NO_SNAPSHOT))
    hint = _hint(answer, said, now or datetime.now(timezone.utc))
    meant = _MEANT.get(hint, DumontError)
    return meant(f"{reason}: {hint}" if hint else reason)


def document(answer: Answer) -> str:
    """Names the kind of document that a body is, such as `a web page`; empty: a snapshot, or an unknown kind."""
    kind = answer.header("Content-Type").split(";")[0].strip().lower()
    start = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if answer.body.startswith(MAGIC[:6]):
        return ""
    return next((name for name, kinds, starts in _DOCUMENTS if kind in kinds or start.startswith(starts)), "")


def whole_file(answer: Answer) -> DumontError:
    """Returns the error for a 200 to a range: the server sends whole files only, or something that is no snapshot."""
    if answer.body.startswith(MAGIC[:6]):
        return UnsupportedError("the server sends whole files only: download the snapshot, and restore from there")
    if found := document(answer):
        hint = ": is it the address of the file itself, and is a login needed?" if found == "a web page" else ""
        return DumontError(f"this is {found}, no snapshot{_quoted(words(answer))}{hint}")
    if kind := _plain(answer.header("Content-Type"), 60):
        return DumontError(f"this is no snapshot: the server sends a whole file of the type {kind}")
    return DumontError("this is no snapshot: the server sends a whole file of some other kind")


def _hint(answer: Answer, said: Words, now: datetime) -> str:
    """Says what to do. The clock comes first, as every signature depends on it."""
    if answer.status in (400, 401, 403) and (clock := _clock(answer, said, now)):
        return clock
    if said.region and (said.code in _OR_ANOTHER_REGION or answer.status in (301, 307, 400)):
        return f"the bucket is in the region {said.region}: set AWS_REGION={said.region}"
    if said.code in _OTHER_REGION:
        return "the bucket is in another region: set AWS_REGION to its own"
    if answer.status in (400, 401, 403) and _EXPIRED.search(f"{said.message} {answer.body[:MOST_READ]!r}"):
        return _RENEW
    return _HINTS.get(said.code) or ("" if said.code else _STATUS_HINTS.get(answer.status, ""))


def _clock(answer: Answer, said: Words, now: datetime) -> str:
    """Says how wrong the clock is, if a wrong clock may be the reason."""
    ahead = _difference(answer.header("Date"), now)
    if ahead is not None and abs(ahead) >= _CLOCK_TOLERANCE:
        side = "ahead of" if ahead > timedelta() else "behind"
        return f"this machine's clock is {_duration(ahead)} {side} the server's: set it"
    return "check this machine's clock" if said.code in _CLOCK_CODES else ""


def _difference(date: str, now: datetime) -> timedelta | None:
    try:
        there = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return now - (there if there.tzinfo else there.replace(tzinfo=timezone.utc))


def _duration(time: timedelta) -> str:
    minutes = round(abs(time).total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    parts = ((days, "d"), (hours, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _quoted(said: Words) -> str:
    inside = ": ".join(part for part in (said.code, said.message) if part)
    return f" ({inside})" if inside else ""


def _xml_words(text: str) -> Words:
    """Finds three elements without parsing XML: so nothing hostile in the rest of the document has any effect."""
    if "<Error" not in text:
        return Words()
    message, region = _element(text, "Message"), _element(text, "Region")
    expected = _EXPECTED_REGION.search(message)
    return Words(
        _plain(_element(text, "Code"), 64), _plain(message), _plain(region or (expected[1] if expected else ""), 40)
    )


def _element(text: str, name: str) -> str:
    start, end = text.find(f"<{name}>"), text.find(f"</{name}>")
    return html.unescape(text[start + len(name) + 2 : end]) if 0 <= start < end else ""


def _json_words(text: str) -> Words:
    with contextlib.suppress(ValueError, RecursionError):
        found: Any = json.loads(text)
        for _ in range(2):  # {"error": {"message": …}}
            if isinstance(found, dict):
                found = next((found[name] for name in _JSON_NAMES if name in found), None)
        return Words(message=_plain(found)) if isinstance(found, str) else Words()
    return Words()


def _plain(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """The first line of a server's text, bounded, without secrets and without characters that move a cursor."""
    line = next((line for line in text[: 4 * MOST_READ].splitlines() if line.strip()), "").strip().rstrip(".")
    line = _SECRETS.sub(lambda found: "?…" if found[0][0] == "?" else "", line)
    return one_line(line if len(line) <= longest else f"{line[: longest - 1]}…")
