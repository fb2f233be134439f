"""Reads single files out of a snapshot: only the chunks that hold them, every byte verified before it is handed out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from dumont_gpu.backends import select_backend
from dumont_gpu.columns.table import as_table
from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.file_reader import FileReader
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import thread_count
from dumont_gpu.snapshot.inside import entry_at_path, normal_path, opened_snapshot
from dumont_gpu.snapshot.reader import Snapshot


def read_files(text: str, paths: Sequence[str], options: ReadOptions | None = None) -> Iterator[memoryview]:
    """Yields the bytes of files, one after the other; a piece is valid until the next is asked for.

    Args:
        text: path or address of a snapshot, perhaps with `:path` of a part of it.
        paths: of the files within the snapshot, or the part; none: the part is a file itself.

    Raises:
        SnapshotNotFoundError: nothing is at the location, or there is no such file in it.
        UsageError: a path names a directory or a symlink; known before the first piece.
        DamagedError: bytes do not match their digest. No such byte is yielded.
        UnsupportedError, DumontError: the snapshot cannot be read.
    """
    with _opened(text, paths, options or ReadOptions()) as (reader, files):
        for file in files:
            yield from reader.read(file)


def read_bytes(text: str, path: str, max_size: int, options: ReadOptions | None = None) -> bytes:
    """Returns the bytes of a file of a snapshot. Raises as `read_files`, and:

    Raises:
        DumontError: the file has more than `max_size` bytes; nothing of it is read.
    """
    with _opened(text, [path] if path else [], options or ReadOptions()) as (reader, files):
        (file,) = files
        if file.size > max_size:
            raise DumontError(f"{printable(file.path)}: has {file.size} bytes: max_size={file.size} allows it")
        content = bytearray(file.size)
        at = 0
        for piece in reader.read(file):
            content[at : at + len(piece)] = piece
            at += len(piece)
        return bytes(content)


@contextmanager
def _opened(text: str, paths: Sequence[str], options: ReadOptions) -> Iterator[tuple[FileReader, list[FileEntry]]]:
    """Opens a snapshot; looks the files up."""
    with opened_snapshot(text, options.network, options.expect) as snapshot:
        files = files_at(snapshot, paths)
        device = "cpu" if options.device == "auto" else options.device  # a chunk at a time wakes no device
        with closing(select_backend(device, thread_count(options.jobs), options.gpu_memory)) as backend:
            yield FileReader(snapshot, backend), files


def files_at(snapshot: Snapshot, paths: Sequence[str]) -> list[FileEntry]:
    """Returns the files at these paths; hard links become the files that they lead to.

    Args:
        paths: none means the only entry of a snapshot whose part is a file.

    Raises:
        SnapshotNotFoundError, UsageError: as `read_files`.
    """
    table = as_table(snapshot.manifest.entries)
    is_file = bool(snapshot.inside) and snapshot.manifest.root is None  # a directory would be the root
    if is_file and paths:
        raise UsageError(f"{printable(snapshot.inside)}: is a file: name no path below it")
    if is_file:
        paths = [table.path(0)]
    if not paths:
        raise UsageError(f"{snapshot.source.location}: name the files in it to read")
    files = []
    for path in map(normal_path, paths):
        if not path:
            raise UsageError("the root of a snapshot is a directory: name files")
        entry = entry_at_path(snapshot, table, path)
        if entry.type is EntryType.HARDLINK:
            entry = entry_at_path(snapshot, table, entry.target)
        if entry.type is EntryType.DIR:
            raise UsageError(f"{printable(path)}: is a directory: restore brings it, or name the files in it")
        if entry.type is EntryType.SYMLINK:
            raise UsageError(f"{printable(path)}: is a link to {printable(entry.target)}: name what it leads to")
        files.append(entry)
    return files
