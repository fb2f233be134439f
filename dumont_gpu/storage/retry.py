"""How long a transfer bears silence, and how long it waits before it tries a request again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import ClassVar, Final, TypeVar

from dumont_gpu.errors import DumontError, GaveUpError, NetworkError
from dumont_gpu.progress import Notice, NoticeCallback
from dumont_gpu.sizes import KiB

T = TypeVar("T")

DEFAULT_PATIENCE: Final = 300.0  # seconds

RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529})  # 52x: of CDNs
BUSY_STATUSES: Final = frozenset({429, 503})  # the server wants fewer requests
_PROGRESS: Final = 64 * KiB  # a connection that brought fewer bytes made no progress
_NOTICE_FIRST: Final = 3.0  # seconds of silence before the first notice
_NOTICE_INTERVAL: Final = 10.0


class TransientError(Exception):
    """One attempt failed; the next may not. The message is a clause about the server."""

    # Raised in its place when patience has run out: for a server that never answered, and for a server that did.
    never_there: ClassVar[type[NetworkError]] = NetworkError
    gone: ClassVar[type[GaveUpError]] = GaveUpError

    def __init__(
        self,
        reason: str,
        retry_after: float | None = None,
        busy: bool = False,
        unknown_host: bool = False,
        timed_out: bool = False,
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after  # seconds the server asked for
        self.busy = busy
        self.unknown_host = unknown_host  # a typo, unless the name was known before
        self.timed_out = timed_out  # the attempt waited for bytes in vain


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to try; all figures are seconds."""

    # Of silence over all connections of a transfer; 0: the first failure is final.
    patience: float = DEFAULT_PATIENCE
    first_contact: float = 30.0  # the most for a host that never answered: a wrong address should not take minutes
    first_delay: float = 0.2
    longest_delay: float = 10.0


class Patience:
    """How long one transfer bears silence, over all its connections.

    Silence begins when an attempt fails; if the attempt timed out, when it began to wait. Silence ends with a byte of
    any range, or with the answer that a part has arrived. Answers such as 503 do not end it, but they show that a
    server is there.

    Args:
        policy: how long.
        location: of the snapshot, for the notices.
        clock: seconds, as of `time.monotonic`.
        notice: called every few seconds of silence, and at the end of the silence; from any thread.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        location: str,
        clock: Callable[[], float],
        notice: NoticeCallback = lambda event: None,
    ) -> None:
        self.policy, self._location, self._clock = policy, location, clock
        self._notice = notice
        self._heard_at = clock()
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._next_notice = 0.0
        self._said = False
        self.contacted = False  # the server has answered at least once, however badly

    def heard(self) -> None:
        """Ends a silence: bytes came, or the answer that bytes have arrived."""
        self.contacted = True
        self._heard_at = self._clock()
        if self._silent_since is None:  # nearly always: no lock
            return
        with self._lock:
            since, said = self._silent_since, self._said
            self._silent_since, self._said = None, False
        if since is not None and said:
            seconds = self._clock() - since
            self._notice(Notice(self._location, f"goes on after {seconds:.0f} s", {"answered_after": seconds}))

    def attempts(self, timeout: float = 0.0) -> Attempts:
        """Returns the attempts of one request or range, each of which times out after `timeout` seconds."""
        return Attempts(self, random.uniform, timeout)

    def left_after(self, error: TransientError, timeout: float = 0.0) -> float:
        """Takes note of a failed attempt, which may have waited for `timeout`; returns the seconds of patience left.

        Raises:
            GaveUpError: no patience is left.
            NetworkError: no patience is left, and the server never answered.
        """
        with self._lock:
            now = self._clock()
            if self._silent_since is None:
                self._silent_since = max(self._heard_at, now - timeout) if error.timed_out else now
                self._next_notice = self._silent_since + _NOTICE_FIRST
            silent = now - self._silent_since
            left = self._patience - silent
            due = now >= self._next_notice and left > 0
            if due:
                self._next_notice, self._said = now + _NOTICE_INTERVAL, True
        if error.unknown_host and not self.contacted:
            raise error.never_there(f"{error}: check the address")
        asked = error.retry_after or 0.0
        if left <= 0 or asked > left:
            raise self._given_up(error, silent)
        if due:
            text = f"no answer for {silent:.0f} s ({error}), still trying"
            self._notice(Notice(self._location, text, {"silent_for": silent, "reason": str(error)}))
        return left

    def once_known(self, work: Callable[[], T]) -> T:
        """Does `work`, which needs credentials from another service: once there were some, there will be again.

        Raises:
            TransientError: there are no credentials for now.
            DumontError: there never were any credentials.
        """
        try:
            return work()
        except DumontError as error:
            if not self.contacted:
                raise
            raise TransientError(str(error)) from None

    @property
    def _patience(self) -> float:
        return self.policy.patience if self.contacted else min(self.policy.first_contact, self.policy.patience)

    def _given_up(self, error: TransientError, silent: float) -> NetworkError:
        asked = f", and asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
        text = f"{error}{asked}; gave up after {silent:.0f} s without an answer"
        if self.contacted:
            return error.gone(text)
        return error.never_there(f"{text}: check the address, or try again later")


class Attempts:
    """The attempts of one request or range: soon at first, then ever more rarely until bytes come."""

    def __init__(self, patience: Patience, chance: Callable[[float, float], float], timeout: float = 0.0) -> None:
        self._patience, self._chance, self._timeout = patience, chance, timeout
        self._delay = patience.policy.first_delay

    def after(self, error: TransientError, received: int = 0) -> float:
        """Returns how many seconds to wait before the next attempt.

        Decorrelated jitter: each delay is random, between the first delay and three times the last delay. So many
        connections, and many machines, that fail together do not come back together.

        Args:
            error: the failure of the attempt.
            received: bytes that the attempt brought.

        Raises:
            GaveUpError, NetworkError: patience has run out; see `Patience.left_after`.
        """
        policy = self._patience.policy
        if received >= _PROGRESS:
            self._delay = policy.first_delay
        left = self._patience.left_after(error, self._timeout)
        self._delay = min(policy.longest_delay, self._chance(policy.first_delay, self._delay * 3))
        return min(
            left, max(error.retry_after or 0.0, self._delay)
        )  # the last attempt comes at the very end of patience


def parse_retry_after(value: str | None, now: Callable[[], datetime] | None = None) -> float | None:
    """Returns the seconds that a Retry-After header asks for, as a number or a date; None: it holds neither."""
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
