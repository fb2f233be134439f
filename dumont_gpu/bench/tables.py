"""Figures as Markdown: tables, and how seconds become rates and ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rate(size: int, seconds: Sequence[float]) -> str:
    """GB/s as `median (best)`."""
    if not seconds:
        return "-"
    return f"{size / median(seconds) / 1e9:.2f} ({size / min(seconds) / 1e9:.2f})"


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times as fast we are, as `by the medians (by the best)`."""
    if not ours or not theirs:
        return "-"
    return f"{median(theirs) / median(ours):.1f}x ({min(theirs) / min(ours):.1f}x)"


def share(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Which part of their time we take, as `by the medians (by the best)`."""
    if not ours or not theirs:
        return "-"
    return f"{median(ours) / median(theirs):.2f} ({min(ours) / min(theirs):.2f})"
