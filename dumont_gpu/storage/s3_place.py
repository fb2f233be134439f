"""The object that a publish to S3 may replace: the rule of `outputs`, for a key."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from dumont_gpu.disk.outputs import HEAD_SIZE, in_the_way, is_expendable
from dumont_gpu.errors import SnapshotNotFoundError, UnsupportedError, UsageError
from dumont_gpu.progress import Notice
from dumont_gpu.storage.answers import NO_BUCKET, DeniedError
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.object_store import ObjectSigner
from dumont_gpu.storage.proxies import naming
from dumont_gpu.storage.s3_requests import S3Requests
from dumont_gpu.storage.tls import tls_context


def signer_for(location: str) -> ObjectSigner:
    """Returns the signer of a publish to s3://bucket/key.

    Raises:
        UsageError: the location names no object.
        UnsupportedError: the place cannot be written to, or a package is missing.
    """
    signer = ObjectSigner(location)
    if signer.scheme != "s3":
        raise UnsupportedError(f"{location}: snapshots can be published to s3:// only; pack to a file and copy it")
    if os.environ.get("AWS_SERVER_SIDE_ENCRYPTION"):  # needs signed headers: obstore signs none
        raise UnsupportedError(f"{location}: AWS_SERVER_SIDE_ENCRYPTION is not supported: set it for the bucket")
    return signer


def check_key(location: str, options: NetworkOptions, *, force: bool) -> None:
    """Checks with one request whether a snapshot may be written at a key, without writing anything.

    Raises:
        As `S3Sink`.
    """
    signer = signer_for(location)
    if force:
        return
    requests = S3Requests(signer, options, options.patience(location), tls_context(location), threading.Event())
    try:
        with naming_key(location):
            for note in check_object(requests):
                options.notice(Notice(location, note))
    finally:
        requests.close()


def check_object(requests: S3Requests) -> tuple[str, ...]:
    """Looks at the object at the key, with one request; returns notes for the user. The errors do not name the key.

    Raises:
        UsageError: the object is not replaced unasked.
        SnapshotNotFoundError: there is no such bucket.
        NetworkError, DumontError: the server does not answer, or not as it must.
    """
    try:
        head = requests.first_bytes(HEAD_SIZE)
    except SnapshotNotFoundError as error:
        if str(error) == NO_BUCKET:
            raise
        return ()
    except DeniedError as error:  # credentials that may write need not be allowed to read
        return (f"what is at the key is replaced, whatever it is, as it could not be looked at: {error}",)
    if not is_expendable(head):
        raise UsageError(in_the_way())
    return ()


@contextlib.contextmanager
def naming_key(location: str) -> Iterator[None]:
    """Puts the address before the message of an error; a publish can miss only a bucket."""
    with naming(location):
        try:
            yield
        except SnapshotNotFoundError:
            raise SnapshotNotFoundError(NO_BUCKET) from None
