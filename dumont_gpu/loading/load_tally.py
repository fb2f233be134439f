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
