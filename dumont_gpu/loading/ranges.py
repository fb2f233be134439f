"""Loads ranges of several files together, so that each chunk is decoded once."""

from __future__ import annotations

from dumont_gpu.errors import DumontError
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.loading.chunk_loader import HostWant
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.wants import Want


def want_range(file: FileEntry, start: int | None, end: int | None) -> HostWant:
    """Returns a want for the bytes from `start` up to `end`; negative numbers count from the end of the file."""
    first, behind, _ = slice(start, end).indices(file.size)
    size = max(0, behind - first)
    return Want(file, first, size, memoryview(bytearray(size)))


def load_ranges(files: SnapshotFiles, wanted: list[HostWant | Exception], *, singly: bool) -> None:
    """Loads all wants together; if that fails and `singly`, one by one: errors take the place of those that fail."""
    try:
        files.load([want for want in wanted if isinstance(want, Want) and want.size])
        return
    except DumontError:
        if not singly:
            raise
    for number, want in enumerate(wanted):
        if isinstance(want, Want) and want.size:
            again = Want(want.file, want.start, want.size, want.place)
            try:
                files.load([again])
            except DumontError as error:
                wanted[number] = error
