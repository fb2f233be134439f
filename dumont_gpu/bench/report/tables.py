"""Tables of text, and how sizes and seconds become their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

Json = dict[str, Any]
MB: Final = 1e6


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column is text, the others are numbers. `notes` say how."""

    title: str
    notes: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def rate(size: int, seconds: Sequence[float]) -> str:
    """GB/s as `median (best)`."""
    if not seconds:
        return "-"
    return f"{size / median(seconds) / 1e9:.2f} ({size / min(seconds) / 1e9:.2f})"


def times(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """Their seconds as a multiple of ours, by the median of turns: a disturbance hits both contenders of a turn."""
    if not theirs or not ours:
        return "-"
    return f"{median(their / our for their, our in zip(theirs, ours, strict=False)):.1f}x"


def percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
