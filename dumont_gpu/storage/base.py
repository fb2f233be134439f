"""What a snapshot is read from, and what it is written to."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """A snapshot's bytes, readable at any offset from many threads at once."""

    @property
    def location(self) -> str:
        """What people call it: a path or an address, without secrets."""

    @property
    def size(self) -> int:
        """Bytes in the whole snapshot."""

    @property
    def identity(self) -> str:
        """Another one as soon as the bytes may be others; the same for every opening until then."""

    @property
    def remote(self) -> bool:
        """Whether a network lies between: several reads at once then pay, and a second one may bring other bytes."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` with the bytes at `offset`.

        Raises:
            DamagedError: the snapshot ends before that.
            NetworkError: it cannot be reached any more.
        """

    def cancel(self) -> None:
        """Makes reads that wait for a network fail soon, now and later: nobody wants them any more."""

    def close(self) -> None:
        """Gives back what the source holds open."""


class Sink(Protocol):
    """Where a snapshot is written, piece by piece, and appears at once or not at all.

    Pieces come in the order of their offsets, but for those that lie before the first one, which may come at any time.
    """

    @property
    def location(self) -> str:
        """What people call it."""

    @property
    def in_order(self) -> bool:
        """Whether pieces must come in an order that the same job repeats, so that it can go on where it was stopped."""

    def identities(self) -> frozenset[tuple[int, int]]:
        """Device and inode of files on this machine that are no part of what is packed: this snapshot, old and new."""

    def notes(self) -> tuple[str, ...]:
        """What whoever writes here should know, though nothing failed."""

    def expect(self, size: int) -> None:
        """Says, before anything is written, how many bytes the snapshot will have at most, or nearly."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data` at `offset`; what is never written reads as zeros."""

    def commit(self, size: int) -> None:
        """Makes the snapshot of `size` bytes durable and visible under its name."""

    def cancel(self) -> None:
        """Makes writes that wait for a network fail soon, now and later; `abort` is still to come."""

    def abort(self, error: BaseException | None = None) -> None:
        """Leaves no trace of what was written; does nothing after `commit`.

        After an `error` that the same job, started again, may survive, what it can go on from may stay. `left_behind`
        of the error then says so.
        """
