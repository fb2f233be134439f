"""Failures of single entries, after which a job goes on and ends with exit code 3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that a job could not copy faithfully: a pack to the snapshot, or a restore to the target."""

    path: str
    reason: str
