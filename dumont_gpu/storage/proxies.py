"""Chooses the proxy for an address: by the variables and rules of curl, and by what other programs add to them.

https_proxy, http_proxy     the proxy for addresses of that scheme; http:// is meant where it has none
all_proxy                   where there is no such variable
no_proxy                    addresses that need none, separated by commas or blanks:
                            `example.com` and `.example.com`  that host, and those below it (`*.example.com`: the same)
                            `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`, `[::1]`   addresses and networks
                            `example.com:8443`                 only that port
                            `*`                                all
The names in capital letters count, too; names in small letters win.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dumont_gpu.errors import DumontError, GaveUpError, NetworkError, UsageError
from dumont_gpu.sizes import one_line
from dumont_gpu.storage.addresses import Address, parse_address
from dumont_gpu.storage.retry import RETRIED_STATUSES, TransientError

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[,\s]+")
_PORT: Final = re.compile(r"(.+?):(\d{1,5})")
_WAY_OUT: Final = "put the server's name into no_proxy"


class ProxySettingError(UsageError):
    """A variable names no usable proxy."""


class ProxyRefusedError(DumontError):
    """The proxy does not pass the request on."""


class ProxyNeverThereError(NetworkError):
    """The proxy could not be reached."""


class ProxyGoneError(GaveUpError):
    """The proxy could not be reached any more."""


# Errors about the proxy: their messages leave the snapshot's address out.
PROXY_ERRORS: Final = (ProxySettingError, ProxyRefusedError, ProxyNeverThereError, ProxyGoneError)


@contextlib.contextmanager
def naming(location: str) -> Iterator[None]:
    """Puts the address before the message of an error, but for a proxy's faults."""
    try:
        yield
    except PROXY_ERRORS:
        raise
    except DumontError as error:
        raise type(error)(f"{location}: {error}") from None


class ProxyFailedError(TransientError):
    """One attempt failed at the proxy; the message is a clause about the proxy."""

    never_there = ProxyNeverThereError
    gone = ProxyGoneError


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it."""

    variable: str
    address: Address

    @property
    def shown(self) -> str:
        return f"the proxy {self.address.scheme}://{self.address.authority} (from {self.variable})"

    @property
    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.address.authorization} if self.address.authorization else {}

    def refusal(self, status: int, reason: str) -> Exception:
        """Returns the error to raise for a proxy that does not pass a request on."""
        said = f"{self.shown} answers {status} {one_line(reason[:60])}".rstrip()
        if status == 407:
            verb = "does not accept the" if self.address.authorization else "wants a"
            return ProxyRefusedError(f"{said}: it {verb} name and password, as in http://NAME:PASSWORD@HOST:PORT")
        return ProxyFailedError(said) if status in RETRIED_STATUSES else ProxyRefusedError(said)


def proxy_for(address: Address, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Returns the proxy through which an address is reached; None: the address is reached directly.

    Raises:
        ProxySettingError: the variable holds no address of a proxy, or a kind of proxy that is not supported.
    """
    environment = os.environ if environment is None else environment
    variable, value = _setting(environment, f"{address.scheme}_proxy", "all_proxy")
    if not value or bypassed(address.host, address.port, _setting(environment, "no_proxy")[1]):
        return None
    found = _SCHEME.match(value)
    scheme = found[1].lower() if found else "http"
    if scheme.startswith("socks"):
        raise ProxySettingError(
            f"{variable} names a {scheme}:// proxy, which is not supported: name an http:// one, or {_WAY_OUT}"
        )
    if scheme not in ("http", "https"):
        raise ProxySettingError(f"{variable} names a {scheme}:// proxy: http:// and https:// are known; or {_WAY_OUT}")
    try:
        return Proxy(variable, parse_address(value if found else f"http://{value}"))
    except UsageError:
        raise ProxySettingError(f"{variable} holds no address of a proxy, such as http://host:3128") from None


def bypassed(host: str, port: int, rules: str) -> bool:
    """Whether `no_proxy` says that a host is reached directly.

    Args:
        host: a name, or an address without brackets.
        rules: the variable's value.
    """
    return any(_matches(host.lower().rstrip("."), port, rule) for rule in _SEPARATORS.split(rules.lower()) if rule)


def _matches(host: str, port: int, rule: str) -> bool:
    if rule == "*":
        return True
    rule, wanted = _without_port(rule)
    if wanted is not None and wanted != port:
        return False
    if (address := _ip_address(host)) is not None:
        with contextlib.suppress(ValueError):
            return address in ipaddress.ip_network(rule.replace("[", "").replace("]", ""), strict=False)
        return False
    name = rule.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _without_port(rule: str) -> tuple[str, int | None]:
    """Splits `host:port`; an IPv6 address has colons of its own unless it stands in brackets."""
    found = _PORT.fullmatch(rule)
    if found is None or (":" in found[1] and not found[1].endswith("]")):
        return rule, None
    return found[1], int(found[2])


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _setting(environment: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Returns the first of the variables that is set, and its value."""
    for name in names:
        for spelling in (name, name.upper()):
            if spelling == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                continue  # under CGI, a client that sends a header `Proxy` sets this variable
            if spelling in environment:
                if value := environment[spelling].strip():
                    return spelling, value
                break  # an empty variable also switches the other spelling off
    return "", ""
