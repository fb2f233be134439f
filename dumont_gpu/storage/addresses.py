"""Addresses of http(s): taken apart, followed through redirects, and shown without their secrets."""

from __future__ import annotations

import base64
import unicodedata
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from dumont_gpu.errors import DumontError, UsageError

_PORTS: Final = {"http": 80, "https": 443}
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
_QUERY_SAFE: Final = _PATH_SAFE + "?"


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object is; `repr` and `shown` hold no secret."""

    scheme: str
    host: str
    port: int
    path: str  # percent-encoded
    query: str  # percent-encoded; in a signed address, the signature
    authorization: str = ""  # the header of that name

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        """The target in the first line of a request."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def default_port(self) -> int:
        return _PORTS[self.scheme]

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == self.default_port else f"{host}:{self.port}"

    @property
    def absolute(self) -> str:
        """The target of a request to a proxy."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """The address for messages and records: no password, and of the query only a mark that there is one."""
        return f"{self.scheme}://{self.authority}{self.path}{'?…' if self.query else ''}"

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse_address(text: str) -> Address:
    """Takes `https://user:password@host:port/path?query` apart.

    Raises:
        UsageError: `text` is no such address; the message does not repeat `text`, which may hold a secret.
    """
    try:
        parts = urlsplit(text)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port
    except (ValueError, UnicodeError):
        raise UsageError("this is no http address that can be read") from None
    if scheme not in _PORTS or not host or not text.isprintable() or " " in host:
        raise UsageError("this is no http address: it needs http:// or https:// and a host")
    authorization = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
    path, query = quote(parts.path or "/", safe=_PATH_SAFE), quote(parts.query, safe=_QUERY_SAFE)
    return Address(scheme, host, _PORTS[scheme] if port is None else port, path, query, authorization)


def key_problem(key: str) -> str:
    """Returns why no address can name this key so that every client and server reads the same key; "" if one can.

    Clients repair such keys silently, each in its own way: another object would be read, or replaced.
    """
    parts = key.split("/")
    if not all(parts):
        return "an empty name between slashes"
    if not {".", ".."}.isdisjoint(parts):
        return "a name that is . or .."
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in key):
        return "a control character, or bytes that are no UTF-8"
    return ""


def redirected(address: Address, location: str) -> Address:
    """Returns where a Location header of the server at `address` leads to, without credentials if to another server.

    Raises:
        DumontError: the redirect leads to no http address, or from https to http, where anybody could listen.
    """
    try:
        found = parse_address(urljoin(address.absolute, location))
    except (UsageError, ValueError):
        raise DumontError("redirects to what is no http address") from None
    if address.scheme == "https" and found.scheme == "http":
        raise DumontError("redirects from https to http; that would give the encryption up")
    if found.origin == address.origin and not found.authorization:
        return replace(found, authorization=address.authorization)
    return found
