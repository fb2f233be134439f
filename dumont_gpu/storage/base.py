"""The protocols of storage: a source, which a snapshot is read from, and a sink, which a snapshot is written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from dumont_gpu.disk.outputs import Identity


class Source(Protocol):
    """A snapshot's bytes, readable at any offset from many threads at once."""

    @property
    def location(self) -> str:
        """The path or address of the snapshot, as messages show it: without secrets."""

    @property
    def size(self) -> int:
        """Bytes in the whole snapshot."""

    @property
    def remote(self) -> bool:
        """Whether a network lies between: then several reads at once pay, and a second read may bring other bytes."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` with the bytes at `offset`.

        Raises:
            DamagedError: the snapshot ends before `out` is full.
            NetworkError: the snapshot cannot be reached any more.
        """

    def cancel(self) -> None:
        """Makes reads that wait for a network fail soon, now and later: nobody wants their bytes any more."""

    def close(self) -> None:
        """Closes files and connections, and ends threads."""


@runtime_checkable
class Watched(Protocol):
    """A source, or a sink, that tells of bytes as they cross a link, long before a read or a write ends."""

    def watch(self, moved: Callable[[int], None]) -> None:
        """Makes `moved` be called, from any thread, with the number of bytes that have just come, or gone."""


class Parts(Protocol):
    """The parts that a sink cuts the snapshot into."""

    def fit(self, size: int) -> None:
        """Chooses the size of the parts for a snapshot of `size` bytes at most, or nearly; before the first write."""


class Sink(Protocol):
    """Where a snapshot is written, piece by piece, and appears at once or not at all.

    After `commit`, `abort` or `cancel`, further writes and commits raise DumontError.
    """

    @property
    def location(self) -> str:
        """The path or address of the snapshot, as messages show it."""

    @property
    def files(self) -> frozenset[Identity]:
        """The files on this machine that hold the snapshot, old or new, and so are never packed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about this place, though nothing failed."""

    @property
    def forward(self) -> bool:
        """Whether bytes are taken only in the order of their offsets, as a pipe takes them."""

    @property
    def parts(self) -> Parts | None:
        """The parts that the snapshot is cut into; None: writes may come in any order.

        With parts, writes come in the order of their offsets, and the same job repeats that order, so that it can go
        on where it was stopped. Only bytes before the first write may come at any time.
        """

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data` at `offset`; bytes behind the header that are never written read as zeros."""

    def commit(self, size: int) -> None:
        """Makes the snapshot of `size` bytes durable and visible under its name."""

    def cancel(self) -> None:
        """Makes writes fail soon, also those that wait in another thread; `abort` is still to come."""

    def abort(self, error: BaseException | None = None) -> None:
        """Leaves no trace of the written bytes; does nothing after `commit`.

        After an `error` that the same job, started again, may survive, the sink may keep bytes for that job to go on
        from. Then `left_behind` of the error says so.
        """
