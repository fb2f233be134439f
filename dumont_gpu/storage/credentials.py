"""The account and the endpoint for S3: from the environment, profiles and roles, read as every S3 tool reads them.

Variables go first: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_REGION (or AWS_DEFAULT_REGION),
AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL). Then botocore reads ~/.aws/credentials and ~/.aws/config: the profile that
AWS_PROFILE names, with its keys, region, `endpoint_url` and `services`, a role to assume, a web identity, single
sign-on or a `credential_process`. Credentials that containers and machines in the cloud are given come last.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dumont_gpu.errors import DumontError, UnsupportedError, UsageError
from dumont_gpu.sizes import one_line
from dumont_gpu.storage.tls import certificate_bundle

if TYPE_CHECKING:
    from botocore.session import Session

_PROFILE: Final = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # botocore's order
_REGION: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINT: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_FILES: Final = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
_RENEWAL_INTERVAL: Final = 60.0  # seconds
_LONGEST_REASON: Final = 300  # characters of botocore's message
_INSTALL: Final = 'needs a package: pip install "dumont-gpu[s3]"'
_LOOKED_AT: Final = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {files} ({profile}), AWS_WEB_IDENTITY_TOKEN_FILE, "
    "and what this container or machine is given; AWS_SKIP_SIGNATURE=true reads a public bucket"
)


@dataclass(frozen=True, slots=True)
class Access:
    """Keys that requests are signed with, and the place they are signed for; empty: obstore's own choice."""

    region: str = ""
    endpoint: str = ""
    key: str = ""
    secret: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Access({self.region!r}, {self.endpoint!r})"

    @property
    def store_settings(self) -> dict[str, Any]:
        """The access as arguments of obstore's S3Store."""
        settings: dict[str, Any] = {}
        if self.region:
            settings["region"] = self.region
        if self.endpoint:  # both names: a variable of the second name would win over the first
            settings |= {"endpoint": self.endpoint, "aws_endpoint_url_s3": self.endpoint}
        if self.key:  # as a provider: or obstore would add the environment's session token to a profile's keys
            found = {"access_key_id": self.key, "secret_access_key": self.secret, "token": self.token or None}
            settings["credential_provider"] = lambda: found | {"expires_at": None}
        return settings


