"""Objects in S3, Google Cloud Storage and Azure: addresses signed by obstore.

obstore also finds the credentials for Google and Azure; the credentials for S3 come from `credentials`.

obstore signs and this package transfers. The reads of obstore copy every byte once more. They have no If-Match on a
range, cannot continue a broken range, and do not notice slow connections. A signed address is plain https, and `http`
does all of that.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import unquote

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.sizes import one_line
from dumont_gpu.storage import needed_package
from dumont_gpu.storage.addresses import Address, key_problem, parse_address
from dumont_gpu.storage.base import Source
from dumont_gpu.storage.credentials import Access, Account
from dumont_gpu.storage.http import HttpSource
from dumont_gpu.storage.network import NetworkOptions
from dumont_gpu.storage.tls import certificate_bundle

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    Store = S3Store | GCSStore | AzureStore

T = TypeVar("T")
Method = Literal["GET", "PUT", "POST", "DELETE"]

_LOCATION: Final = re.compile(r"(s3|gs|az)://([^/]+)/(.+)", re.IGNORECASE | re.DOTALL)
_VALID: Final = timedelta(hours=1)  # each request has a new signature, which takes 10 µs, and lasts less than this
_NOBODY: Final = {
    "access_key_id": "nobody",
    "secret_access_key": "nobody",
}  # the signature of these keys is cut off again
_LONGEST_REASON: Final = 200  # characters of obstore's message
_STORE: Final = re.compile(r"Generic \w+ error: ")
# At last, where no variable names an account, obstore asks the metadata service of the machine.
_NOTHING_SET: Final = re.compile(r"169\.254\.169\.254|metadata\.google|must be specified")
_HINTS: Final = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class ObjectSigner:
    """Signs requests about one object. The errors of its methods do not name the object.

    Raises:
        UnsupportedError: obstore is not installed.
        UsageError: the location names no object.
    """

    def __init__(self, location: str) -> None:
        found = _LOCATION.fullmatch(location)
        if found is None or found[3].endswith("/"):
            raise UsageError(f"{one_line(location)}: name a bucket and an object, as in s3://bucket/workspace.dumont")
        if problem := key_problem(found[3]):
            raise UsageError(f"{one_line(location)}: the key holds {problem}; choose another one")
        self.scheme, self._bucket, self._key = found[1].lower(), found[2], found[3]
        self._obstore = needed_package("obstore", location)
        self._public = self.scheme == "s3" and os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
        try:
            self._account = Account(self._public) if self.scheme == "s3" else None
            self._access = Access()
            self._store: Store | None = None
            self._lock = threading.Lock()
            self._current_store()
        except DumontError as error:
            raise type(error)(f"{location}: {error}") from None

    @property
    def bucket(self) -> str:
        return self._bucket

    @property
    def key(self) -> str:
        return self._key

    def address(self, method: Method = "GET", query: str = "") -> Address:
        """Returns the signed address of a request.

        Args:
            method: of the request.
            query: stands in the address beside the signature, percent-encoded; for s3 only.

        Raises:
            DumontError: there are no credentials any more.
        """
        store = self._current_store()
        if query:
            return self._signed(self._explained(lambda: self._store_with(store, query)), method, "x")
        address = self._signed(store, method, self._key)
        if not unquote(address.path).endswith(f"/{self._key}"):  # obstore has changed the key: that is another object
            raise UsageError("this key cannot be signed as it is; choose another one")
        return Address(address.scheme, address.host, address.port, address.path, "") if self._public else address

    def bucket_address(self, query: str) -> Address:
        """Returns the signed address of a GET about the bucket; `query` as for `address`, for s3 only."""
        store = self._current_store()
        return self._signed(self._explained(lambda: self._store_with(store, query, bucket=True)), "GET", "x")

    def renew(self) -> bool:
        """Looks for other keys, as a server calls the present keys expired; returns whether there are some."""
        return self._account.renew() if self._account else False

    def _current_store(self) -> Store:
        """The store that signs with the present keys."""
        access = self._account.access() if self._account else Access()
        with self._lock:
            if access != self._access or self._store is None:
                self._access = access
                self._store = self._explained(self._make_store)
            return self._store

    def _signed(self, store: Store, method: Method, path: str) -> Address:
        return parse_address(self._explained(lambda: self._obstore.sign(store, method, path, _VALID)))

    def _make_store(self, **settings: Any) -> Store:
        from obstore.store import AzureStore, GCSStore, S3Store

        # For the credentials that cloud machines hand out: a machine without any should fail soon.
        client: Any = {"connect_timeout": timedelta(seconds=2), "timeout": timedelta(seconds=10), **self._authorities()}
        patient: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
        if self.scheme == "s3":
            settings = self._access.store_settings | (_NOBODY if self._public else {}) | settings
            return S3Store(self._bucket, client_options=client, retry_config=patient, **settings)
        if self.scheme == "gs":
            return GCSStore(self._bucket, client_options=client, retry_config=patient)
        return AzureStore(self._bucket, client_options=client, retry_config=patient)

    def _authorities(self) -> dict[str, bytes]:
        """The authorities that obstore trusts beside the system's where it must ask for credentials.

        obstore reads the usual variables for proxies itself.
        """
        keys = self._access.key or os.environ.get("AWS_ACCESS_KEY_ID", "").strip() or self._public
        return {} if self.scheme == "s3" and keys else self._bundle

    @functools.cached_property
    def _bundle(self) -> dict[str, bytes]:
        """The authorities that a variable names: read once, as reading takes 60 ms, and every request makes a store."""
        _, path = certificate_bundle(f"{self.scheme}:", os.environ)
        return {"root_certificate": Path(path).read_bytes()} if path and Path(path).is_file() else {}

    def _store_with(self, store: Store, query: str, bucket: bool = False) -> Store:
        """Makes a store that signs addresses of the object with a query of our choice.

        obstore signs a path below an endpoint, and any query that the endpoint has. The path lands in a parameter of
        its own, last: S3 ignores parameters that begin with "x-".
        """
        base = self._signed(store, "GET", self._key)
        path = "/".join(base.path.split("/")[: -1 - self._key.count("/")]) or "/" if bucket else base.path
        endpoint = f"{base.scheme}://{base.authority}{path}?{query}&x-path="
        # Both names: AWS_ENDPOINT_URL_S3 in the environment would win over the first.
        return self._make_store(endpoint=endpoint, aws_endpoint_url_s3=endpoint, virtual_hosted_style_request=True)

    def _explained(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except DumontError:
            raise
        except Exception as error:  # the errors of obstore share no useful base: BaseError, ValueError and others
            said = (str(error).splitlines() or [type(error).__name__])[0]
            reason = one_line(_STORE.sub("", said, count=1)[:_LONGEST_REASON])
            if _NOTHING_SET.search(said):
                raise DumontError(f"no credentials: {_HINTS[self.scheme]} ({reason})") from None
            raise DumontError(f"cannot be signed: {reason}") from None


def open_source(location: str, options: NetworkOptions) -> Source:
    """Opens a snapshot at s3://bucket/key, gs://bucket/key or az://container/key."""
    signer = ObjectSigner(location)
    return HttpSource(location, signer.address, options, signer.renew)
