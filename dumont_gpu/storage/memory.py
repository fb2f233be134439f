"""Snapshots in memory, for tests and for programs that keep them elsewhere."""

from __future__ import annotations

import hashlib

from dumont_gpu.errors import DamagedError


class MemorySource:
    remote = False

    def __init__(self, data: bytes | bytearray | memoryview, location: str = "<memory>") -> None:
        self.location = location
        self.size = len(data)
        self._data = memoryview(data)

    @property
    def identity(self) -> str:
        return f"{hashlib.sha256(self._data).hexdigest()} {self.size}"

    def read_into(self, offset: int, out: memoryview) -> None:
        if offset + len(out) > self.size:
            raise DamagedError(f"ends at byte {self.size}, {offset + len(out)} were expected")
        out[:] = self._data[offset : offset + len(out)]

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self._data.release()


class MemorySink:
    in_order = False

    def __init__(self, location: str = "<memory>") -> None:
        self.location = location
        self.data = bytearray()
        self.committed = False

    def identities(self) -> frozenset[tuple[int, int]]:
        return frozenset()

    def notes(self) -> tuple[str, ...]:
        return ()

    def expect(self, size: int) -> None:
        pass

    def write_at(self, offset: int, data: memoryview) -> None:
        if offset + len(data) > len(self.data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def commit(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]
        self.committed = True

    def cancel(self) -> None:
        pass

    def abort(self, error: BaseException | None = None) -> None:
        if not self.committed:
            self.data.clear()
