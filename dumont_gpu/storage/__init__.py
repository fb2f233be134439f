"""Where bytes come from and go to: one module per kind of place, and the table of schemes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dumont_gpu.disk.outputs import Output, check_output
from dumont_gpu.errors import DumontError, UnsupportedError
from dumont_gpu.storage.base import Sink, Source
from dumont_gpu.storage.local import LocalSink, LocalSource
from dumont_gpu.storage.memory import MemorySink, MemorySource
from dumont_gpu.storage.network import NetworkOptions

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def _local_source(location: str, _: NetworkOptions) -> Source:
    return LocalSource(location)


def _http_source(location: str, options: NetworkOptions) -> Source:
    from dumont_gpu.storage.http import open_http

    return open_http(location, options)


def _object_source(location: str, options: NetworkOptions) -> Source:
    from dumont_gpu.storage.object_store import open_object

    return open_object(location, options)


def _local_sink(location: str, _: NetworkOptions, force: bool) -> Sink:
    return LocalSink(location, force=force)


def _s3_sink(location: str, options: NetworkOptions, force: bool) -> Sink:
    from dumont_gpu.storage.s3_sink import S3Sink

    return S3Sink(location, options, force=force)


SOURCES: Final[dict[str, Callable[[str, NetworkOptions], Source]]] = {
    "": _local_source,
    "http": _http_source,
    "https": _http_source,
    "s3": _object_source,
    "gs": _object_source,
    "az": _object_source,
}
SINKS: Final[dict[str, Callable[[str, NetworkOptions, bool], Sink]]] = {"": _local_sink, "s3": _s3_sink}


def open_source(location: str, options: NetworkOptions | None = None) -> Source:
    """Opens a snapshot for reading.

    Raises:
        SnapshotNotFoundError: nothing is there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: a scheme this version does not have, or a package it needs for it is not installed.
    """
    scheme = _scheme(location)
    if scheme not in SOURCES:
        raise UnsupportedError(
            f"{scheme}:// addresses are not supported: use a path, http(s)://, s3://, gs:// or az://"
        )
    return SOURCES[scheme](location, options or NetworkOptions())


def open_sink(location: str, options: NetworkOptions | None = None, *, force: bool = False) -> Sink:
    """Opens a place for a new snapshot; `force`: even where something is in the way that is no snapshot.

    Raises:
        UsageError: nothing may be written there (`dumont_gpu.disk.outputs`).
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: a scheme that this version cannot write to.
    """
    return SINKS[_sink_scheme(location)](location, options or NetworkOptions(), force)


def check_place(
    location: str, sources: Sequence[str], *, force: bool = False, network: NetworkOptions | None = None
) -> Output:
    """Says what a pack of `sources` will replace at `location`, without touching anything there.

    Args:
        network: how to ask a server what is there; None: it is not asked, as `open_sink` will do that.

    Raises:
        UsageError: nothing may be written there, or it is one of the sources.
        DumontError: nothing can be written there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: a scheme that this version cannot write to.
    """
    if _sink_scheme(location):
        if network is not None:
            from dumont_gpu.storage.s3_place import check_key

            check_key(location, network, force=force)
        return Output(Path(location))
    output = check_output(location, force=force, sources=sources)
    if not os.access(output.path.parent, os.W_OK | os.X_OK):
        raise DumontError(f"{location}: cannot be written: its folder is not writable")
    return output


def _sink_scheme(location: str) -> str:
    scheme = _scheme(location)
    if scheme not in SINKS:
        raise UnsupportedError(f"{scheme}:// addresses cannot be written to: name a path or s3://bucket/key")
    return scheme


def _scheme(location: str) -> str:
    match = _SCHEME.match(location)
    return match[1].lower() if match else ""


__all__ = [
    "LocalSink",
    "LocalSource",
    "MemorySink",
    "MemorySource",
    "NetworkOptions",
    "Sink",
    "Source",
    "check_place",
    "open_sink",
    "open_source",
]
