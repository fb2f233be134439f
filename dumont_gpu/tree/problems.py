"""What a job could not do as asked, though it went on: exit code 3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that is not in the snapshot, or not in the target, as it was in the other."""

    path: str
    reason: str
