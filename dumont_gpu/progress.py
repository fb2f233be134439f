"""The events that a running job reports, independent of any display."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come. Bytes are raw bytes, if not said otherwise."""

    phase: str  # "scan", "pack", "restore", "verify", ...
    done_bytes: int
    total_bytes: int
    done_chunks: int
    total_chunks: int
    seconds: float  # since the phase began
    read_bytes: int = 0  # that have come: of a snapshot over a link (encoded bytes), of a pack's sources
    to_read_bytes: int = 0  # of all that will come; 0: nothing tells of them one by one
    sent_bytes: int = 0  # encoded bytes that went to a server, those sent twice too

    @property
    def part(self) -> float:
        """The part of the work that is done, 0 to 1: bytes that have come count as much as bytes that are done."""
        total = self.total_bytes + self.to_read_bytes
        return (self.done_bytes + self.read_bytes) / total if total else 0.0

    @property
    def rate(self) -> float:
        """Bytes per second since the phase began."""
        return self.done_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def read_rate(self) -> float:
        """Bytes per second that have come since the phase began."""
        return self.read_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def sent_rate(self) -> float:
        """Bytes per second that were sent since the phase began."""
        return self.sent_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the rate of the slower direction; None before any bytes have moved."""
        directions = ((self.done_bytes, self.total_bytes), (self.read_bytes, self.to_read_bytes))
        left = [(total - moved) * self.seconds / moved for moved, total in directions if moved]
        return max(left, default=None)


@dataclass(frozen=True, slots=True)
class Notice:
    """News for the user who waits for a job: a stalled transfer, its recovery, parts that are uploaded already."""

    location: str
    text: str
    facts: dict[str, str | float] = field(default_factory=dict)  # the news for programs

    def __str__(self) -> str:
        return f"{self.location}: {self.text}"


ProgressCallback = Callable[[Progress], None]
NoticeCallback = Callable[[Notice], None]
_INTERVAL: Final = 0.1  # seconds between events: nobody sees more


class Meter:
    """Counts the bytes that the threads of a phase move, and the chunks that they finish.

    Calls the callback every 0.1 s while bytes move, and at the end.

    Args:
        callback: called from any thread, one call at a time.
        total_bytes: raw bytes of the phase, as far as they are known; see `expect`.
        total_chunks: likewise.
        to_read_bytes: bytes that `come` will count; 0: none.
    """

    def __init__(
        self,
        callback: ProgressCallback | None,
        phase: str,
        total_bytes: int,
        total_chunks: int,
        to_read_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback, self._clock = callback, clock
        self._phase, self._total_bytes, self._total_chunks = phase, total_bytes, total_chunks
        self._to_read = to_read_bytes
        self._bytes = self._chunks = self._read = self._sent = 0
        self._skipped = self._unread = 0  # bytes of the first totals that turned out not to be needed
        self._lock = threading.Lock()
        self._started = clock()
        self._next_report = 0.0
        self._report()

    def expect(self, total_bytes: int, total_chunks: int, to_read_bytes: int = 0) -> None:
        """Corrects the totals, as soon as they are known.

        A total in bytes does not fall, which would look like data that got lost: bytes that need not be moved after all
        count as moved.
        """
        with self._lock:
            self._skipped = max(0, self._total_bytes - total_bytes)
            self._unread = max(0, self._to_read - to_read_bytes)
            self._total_bytes = max(self._total_bytes, total_bytes)
            self._to_read = max(self._to_read, to_read_bytes)
            self._total_chunks = total_chunks
            if self._chunks == total_chunks:
                self._report()

    def add(self, size: int) -> None:
        """Counts a finished chunk, and `size` raw bytes of it that `move` has not counted."""
        with self._lock:
            self._bytes += size
            self._chunks += 1
            self._report_if_due(last=self._chunks == self._total_chunks)

    def move(self, size: int) -> None:
        """Counts raw bytes of a chunk that is not finished yet."""
        with self._lock:
            self._bytes += size
            self._report_if_due()

    def come(self, size: int) -> None:
        """Counts bytes that have come; the same bytes may come twice, after damage on the way."""
        with self._lock:
            self._read += size
            self._report_if_due()

    def sent(self, size: int) -> None:
        """Counts bytes that went to a server."""
        with self._lock:
            self._sent += size
            self._report_if_due()

    def _report_if_due(self, *, last: bool = False) -> None:
        if last or self._clock() >= self._next_report:
            self._report()

    def _report(self) -> None:
        if self._callback is None:
            return
        now = self._clock()
        self._next_report = now + _INTERVAL
        done = min(self._bytes + self._skipped, self._total_bytes)
        read = min(self._read + self._unread, self._to_read)
        self._callback(
            Progress(
                self._phase, done, self._total_bytes, self._chunks, self._total_chunks, now - self._started,
                read, self._to_read, self._sent,
            )
        )  # fmt: skip
