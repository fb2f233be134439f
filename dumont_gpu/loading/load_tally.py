"""How much a loader has decoded on the device, and on the CPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LoadTally:
    """What a loader has decoded where.

    Args:
        on_device: raw bytes of chunks that the device decoded.
        on_cpu: raw bytes of chunks that the CPU decoded, or that were stored as they are.
        repeated: chunks of `on_cpu` in which the device had found a fault; damaged chunks are not counted.
    """

    on_device: int = 0
    on_cpu: int = 0
    repeated: int = 0

    def add(self, size: int, *, there: bool | None) -> None:
        """Counts a chunk of `size` raw bytes.

        Args:
            there: whether the device decoded it; None: it was for the CPU from the start.
        """
        if there:
            self.on_device += size
        else:
            self.on_cpu += size
        self.repeated += there is False
