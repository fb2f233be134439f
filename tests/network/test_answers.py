"""Failed answers: one table of statuses and codes, the server's own words, one hint, the right exit code."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.commands import cli
from support.servers import Fault, FaultServer, at_once, replaced_head, s3_environment, status, whole_file

from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UnsupportedError
from dumont_gpu.format.header import MAGIC
from dumont_gpu.storage import open_source
from dumont_gpu.storage.answers import Answer, DeniedError, ExpiredError, failure
from dumont_gpu.storage.answers import whole_file as meaning_of_a_whole_file
from dumont_gpu.storage.http_range import ChangedError
from dumont_gpu.storage.retry import TransientError

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
AT_ONCE = at_once()


def xml(code: str, message: str = "Its message.", more: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}'
        "<RequestId>A1</RequestId></Error>"
    ).encode()


def answer(code: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(code, "Reason", {name.replace("_", "-").lower(): value for name, value in headers.items()}, body)


# --- which error, with which exit code --------------------------------------------------------------------------------

MEANINGS: list[tuple[Answer, type[Exception], str]] = [
    # status alone
    (answer(400), DumontError, "400 Reason: check the address"),
    (answer(401), DumontError, "401 Reason: check the credentials"),
    (answer(403), DeniedError, "403 Reason: check the address and the credentials"),
    (answer(404), SnapshotNotFoundError, "no such snapshot"),
    (answer(405), DumontError, "the server answers 405 Reason"),
    (answer(408), TransientError, "408"),
    (answer(409), DumontError, "409"),
    (answer(410), SnapshotNotFoundError, "no such snapshot"),
    (answer(412), DumontError, "412"),
    (answer(425), TransientError, "425"),
    (answer(429), TransientError, "429"),
    (answer(451), DumontError, "451"),
    (answer(500), TransientError, "500"),
    (answer(501), DumontError, "501"),
    (answer(502), TransientError, "502"),
    (answer(503), TransientError, "503"),
    (answer(504), TransientError, "504"),
    (answer(511), DumontError, "511"),
    (answer(204), DumontError, "204"),
    (answer(302), DumontError, "redirects without saying where to"),
    # codes of S3
    (answer(400, xml("InvalidBucketName")), DumontError, r"\(InvalidBucketName: Its message\): check the bucket's name"),
    (answer(403, xml("AccessDenied", "Access Denied")), DeniedError, r"\(AccessDenied: Access Denied\): these credentials may not"),
    (answer(403, xml("InvalidAccessKeyId")), DumontError, "InvalidAccessKeyId.*check the access key"),
    (answer(403, xml("SignatureDoesNotMatch")), DumontError, "SignatureDoesNotMatch.*check the access key"),
    (answer(400, xml("ExpiredToken", "The provided token has expired.")), ExpiredError, "expired: get new"),
    (answer(403, xml("AccessDenied", "Request has expired")), ExpiredError, "expired: get new"),
    (answer(404, xml("NoSuchBucket")), SnapshotNotFoundError, "no such bucket"),
    (answer(404, xml("NoSuchKey")), SnapshotNotFoundError, "no such snapshot"),
    (answer(409, xml("BucketAlreadyExists")), DumontError, "BucketAlreadyExists: Its message"),
    (answer(403, xml("InvalidObjectState")), DumontError, "archived"),
    (answer(503, xml("SlowDown", "Please reduce your request rate.")), TransientError, r"\(SlowDown: Please reduce your request rate\)"),
    (answer(400, xml("RequestTimeout")), TransientError, "RequestTimeout"),
    (answer(409, xml("OperationAborted")), TransientError, "OperationAborted"),
    # region
    (
        answer(400, xml("AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-central-1'", "<Region>eu-central-1</Region>")),
        DumontError, "the bucket is in the region eu-central-1: set AWS_REGION=eu-central-1",
    ),
    (
        answer(400, xml("AuthorizationQueryParametersError", "the region 'a' is wrong; expecting 'eu-north-1'")),
        DumontError, "set AWS_REGION=eu-north-1",
    ),
    (answer(400, xml("AuthorizationHeaderMalformed", "a non-empty Access Key must be provided")), DumontError, "must be provided"),
    (answer(301, xml("PermanentRedirect"), x_amz_bucket_region="eu-west-1"), DumontError, "set AWS_REGION=eu-west-1"),
    (answer(301, xml("PermanentRedirect")), DumontError, "in another region: set AWS_REGION"),
    (answer(400, xml("IllegalLocationConstraintException")), DumontError, "in another region: set AWS_REGION"),
    (answer(301, x_amz_bucket_region="eu-west-1"), DumontError, "set AWS_REGION=eu-west-1"),
    # Azure, Google, and servers that speak JSON
    (
        answer(403, xml("AuthenticationFailed", "Server failed to authenticate the request.\nRequestId:1\nTime:2")),
        DumontError, r"\(AuthenticationFailed: Server failed to authenticate the request\): check AZURE_STORAGE_ACCOUNT_NAME",
    ),
    (answer(404, xml("ContainerNotFound")), SnapshotNotFoundError, "no such bucket"),
    (answer(403, x_ms_error_code="AuthorizationFailure"), DeniedError, r"\(AuthorizationFailure\): these credentials"),
    (answer(401, xml("AuthenticationRequired")), DumontError, "set GOOGLE_APPLICATION_CREDENTIALS"),
    (answer(403, b'{"error": {"code": 403, "message": "no access to bucket"}}'), DeniedError, r"\(no access to bucket\)"),
    (answer(401, b'{"error": "Invalid credentials"}'), DumontError, r"\(Invalid credentials\)"),
    (answer(401, x_error_message="Access to model x is restricted"), DumontError, r"\(Access to model x is restricted\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "error", "said"), MEANINGS, ids=[f"{row[0].status} {row[2][:40]}" for row in MEANINGS]
)
def test_each_status_and_code_has_its_meaning(found: Answer, error: type[Exception], said: str) -> None:
    meant = failure(found, NOW)
    assert type(meant) is error
    assert re.search(said, str(meant)), str(meant)


def test_only_what_another_attempt_may_mend_is_a_failure_of_the_network() -> None:
    """Exit code 5 says "run it again": no final answer may say so."""
    for code in range(300, 600):
        meant = failure(answer(code), NOW)
        assert isinstance(meant, TransientError) or (isinstance(meant, DumontError) and meant.exit_code in (1, 10))


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (NOW - timedelta(hours=2, minutes=3), "clock is 2 h 3 min ahead of the server's: set it"),
        (NOW + timedelta(days=1, minutes=30), "clock is 1 d 30 min behind the server's: set it"),
        (NOW - timedelta(minutes=4), "check this machine's clock"),
    ],
)
def test_a_wrong_clock_is_named_with_its_difference(server: datetime, said: str) -> None:
    date = server.strftime("%a, %d %b %Y %H:%M:%S GMT")
    for code in (
        ("RequestTimeTooSkewed",)
        if "check" in said
        else ("RequestTimeTooSkewed", "AccessDenied", "SignatureDoesNotMatch")
    ):
        assert said in str(failure(answer(403, xml(code, "Request has expired"), Date=date), NOW))
    assert "clock" not in str(failure(answer(404, Date=date), NOW))


def test_a_date_that_is_none_says_nothing() -> None:
    assert "clock" not in str(failure(answer(403, Date="yesterday"), NOW))


# --- hostile answers --------------------------------------------------------------------------------------------------

HOSTILE = [
    b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Error><Code>&b;</Code><Message>&b;</Message></Error>',
    b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><Error><Code>A</Code><Message>&f;</Message></Error>',
    b"<Error><Code>" + b"A" * 4000 + b"</Code>",
    b"<Error><Message>" + b"long " * 1000,
    b"<Error><Code>\x1b[31mred\x07</Code><Message>\xff\xfe\x00\x1b]0;x\x07</Message></Error>",
    b"<Error><Code>A\nB</Code><Message>\r\n\xe2\x80\xa8x</Message></Error>",
    b"<Error></Code><Code></Message><Message></Error>",
    b"{" * 4096,
    b'{"error": ' * 400,
    b'{"error": {"message": {"message": "deep"}}}',
    b'{"error": ["list"]}',
    bytes(4096),
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_body_is_one_bounded_line(body: bytes) -> None:
    for code in (400, 403, 404, 503, 301):
        said = str(failure(answer(code, body), NOW))
        assert said.isprintable()
        assert len(said) < 700
        assert "root:" not in said and "aaaaaaaa" not in said


def test_addresses_in_a_message_lose_their_secrets() -> None:
    body = xml("Denied", "cannot fetch https://me:secret@host/x?X-Amz-Signature=secret now")
    said = str(failure(answer(403, body), NOW))
    assert "secret" not in said
    assert "https://host/x?… now" in said


# --- a whole file for a range -----------------------------------------------------------------------------------------

WHOLE: list[tuple[str, Answer, type[DumontError], str]] = [
    ("a snapshot", answer(200, MAGIC + bytes(100)), UnsupportedError, "whole files only"),
    ("a snapshot said to be a page", answer(200, MAGIC, Content_Type="text/html"), UnsupportedError, "whole files only"),
    ("a web page", answer(200, b"\n <!DOCTYPE html><title>Sign in</title>"), DumontError, "this is a web page, no snapshot"),
    ("a page by its type", answer(200, b"Sign in", Content_Type="text/html; charset=utf-8"), DumontError, "this is a web page"),
    ("a page with a BOM", answer(200, b"\xef\xbb\xbf<HTML>"), DumontError, "this is a web page"),
    ("JSON", answer(200, b'{"error": "log in"}'), DumontError, r"this is a JSON document, no snapshot \(log in\)"),
    ("XML", answer(200, xml("AccessDenied")), DumontError, r"this is an XML document, no snapshot \(AccessDenied"),
    ("something", answer(200, b"\x1f\x8b", Content_Type="application/gzip"), DumontError, "no snapshot.*application/gzip"),
    ("something without a type", answer(200, b"\x1f\x8b"), DumontError, "this is no snapshot"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "found", "error", "said"), WHOLE, ids=[row[0] for row in WHOLE])
def test_a_whole_file_is_called_what_it_is(name: str, found: Answer, error: type[DumontError], said: str) -> None:
    meant = meaning_of_a_whole_file(found)
    assert type(meant) is error
    with pytest.raises(error, match=said):
        raise meant


PAGE = b"<!DOCTYPE html><html><title>Sign in to your network</title></html>"


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (status(200, PAGE, Content_Type="text/html"), 1, "this is a web page, no snapshot"),
        (status(200, b'{"error": "x"}', Content_Type="application/json"), 1, "this is a JSON document, no snapshot"),
        (status(200), 4, ".dumont file"),
        (whole_file, 8, "whole files only"),
        (replaced_head(), 4, ".dumont file"),
        (status(403, xml("AccessDenied", "Access Denied")), 1, "(AccessDenied: Access Denied)"),
        (status(404, xml("NoSuchBucket")), 10, "no such bucket"),
    ],
    ids=["a web page", "JSON", "nothing", "a snapshot", "a range of something else", "403", "404"],
)
def test_the_command_line_says_so_with_the_right_code(
    fault: Fault, code: int, said: str, fault_server: FaultServer
) -> None:
    fault_server.data = (MAGIC if code == 8 else b"") + bytes(10_000)
    fault_server.script = lambda request: fault
    ran = cli("info", fault_server.url)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.startswith("dumont-gpu: ") and len(ran.stderr.splitlines()) == 1


def test_a_login_page_in_the_middle_is_not_called_another_snapshot(fault_server: FaultServer) -> None:
    """A whole file in the middle otherwise means that the snapshot changed."""
    fault_server.data = bytes(100_000)

    source = open_source(fault_server.url, AT_ONCE)
    faults: list[tuple[Fault, type[DumontError]]] = [(status(200, PAGE), DumontError), (whole_file, ChangedError)]
    for fault, error in faults:
        fault_server.script = lambda request, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(error) as caught:
            source.read_into(50_000, memoryview(bytearray(1000)))
        assert type(caught.value) is error
    source.close()


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (
            status(400, xml("AuthorizationHeaderMalformed", "the region is wrong", "<Region>eu-west-3</Region>")),
            1,
            "set AWS_REGION=eu-west-3",
        ),
        (status(301, xml("PermanentRedirect"), x_amz_bucket_region="eu-west-3"), 1, "set AWS_REGION=eu-west-3"),
        (status(403, xml("RequestTimeTooSkewed")), 1, "check this machine's clock"),
        (status(403, xml("InvalidAccessKeyId")), 1, "check the access key"),
        (status(404, xml("NoSuchBucket")), 10, "no such bucket"),
    ],
    ids=["a region", "a redirect to a region", "the clock", "a key", "a bucket"],
)
def test_packing_to_s3_says_what_the_server_says(
    fault: Fault, code: int, said: str, source: Path, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="obstore, the extra s3, is not installed")
    fault_server.script = lambda request: fault
    for name, value in s3_environment(fault_server.server_address[1]).items():
        monkeypatch.setenv(name, value)
    ran = cli("pack", source, "-o", "s3://bucket/x")
    assert ran.returncode == code
    assert ran.stderr.startswith("dumont-gpu: s3://bucket/x: ")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
