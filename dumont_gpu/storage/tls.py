"""The authorities that vouch for a server: the system's, or those that a variable names.

The first of these variables that is set decides, as in the tools that the variables come from:

AWS_CA_BUNDLE                   for s3:// only
REQUESTS_CA_BUNDLE              a file, or a directory whose files are named by their hash
CURL_CA_BUNDLE                  likewise
SSL_CERT_FILE, SSL_CERT_DIR     each replaces the system's file or directories
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.sizes import one_line

TlsContext = Callable[[], ssl.SSLContext]

AUTHORITIES: Final = "if it is right, name its authority's file in SSL_CERT_FILE"
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")  # how OpenSSL finds a certificate in a directory


def tls_context(location: str = "") -> TlsContext:
    """Returns the context that the connections to one server share: loaded once, in 20 ms, and only for https.

    Args:
        location: of the snapshot; s3:// has a variable of its own.
    """
    return functools.cache(lambda: _context(location, os.environ))


def certificate_bundle(location: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Returns the variable that names a bundle for these addresses, and the bundle's path; not of `SSL_CERT_*`.

    Raises:
        UsageError: the path does not exist, or holds no certificate.
    """
    names = ("AWS_CA_BUNDLE", *_BUNDLES) if location.lower().startswith("s3:") else _BUNDLES
    for name in names:
        if environment.get(name):
            _check(name, environment[name])
            return name, environment[name]
    return "", ""


def _context(location: str, environment: Mapping[str, str]) -> ssl.SSLContext:
    _, path = certificate_bundle(location, environment)
    if path:
        named = Path(path)
        if named.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    if file := environment.get("SSL_CERT_FILE"):
        _check("SSL_CERT_FILE", file)
    for directory in environment.get("SSL_CERT_DIR", "").split(os.pathsep):
        if directory:
            _check("SSL_CERT_DIR", directory)
    return ssl.create_default_context()  # OpenSSL itself reads these two


def _check(name: str, path: str) -> None:
    """Raises UsageError for a wrong path: a typo must not look like a server with a bad certificate."""
    shown, place = f"{name}={one_line(path)}", Path(path)
    try:
        if place.is_dir():
            if not any(_HASHED.fullmatch(entry) for entry in os.listdir(place)):
                raise UsageError(f"{shown}: the directory holds no certificate under its hash (see `openssl rehash`)")
        else:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=place)
    except ssl.SSLError:
        raise UsageError(f"{shown}: the file holds no certificate in PEM") from None
    except OSError as error:
        raise UsageError(f"{shown}: {error.strerror}") from None
