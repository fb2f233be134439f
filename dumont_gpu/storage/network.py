"""How the network may be used: limits, patience, and the clock they are measured by."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dumont_gpu.progress import Notice, NoticeCallback
from dumont_gpu.storage.retry import Patience, RetryPolicy


def _unheard(event: Notice) -> None:
    pass


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """How the network may be used."""

    connections: int = 0  # exactly this many; 0: 4 or 16, and up to 64 as long as more connections bring more bytes
    limit_rate: int = 0  # bytes per second, of all connections together; 0: no limit
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    connect_timeout: float = 10.0  # seconds
    read_timeout: float = 15.0  # seconds without any byte
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], object] = (
        threading.Event.wait
    )  # until the event is set, or for this many seconds
    discard: bool = False  # a publish that is stopped leaves no parts at the server, nor those of an earlier publish
    notice: NoticeCallback = (
        _unheard  # called from any thread: about silence, its end, and parts that are there already
    )

    def patience(self, location: str) -> Patience:
        """Returns the patience of one transfer."""
        return Patience(self.retry, location, self.clock, self.notice)
