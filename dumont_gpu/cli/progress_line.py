"""A job's progress in one line: for a log, or for a terminal of any width. Sizes are MiB and rates MiB/s, always."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from dumont_gpu.progress import Progress
from dumont_gpu.sizes import MiB

# By phase: what has happened to bytes that have come, and to bytes that are done.
_WORDS: Final = {"pack": ("read", "packed"), "restore": ("came", "written"), "verify": ("came", "checked")}
_OTHERS: Final = ("came", "checked")
_LONGEST_BAR: Final = 30
_SHORTEST_BAR: Final = 6


def log_line(event: Progress) -> str:
    """Returns the line of a log."""
    return f"{event.phase}: {', '.join([f'{_percent(event)} %', *_details(event)])}"


def bar_line(event: Progress, width: int) -> str:
    """Returns a line that a terminal of `width` columns does not wrap: with as much in it as fits."""
    room = max(1, width - 1)  # some terminals wrap after the last column
    start = f"{event.phase} {_percent(event):>3}%"
    for details in _shorter_and_shorter(event):
        line = f"{start} {details}".rstrip()
        if len(line) <= room:
            break
    else:
        line = f"{_percent(event)}%"[:room]
    size = min(_LONGEST_BAR, room - len(line) - 3)  # brackets, and a blank
    if size < _SHORTEST_BAR or not line.startswith(event.phase):
        return line
    done = math.floor(event.part * size)
    return f"{event.phase} [{'=' * done}{' ' * (size - done)}]{line[len(event.phase) :]}"


def _shorter_and_shorter(event: Progress) -> Iterator[str]:
    details = _details(event)
    rate, left = _rate(event), _left(event)
    yield ", ".join(details)
    if left:
        yield ", ".join(details[:-1])
    yield f"{_moved(event)} {rate}"
    yield rate
    yield left.removesuffix(" left")
    yield ""


def _details(event: Progress) -> list[str]:
    come, done = _WORDS.get(event.phase, _OTHERS)
    details = [f"{_of(event.read_bytes, event.to_read_bytes)} {come}"] if event.to_read_bytes else []
    if event.total_bytes or not details:
        details.append(f"{_of(event.done_bytes, event.total_bytes)} {done}")
    if event.sent_bytes:
        details.append(f"{event.sent_bytes / MiB:,.1f} MiB sent")
    return list(filter(None, [*details, _rate(event), _left(event)]))


def _moved(event: Progress) -> str:
    """Returns what moves most steadily: bytes on a link, or else bytes that are done."""
    if event.sent_bytes:
        return f"{event.sent_bytes / MiB:,.1f} MiB sent"
    if event.to_read_bytes and event.phase != "pack":
        return _of(event.read_bytes, event.to_read_bytes)
    return _of(event.done_bytes, event.total_bytes)


def _rate(event: Progress) -> str:
    rate = event.read_rate if event.to_read_bytes and event.phase != "pack" else event.rate
    return f"{(event.sent_rate if event.sent_bytes else rate) / MiB:,.1f} MiB/s"


def _of(size: int, total: int) -> str:
    return f"{size / MiB:,.1f}/{total / MiB:,.1f} MiB"


def _left(event: Progress) -> str:
    if event.eta is None:
        return ""
    minutes, seconds = divmod(math.ceil(event.eta), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def _percent(event: Progress) -> int:
    return math.floor(event.part * 100)  # 100 means that nothing is left
