"""Turns a snapshot, or a part of it, into an archive that other programs read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from dumont_gpu.backends import CpuBackend
from dumont_gpu.columns.table import EntryTable, as_table
from dumont_gpu.disk.new_file import NewFile
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.archives import Archive, TarArchive, ZipArchive
from dumont_gpu.jobs.file_reader import FileReader
from dumont_gpu.jobs.options import ExportOptions
from dumont_gpu.progress import Meter, ProgressCallback
from dumont_gpu.shortages import explain_shortages
from dumont_gpu.snapshot.reader import in_columns, opened_source, read_snapshot
from dumont_gpu.storage import STANDARD_STREAM, Source, check_place, open_sink
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.selection import select_tree

FORMATS: Final[dict[str, Callable[[Callable[[memoryview], None]], Archive]]] = {"tar": TarArchive, "zip": ZipArchive}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The outcome of an export. Sizes are bytes."""

    snapshot_path: str
    snapshot_id: str
    archive_path: str
    original_size: int  # of the files in the archive, copies of hard links not counted
    archive_size: int
    num_files: int  # entries of the archive
    unmatched: tuple[str, ...]  # patterns that match nothing
    problems: tuple[Problem, ...]  # entries that the archive cannot hold
    seconds: float


@explain_shortages()
def export(
    source: str | Source,
    output: str,
    kind: str,
    options: ExportOptions | None = None,
    progress: ProgressCallback | None = None,
) -> ExportResult:
    """Writes the entries of a snapshot, or those that `options` select, into an archive.

    Every byte is checked against its digest before it is written. Files come in the order of the chunks.
    Where an error stops it, the archive has no end.

    Args:
        source: path or address of a snapshot, "-" for standard input, or an open source, which stays open.
        output: path of the archive, which replaces no file; "-" for standard output.
        kind: "tar" or "zip".
        progress: called as files are written.

    Raises:
        DamagedError: the snapshot contradicts itself.
        UsageError: a file is at `output`, or the patterns select nothing.
        DumontError: as for a restore.
    """
    options = options or ExportOptions()
    if kind not in FORMATS:
        raise UsageError(f"{kind!r} is no kind of archive: choose one of {', '.join(FORMATS)}")
    started = time.monotonic()
    with opened_source(source, options.network) as opened:
        snapshot = in_columns(read_snapshot(opened, options.expect))
        selection = select_tree(snapshot.manifest.entries, options.include, options.exclude, None)
        table = as_table(selection.entries)
        meter = Meter(progress, "export", table.total_size(), len(table))
        reader, problems = FileReader(snapshot, CpuBackend()), list[Problem]()
        sink: _Output = _Pipe() if output == STANDARD_STREAM else NewFile(output, "archive")
        count = _Counted(sink)
        archive = FORMATS[kind](count.write)
        try:
            for entry in _in_order(table, archive):
                try:
                    archive.add(entry, reader.read(entry))
                except ValueError as error:
                    problems.append(Problem(entry.path, str(error)))
                meter.add(entry.size)
            archive.close()
            sink.commit()
        except BaseException:
            archive.abort()
            raise
        finally:
            sink.close()
    return ExportResult(
        snapshot_path=opened.location,
        snapshot_id=snapshot.id,
        archive_path=sink.location,
        original_size=table.total_size(),
        archive_size=count.size,
        num_files=len(table) - len(problems),
        unmatched=selection.unmatched,
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )


def _in_order(table: EntryTable, archive: Archive) -> Iterator[FileEntry]:
    """Yields files in the order of their first bytes in the snapshot, then links; directories before or after.

    Where the archive has no hard links, each comes as another file with the same bytes, right after its file.
    """
    folders = list(table.rows_of(EntryType.DIR))
    if not archive.folders_last:
        yield from (table[row] for row in folders)
    links = archive.links
    copies: dict[str, list[FileEntry]] = {}
    if not links:
        for link in table.of_type(EntryType.HARDLINK):
            copies.setdefault(link.target, []).append(link)
    rows = sorted(table.rows_of(EntryType.FILE), key=lambda row: _place(table[row]))
    for row in rows:
        file = table[row]
        yield file
        for link in copies.get(file.path, ()):
            yield file._replace(path=link.path)
    if links:
        for link in table.of_type(EntryType.HARDLINK):
            row_of_file = table.find(link.target)
            if row_of_file is not None:  # a tar repeats the file's mode and time with each of its names
                file = table[row_of_file]
                yield link._replace(mode=file.mode, mtime_ns=file.mtime_ns, owner=file.owner)
    yield from table.of_type(EntryType.SYMLINK)
    if archive.folders_last:
        yield from (table[row] for row in reversed(folders))


def _place(file: FileEntry) -> tuple[int, int]:
    if not file.extents:
        return -1, 0
    return file.extents[0].chunk, file.extents[0].chunk_offset


class _Output(Protocol):
    location: str

    def write(self, data: memoryview) -> None: ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


class _Pipe:
    """Standard output."""

    def __init__(self) -> None:
        check_place(STANDARD_STREAM, ())
        self._sink, self._size = open_sink(STANDARD_STREAM), 0
        self.location = self._sink.location

    def write(self, data: memoryview) -> None:
        self._sink.write_at(self._size, data)
        self._size += len(data)

    def commit(self) -> None:
        self._sink.commit(self._size)

    def close(self) -> None:
        self._sink.abort()


class _Counted:
    """Counts what is written."""

    def __init__(self, output: _Output) -> None:
        self._output, self.size = output, 0

    def write(self, data: memoryview) -> None:
        self._output.write(data)
        self.size += len(data)
