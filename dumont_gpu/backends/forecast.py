"""How long a job is going to last as it goes now, and whether waking a device is worth it. No thread, no clock."""

from __future__ import annotations

from typing import Final

from dumont_gpu.sizes import GiB

WORTH_WAKING: Final = 4 * GiB  # raw bytes: for fewer, a GPU saves less time than CUDA takes to start
WAKING_SECONDS: Final = 4.0  # a job that the processor ends sooner gains nothing: CUDA takes 1 to 2 s to start
# No step on the way to the device takes longer, but the first compilation on a machine: a job's end waits for a step's.
STEP_SECONDS: Final = 2.0


class Forecast:
    """Counts the chunks that a device could work on, wherever they are worked on; sizes are raw bytes.

    Args:
        cores: chunks that the processor works on side by side.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._expected = self._begun = self._done = 0  # bytes
        self._finished = 0  # chunks
        self._started: float | None = None

    def expect(self, size: int) -> None:
        """Notes how much the job is going to bring in all."""
        self._expected = size

    def begin(self, size: int, now: float) -> None:
        self._begun += size
        if self._started is None:
            self._started = now

    def end(self, size: int, *, failed: bool) -> None:
        """Counts a chunk as done; one that failed is going to begin again."""
        if failed:
            self._begun -= size
        else:
            self._done += size
            self._finished += 1

    @property
    def not_begun(self) -> int:
        """Bytes of chunks that are still to come."""
        return max(0, self._expected - self._begun)

    def seconds_left(self, now: float) -> float:
        """How long the job lasts as it goes now, at least; 0 while too little has been seen."""
        if self._started is None or self._finished < self._cores:  # the first chunks of all cores end at the same time
            return 0.0
        return max(0, self._expected - self._done) * (now - self._started) / max(1, self._done)

    def worth_waking(self, now: float) -> bool:
        return self._expected >= WORTH_WAKING and self.seconds_left(now) >= WAKING_SECONDS

    def worth_a_step(self, now: float) -> bool:
        """Whether the job is going to last until another step on the way to the device is over."""
        return self.seconds_left(now) >= STEP_SECONDS
