"""Snapshots in memory, for tests and for programs that keep snapshots elsewhere."""

from __future__ import annotations

import threading

from dumont_gpu.disk.outputs import Identity
from dumont_gpu.errors import DamagedError, DumontError


class MemorySource:
    """A snapshot in a program's own memory, which must stay as it is until `close`."""

    remote = False

    def __init__(self, data: bytes | bytearray | memoryview, location: str = "<memory>") -> None:
        self.location = location
        self.size = len(data)
        self._data = memoryview(data)

    def read_into(self, offset: int, out: memoryview) -> None:
        if offset + len(out) > self.size:
            raise DamagedError(f"ends at byte {self.size}, {offset + len(out)} were expected")
        out[:] = self._data[offset : offset + len(out)]

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self._data.release()


class MemorySink:
    """A snapshot in `data`, once it is `committed`."""

    files: frozenset[Identity] = frozenset()
    notes: tuple[str, ...] = ()
    forward = False
    parts = None

    def __init__(self, location: str = "<memory>") -> None:
        self.location = location
        self.data = bytearray()
        self.committed = False
        self._open = True
        self._lock = threading.Lock()

    def write_at(self, offset: int, data: memoryview) -> None:
        with self._lock:
            self._check_open()
            if offset + len(data) > len(self.data):
                self.data.extend(bytes(offset + len(data) - len(self.data)))
            self.data[offset : offset + len(data)] = data

    def commit(self, size: int) -> None:
        self._check_open()
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]
        self.committed, self._open = True, False

    def cancel(self) -> None:
        self._open = False

    def abort(self, error: BaseException | None = None) -> None:
        self._open = False
        if not self.committed:
            self.data.clear()

    def _check_open(self) -> None:
        if not self._open:
            raise DumontError(f"{self.location}: nothing more is written there")
