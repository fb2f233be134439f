"""Where bytes come from and go to: one module per kind of place, and the table of schemes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from dumont_gpu.errors import UnsupportedError
from dumont_gpu.storage.base import Sink, Source
from dumont_gpu.storage.local import LocalSink, LocalSource
from dumont_gpu.storage.memory import MemorySink, MemorySource

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
SOURCES: Final[dict[str, Callable[[str], Source]]] = {"": LocalSource}
SINKS: Final[dict[str, Callable[[str], Sink]]] = {"": LocalSink}


def open_source(location: str) -> Source:
    """Opens a snapshot for reading.

    Raises:
        SnapshotNotFoundError: nothing is there.
        UnsupportedError: a scheme this version does not have.
    """
    return SOURCES[_scheme(location, SOURCES)](location)


def open_sink(location: str) -> Sink:
    """Opens a place for a new snapshot.

    Raises:
        UnsupportedError: a scheme this version does not have.
    """
    return SINKS[_scheme(location, SINKS)](location)


def _scheme(location: str, table: dict[str, Callable[[str], Source]] | dict[str, Callable[[str], Sink]]) -> str:
    match = _SCHEME.match(location)
    scheme = match[1].lower() if match else ""
    if scheme not in table:
        raise UnsupportedError(f"{scheme}:// addresses are not supported by this version: copy the snapshot to a disk")
    return scheme


__all__ = ["LocalSink", "LocalSource", "MemorySink", "MemorySource", "Sink", "Source", "open_sink", "open_source"]
