"""Writes the reader for any machine to a file, or beside a snapshot."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Final

from dumont_gpu.disk.outputs import in_the_way
from dumont_gpu.errors import SnapshotNotFoundError, UsageError
from dumont_gpu.reader import NAME, reader_source
from dumont_gpu.storage import NetworkOptions, open_sink, open_source

_MARK: Final = 64  # bytes at the start of a reader, of any version, that no other file has


def beside(location: str) -> str:
    """Returns where the reader of a snapshot at `location` stands: in the same folder."""
    folder, slash, _ = location.rpartition("/")
    return f"{folder}{slash}{NAME}"


def check_reader_place(location: str, network: NetworkOptions) -> None:
    """Raises UsageError if a file that is no reader stands at `location`."""
    try:
        with closing(open_source(location, network)) as source:
            head = bytearray(min(_MARK, source.size))
            source.read_into(0, memoryview(head))
    except SnapshotNotFoundError:
        return
    if head and head != reader_source()[:_MARK]:
        raise UsageError(f"{location}: {in_the_way('reader', '')}")


def write_reader(location: str, network: NetworkOptions) -> None:
    """Writes the reader to a path or an address; replaces a reader that is there.

    Raises:
        UsageError: a file that is no reader is there, or no file can be there.
        DumontError: the file cannot be written.
    """
    check_reader_place(location, network)
    content = reader_source()
    sink = open_sink(location, network, force=True)
    try:
        if sink.parts is not None:
            sink.parts.fit(len(content))
        sink.write_at(0, memoryview(content))
        sink.commit(len(content))
    finally:
        sink.abort(sys.exc_info()[1])
