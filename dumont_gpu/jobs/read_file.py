"""Reads single files out of a snapshot: only the chunks that hold them, every byte verified before it is handed out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.columns.table import as_table
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.format.entries import EntryType, Extent, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.chunk_checks import chunk_check
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.jobs.resources import thread_count
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.inside import entry_at_path, normal_path, opened_snapshot
from dumont_gpu.snapshot.reader import Snapshot

_ZEROS: Final = memoryview(bytes(MiB))  # what holes are made of


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


class FileReader:
    """Reads files, a chunk at a time; keeps the last chunk, as files that follow each other often share one."""

    def __init__(self, snapshot: Snapshot, backend: Backend) -> None:
        self._snapshot, self._backend = snapshot, backend
        largest = max((chunk.size_original for chunk in snapshot.chunks), default=1)
        backend.prepare(largest, decode=True)
        self._number: int | None = None  # of the chunk in `_content`
        self._content = memoryview(b"")

    def read(self, file: FileEntry) -> Iterator[memoryview]:
        """Yields a file's bytes in order, holes as zeros. Raises as `read_files`."""
        at = 0
        for extent in file.extents:
            yield from _zeros(extent.file_offset - at)
            yield self._checked(file, extent)
            at = extent.file_end
        yield from _zeros(file.size - at)

    def _checked(self, file: FileEntry, extent: Extent) -> memoryview:
        if extent.chunk != self._number:
            self._load(extent.chunk)
        content = self._content[extent.chunk_offset : extent.chunk_offset + extent.length]
        if self._snapshot.digest(content) != extent.digest:
            raise DamagedError(
                f"{self._snapshot.source.location}: chunk {extent.chunk}: {printable(file.path)}: its content does "
                "not match its digest"
            )
        return content

    def _load(self, number: int) -> None:
        snapshot, record = self._snapshot, self._snapshot.chunks[number]
        self._number, self._content = None, memoryview(b"")  # the memory goes before more is taken
        encoded, content = (memoryview(bytearray(size)) for size in (record.size_compressed, record.size_original))
        snapshot.read_chunk(number, encoded)
        try:
            self._backend.decode(record.compressor_id, encoded, content, chunk_check(snapshot, number, encoded))
        except DamagedError as error:
            raise DamagedError(f"{snapshot.source.location}: chunk {number}: {error}") from None
        self._number, self._content = number, content.toreadonly()


def _zeros(size: int) -> Iterator[memoryview]:
    for at in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - at]
