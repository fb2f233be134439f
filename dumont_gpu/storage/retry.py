"""How often a request is tried again, and how long to wait before it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

from dumont_gpu.format import KiB

RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
BUSY_STATUSES: Final = frozenset({429, 503})  # the server wants fewer requests
_PROGRESS: Final = 64 * KiB  # a connection that brought less was as good as none


class TransientError(Exception):
    """One attempt failed; the next may not. The message is a clause about the server."""

    def __init__(self, reason: str, retry_after: float | None = None, busy: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds the server asked for
        self.busy = busy


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds and counts; the defaults give up after a minute or so in which nothing came."""

    first_delay: float = 0.2
    longest_delay: float = 20.0
    longest_asked: float = 300.0  # a server that asks for more has given up for us
    attempts: int = 9  # in a row without progress
    first_attempts: int = 3  # of the first request: a wrong host name should not take a minute


class Patience:
    """What is left of a policy for one range: renewed when bytes come, used up by failures in a row."""

    def __init__(self, policy: RetryPolicy, attempts: int, chance: Callable[[float, float], float]) -> None:
        self._policy, self._attempts, self._chance = policy, attempts, chance
        self._renew()

    def _renew(self) -> None:
        self._left, self._delay = self._attempts, self._policy.first_delay

    def after(self, error: TransientError, received: int) -> float | None:
        """Returns how many seconds to wait before the next attempt; None: give up.

        Decorrelated jitter: each delay is random between the first one and three times the one before, so that many
        connections, and many machines, that fail together do not come back together.

        Args:
            error: why the attempt failed.
            received: bytes that it brought.
        """
        if received >= _PROGRESS:
            self._renew()
        self._left -= 1
        if self._left <= 0:
            return None
        self._delay = min(self._policy.longest_delay, self._chance(self._policy.first_delay, self._delay * 3))
        if error.retry_after is None:
            return self._delay
        return max(error.retry_after, self._delay) if error.retry_after <= self._policy.longest_asked else None


def patience(policy: RetryPolicy, first: bool = False) -> Patience:
    """Patience for one range; `first`: for the first request to a server."""
    return Patience(policy, policy.first_attempts if first else policy.attempts, random.uniform)


def parse_retry_after(value: str | None, now: Callable[[], datetime] | None = None) -> float | None:
    """Returns the seconds in a Retry-After header, which holds them or a date; None: there is none that makes sense."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    current = now() if now else datetime.now(timezone.utc)
    return max(0.0, (date - current).total_seconds())
