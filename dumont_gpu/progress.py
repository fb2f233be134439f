"""The events that a running job reports, independent of any display."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come. Bytes are raw bytes."""

    phase: str  # "scan", "pack", "restore", "verify", ...
    done_bytes: int
    total_bytes: int
    done_chunks: int
    total_chunks: int
    seconds: float  # since the phase began

    @property
    def rate(self) -> float:
        """Bytes per second since the phase began."""
        return self.done_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at that rate; None before any bytes are done."""
        return (self.total_bytes - self.done_bytes) / self.rate if self.done_bytes else None


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
    """Counts the chunks that the threads of a phase finish; calls the callback every 0.1 s and at the end."""

    def __init__(self, callback: ProgressCallback | None, phase: str, total_bytes: int, total_chunks: int) -> None:
        self._callback = callback
        self._phase, self._total_bytes, self._total_chunks = phase, total_bytes, total_chunks
        self._bytes = self._chunks = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._next_report = 0.0
        self._report()

    def expect(self, total_bytes: int, total_chunks: int) -> None:
        """Corrects the totals, as soon as they are known."""
        with self._lock:
            self._total_bytes, self._total_chunks = total_bytes, total_chunks
            if self._chunks == total_chunks:
                self._report()

    def add(self, size: int) -> None:
        """Counts a finished chunk of `size` raw bytes."""
        with self._lock:
            self._bytes += size
            self._chunks += 1
            due = time.monotonic() >= self._next_report or self._chunks == self._total_chunks
            if due:
                self._report()

    def _report(self) -> None:
        if self._callback is None:
            return
        now = time.monotonic()
        self._next_report = now + _INTERVAL
        self._callback(
            Progress(self._phase, self._bytes, self._total_bytes, self._chunks, self._total_chunks, now - self._started)
        )