class Account:
    """The account that signs; `access` is asked before each request, as keys expire and are replaced.

    Args:
        public: requests are not signed; region and endpoint are looked for all the same.
        clock: seconds, as of `time.monotonic`.

    Raises:
        UsageError: an endpoint is no address, a profile does not exist, or a file cannot be read.
        UnsupportedError: a profile is named, and botocore is not installed.
        DumontError: there are no credentials, or the service that should hand them out does not.
    """

    def __init__(self, public: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._environment = os.environ
        self._public = public
        self._lock = threading.Lock()
        self._clock, self._renewed = clock, -_RENEWAL_INTERVAL
        self._files = [Path(self._variable(name) or path).expanduser() for name, path in _FILES.items()]
        self._stamps = self._stamped()
        self._session = self._opened()
        self._place = self._found_place()
        self._credentials = self._found_credentials()

    def access(self) -> Access:
        """Returns the access for the next request. Keys that expire soon are renewed first, which may take seconds.

        Raises:
            DumontError: the keys could not be renewed.
        """
        region, endpoint = self._place
        with self._lock:
            self._look_again()
            if self._credentials is None:
                return Access(region, endpoint)
            with _explained():
                keys = self._credentials.get_frozen_credentials()
            return Access(region, endpoint, keys.access_key, keys.secret_key, keys.token or "")

    def renew(self) -> bool:
        """Looks for other keys, as a server calls the present keys expired; returns whether there are some.

        Roles and sign-on say how long their keys are valid; a `credential_process` need not.
        """
        with self._lock:
            if self._session is None or self._credentials is None:
                return False
            if self._clock() - self._renewed < _RENEWAL_INTERVAL:  # other connections have sent the old keys too
                return True
            before = self._session, self._credentials
            try:
                old = self._credentials.get_frozen_credentials()
                self._session = self._opened()
                self._credentials = self._found_credentials()
                if self._credentials.get_frozen_credentials() != old:
                    self._renewed = self._clock()
                    return True
            except Exception:  # the server's own words say more than the reason why there are no other keys
                self._session, self._credentials = before
            return False

    # --- finding --------------------------------------------------------------------------------------------

    def _opened(self) -> Session | None:
        """A session of botocore; None if the variables say everything, or obstore must find the rest."""
        keys = self._public or (self._variable("AWS_ACCESS_KEY_ID") and self._variable("AWS_SECRET_ACCESS_KEY"))
        profile = self._variable(*_PROFILE)
        files = [path for path, stamp in zip(self._files, self._stamps, strict=True) if stamp is not None]
        if keys and not profile and not files:
            return None
        try:
            import botocore.session
        except ImportError:
            if profile:
                raise UnsupportedError(f"AWS_PROFILE={one_line(profile)}: to read profiles {_INSTALL}") from None
            if files and not keys:
                raise UnsupportedError(f"{one_line(str(files[0]))}: to read it {_INSTALL}") from None
            return None
        session = botocore.session.Session()
        with _explained():
            session.get_scoped_config()  # reads the files, and fails if the profile is missing
        if region := self._variable(*_REGION):
            session.set_config_variable("region", region)
        if bundle := certificate_bundle("s3:", self._environment)[1]:
            session.set_config_variable("ca_bundle", bundle)
        return session

    def _found_place(self) -> tuple[str, str]:
        """Region and endpoint."""
        region = self._variable(*_REGION)
        name = next((name for name in _ENDPOINT if self._variable(name)), "")
        endpoint = self._variable(name) if name else ""
        if self._session is not None:
            region = region or self._session.get_config_variable("region") or ""
            if not endpoint and not self._session.get_config_variable("ignore_configured_endpoint_urls"):
                name, endpoint = f"{one_line(str(self._files[0]))}: endpoint_url", self._configured_endpoint()
        if endpoint:
            _check_endpoint(name, endpoint)
        return region, endpoint

    def _configured_endpoint(self) -> str:
        assert self._session is not None
        profile, whole = self._session.get_scoped_config(), self._session.full_config
        services = whole.get("services", {}).get(profile.get("services", ""), {})
        service = services.get("s3", {})
        own = service.get("endpoint_url", "") if isinstance(service, dict) else ""
        return str(own or profile.get("endpoint_url", ""))

    def _found_credentials(self) -> Any:
        """Credentials of botocore, which renew themselves; None: nothing is signed, or obstore finds its own."""
        if self._public or self._session is None:
            return None
        with _explained():
            found = self._session.get_credentials()
            if found is not None:
                found.get_frozen_credentials()  # a role is assumed here, and not before
        if found is None:
            profile = self._variable(*_PROFILE)
            files = " and ".join(one_line(str(path)) for path in reversed(self._files))
            places = _LOOKED_AT.format(
                files=files, profile=f"profile {one_line(profile)}" if profile else "no AWS_PROFILE"
            )
            raise DumontError(f"no credentials for S3; looked at {places}")
        return found

    # --- changes ---------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Reads the files again after somebody has written new keys into them."""
        stamps = self._stamped()
        if self._session is None or stamps == self._stamps:
            return
        self._stamps = stamps
        before = self._session, self._credentials
        try:
            self._session = self._opened()
            self._credentials = self._found_credentials()
        except DumontError:  # half written, perhaps: the former keys are good until a server says otherwise
            self._session, self._credentials = before

    def _stamped(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in self._files:
            try:
                found = path.stat()
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                stamps.append(None)
        return stamps

    def _variable(self, *names: str) -> str:
        return next((value for name in names if (value := self._environment.get(name, "").strip())), "")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns the errors of botocore into one line."""
    import botocore.exceptions as raised

    settings = (raised.ProfileNotFound, raised.ConfigNotFound, raised.ConfigParseError, raised.InvalidConfigError)
    try:
        yield
    except settings as error:
        raise UsageError(f"the settings for S3 cannot be used: {_reason(error)}") from None
    except Exception as error:  # botocore's two bases, and the error of a credential_process that prints no JSON
        raise DumontError(f"no credentials for S3: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    said = one_line(" ".join(str(error).split()) or type(error).__name__)
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]}…"


def _check_endpoint(name: str, endpoint: str) -> None:
    """Raises UsageError for an endpoint that cannot be right; obstore would sign for it all the same."""
    shown = f"{name}={one_line(endpoint.rpartition('@')[2])}"
    try:
        parts = urlsplit(endpoint)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise UsageError(
            f"{shown} is no endpoint: it needs http:// or https:// and a host, as in http://localhost:9000"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            f"{name} may hold no password and no query: keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
