"""The table of schemes: which module reads a snapshot at a location, and which module writes a snapshot there.

Importing this package loads no other module of it: the command line takes its help texts from the table.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dumont_gpu.errors import UnsupportedError
from dumont_gpu.shortages import shortage

if TYPE_CHECKING:
    from dumont_gpu.disk.outputs import Output
    from dumont_gpu.storage.base import Sink, Source
    from dumont_gpu.storage.local import LocalSink, LocalSource
    from dumont_gpu.storage.memory import MemorySink, MemorySource
    from dumont_gpu.storage.network import NetworkOptions


class Scheme(NamedTuple):
    """One kind of location.

    `source` names a module of this folder, with

        open_source(location: str, options: NetworkOptions) -> Source

    and `sink` names a module with

        open_sink(location: str, options: NetworkOptions, *, force: bool) -> Sink
        check_place(location: str, sources: Sequence[str], options: NetworkOptions | None, *, force: bool) -> Output

    which `dumont_gpu.storage.open_source`, `open_sink` and `check_place` describe.
    """

    names: tuple[str, ...]  # the part before "://", in lower case; "" is a path
    shown: str  # in messages and help texts
    source: str
    sink: str = ""  # empty: snapshots are only read there
    example: str = ""  # a location that a snapshot may be written to, as messages and help texts show it
    extra: str = ""  # of pyproject.toml, with the packages that the modules need


SCHEMES: Final = (
    Scheme(("",), "a path", source="local", sink="local", example="a path"),
    Scheme(("http", "https"), "http(s)://", source="http"),
    Scheme(("s3",), "s3://", source="object_store", sink="s3_sink", example="s3://bucket/key", extra="s3"),
    Scheme(("gs",), "gs://", source="object_store", extra="s3"),
    Scheme(("az",), "az://", source="object_store", extra="s3"),
)

_SCHEME: Final = r"([a-z][a-z0-9+.-]*)://"  # compiled at the first use: that takes a third of a millisecond
_BY_NAME: Final = {name: scheme for scheme in SCHEMES for name in scheme.names}
_ADDRESSES: Final = [scheme.shown for scheme in SCHEMES[1:]]
_EXAMPLES: Final = [scheme.example for scheme in SCHEMES if scheme.sink]


def _listed(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


# For help texts: where a snapshot is read from, and where a snapshot is written to.
READ_FROM: Final = f"{SCHEMES[0].shown}, - for standard input, or an {_listed(_ADDRESSES)} address"
WRITTEN_TO: Final = f"{_EXAMPLES[0]}, - for standard output, or {_listed(_EXAMPLES[1:])}"

STANDARD_STREAM: Final = "-"  # the location that stands for standard input, or for standard output


def open_source(location: str, options: NetworkOptions | None = None, room: str | None = None) -> Source:
    """Opens a snapshot for reading.

    Args:
        location: a path or an address; "-" is standard input, which is read to its end into an unnamed file.
        options: how to use the network.
        room: a path on the disk that should hold what comes from standard input; None: that of temporary files.

    Raises:
        DamagedError: what comes from standard input is no snapshot.
        SnapshotNotFoundError: nothing is there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: this version does not know the scheme, or a package that the scheme needs is not installed.
    """
    if location == STANDARD_STREAM:
        spooled: Source = _module("standard_input").open_source(room)
        return spooled
    name = scheme_name(location)
    if name not in _BY_NAME:
        raise UnsupportedError(
            f"{name}:// addresses are not supported: use {_listed([scheme.shown for scheme in SCHEMES])}"
        )
    source: Source = _module(_BY_NAME[name].source).open_source(location, options or _network_options())
    return source


def open_sink(location: str, options: NetworkOptions | None = None, *, force: bool = False) -> Sink:
    """Opens a place for a new snapshot; `force`: even where something is in the way that is no snapshot.

    "-" is standard output: the snapshot is a stream, which nothing else may be written into.

    Raises:
        UsageError: nothing may be written there (`dumont_gpu.disk.outputs`).
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: this version cannot write to the scheme, or a package that it needs is not installed.
    """
    sink: Sink = _sink_module(location).open_sink(location, options or _network_options(), force=force)
    return sink


def check_place(
    location: str, sources: Sequence[str], *, force: bool = False, network: NetworkOptions | None = None
) -> Output:
    """Says what a pack of `sources` will replace at `location`, without touching anything there.

    Args:
        location: where the snapshot is to be written.
        sources: trees and files to be packed.
        force: allow something there that is no snapshot.
        network: how to ask a server what is there; None: no server is asked, as `open_sink` will do that.

    Raises:
        UsageError: nothing may be written there, or it is one of the sources.
        DumontError: nothing can be written there.
        NetworkError: the server does not answer, or not as it must.
        UnsupportedError: this version cannot write to the scheme, or a package that it needs is not installed.
    """
    output: Output = _sink_module(location).check_place(location, sources, network, force=force)
    return output


def scheme_name(location: str) -> str:
    """Returns the name of a location's scheme, in lower case; "" for a path."""
    match = re.match(_SCHEME, location, re.IGNORECASE)
    return match[1].lower() if match else ""


def needed_package(package: str, location: str) -> Any:
    """Imports a package of the extra that a location's scheme names.

    Raises:
        UnsupportedError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if shortage(error):
            raise
        name = scheme_name(location)
        install = f'pip install "dumont-gpu[{_BY_NAME[name].extra}]"'
        raise UnsupportedError(f"{location}: {name}:// addresses need a package: {install}") from None


def _sink_module(location: str) -> Any:
    if location == STANDARD_STREAM:
        return _module("standard_output")
    name = scheme_name(location)
    if name not in _BY_NAME or not _BY_NAME[name].sink:
        raise UnsupportedError(f"{name}:// addresses cannot be written to: name {_listed(_EXAMPLES)}")
    return _module(_BY_NAME[name].sink)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _network_options() -> NetworkOptions:
    options: NetworkOptions = _module("network").NetworkOptions()
    return options


_HOMES: Final = {
    "LocalSink": "local",
    "LocalSource": "local",
    "MemorySink": "memory",
    "MemorySource": "memory",
    "NetworkOptions": "network",
    "Sink": "base",
    "Source": "base",
}


def __getattr__(name: str) -> Any:
    """Imports the names of other modules when they are used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_module(_HOMES[name]), name)


__all__ = [
    "READ_FROM",
    "SCHEMES",
    "STANDARD_STREAM",
    "WRITTEN_TO",
    "LocalSink",
    "LocalSource",
    "MemorySink",
    "MemorySource",
    "NetworkOptions",
    "Scheme",
    "Sink",
    "Source",
    "check_place",
    "needed_package",
    "open_sink",
    "open_source",
    "scheme_name",
]
