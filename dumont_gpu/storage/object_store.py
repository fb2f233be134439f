"""Objects in S3, Google Cloud Storage and Azure: addresses signed by obstore, which finds the credentials.

obstore signs and this package transfers. Its own reads copy every byte once more and know neither If-Match on a range,
nor where a broken range goes on, nor slow connections; a signed address is plain https, for which all of that is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

from dumont_gpu.errors import DumontError, UnsupportedError, UsageError
from dumont_gpu.sizes import one_line
from dumont_gpu.storage.addresses import Address, key_problem, parse_address
from dumont_gpu.storage.http import HttpSource
from dumont_gpu.storage.network import NetworkOptions

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

Method = Literal["GET", "PUT", "POST", "DELETE"]

_LOCATION: Final = re.compile(r"(s3|gs|az)://([^/]+)/(.+)", re.IGNORECASE | re.DOTALL)
_VALID: Final = timedelta(hours=1)  # every request is signed anew, which takes 10 µs; one request takes less than this
_HINTS: Final = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class ObjectSigner:
    """Signs requests about one object. The errors of its methods do not name it.

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
        try:
            import obstore
        except ImportError:
            raise UnsupportedError(
                f'{location}: {self.scheme}:// addresses need a package: pip install "dumont-gpu[s3]"'
            ) from None
        self._obstore = obstore
        self._public = self.scheme == "s3" and os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
        try:
            self._store = self._explained(self._make_store)
        except DumontError as error:
            raise DumontError(f"{location}: {error}") from None

    @property
    def bucket(self) -> str:
        return self._bucket

    @property
    def key(self) -> str:
        return self._key

    def address(self, method: Method = "GET", query: str = "") -> Address:
        """Returns where to send a request.

        Args:
            method: the request's.
            query: what the address must say beside the signature, percent-encoded; for s3 only.

        Raises:
            DumontError: there are no credentials.
        """
        if query:
            return self._signed(self._explained(lambda: self._store_with(query)), method, "x")
        address = self._signed(self._store, method, self._key)
        if not unquote(address.path).endswith(f"/{self._key}"):  # the client has mended it: that is another object
            raise UsageError("this key cannot be signed as it is; choose another one")
        return Address(address.scheme, address.host, address.port, address.path, "") if self._public else address

    def bucket_address(self, query: str) -> Address:
        """Returns where to GET something about the bucket; `query` as for `address`, for s3 only."""
        return self._signed(self._explained(lambda: self._store_with(query, bucket=True)), "GET", "x")

    def _signed(self, store: S3Store | GCSStore | AzureStore, method: Method, path: str) -> Address:
        return parse_address(self._explained(lambda: self._obstore.sign(store, method, path, _VALID)))

    def _make_store(self, **settings: Any) -> S3Store | GCSStore | AzureStore:
        from obstore.store import AzureStore, GCSStore, S3Store

        # For the credentials that cloud machines hand out: where there are none, say so soon.
        client: Any = {"connect_timeout": timedelta(seconds=2), "timeout": timedelta(seconds=10)}
        patient: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
        if self.scheme == "s3":
            if self._public:  # what is signed by nobody is cut off again
                settings |= {"access_key_id": "nobody", "secret_access_key": "nobody"}
            return S3Store(self._bucket, client_options=client, retry_config=patient, **settings)
        if self.scheme == "gs":
            return GCSStore(self._bucket, client_options=client, retry_config=patient)
        return AzureStore(self._bucket, client_options=client, retry_config=patient)

    def _store_with(self, query: str, bucket: bool = False) -> S3Store | GCSStore | AzureStore:
        """A store that signs addresses of the object with a query of ours.

        obstore signs a path below an endpoint, and whatever query the endpoint has. The path lands in a parameter of
        its own, last: S3 ignores those that begin with "x-".
        """
        base = self._signed(self._store, "GET", self._key)
        path = "/".join(base.path.split("/")[: -1 - self._key.count("/")]) or "/" if bucket else base.path
        endpoint = f"{base.scheme}://{base.authority}{path}?{query}&x-path="
        # Both names: AWS_ENDPOINT_URL_S3 in the environment would win over the first.
        return self._make_store(endpoint=endpoint, aws_endpoint_url_s3=endpoint, virtual_hosted_style_request=True)

    def _explained(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except DumontError:
            raise
        except Exception as error:  # obstore's share no useful base: BaseError, ValueError and others
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise DumontError(f"cannot be signed: {_HINTS[self.scheme]} ({first})") from None


def open_object(location: str, options: NetworkOptions) -> HttpSource:
    """Opens a snapshot at s3://bucket/key, gs://bucket/key or az://container/key."""
    signer = ObjectSigner(location)
    return HttpSource(location, signer.address, options)
