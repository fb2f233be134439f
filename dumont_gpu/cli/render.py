"""Shows the progress of a job: a bar, lines of a log, or JSON Lines, all from the same events."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from types import TracebackType
from typing import Final, Protocol

from dumont_gpu.cli.progress_line import bar_line, log_line
from dumont_gpu.progress import Notice, Progress
from dumont_gpu.sizes import one_line

PROGRESS_CHOICES: Final = ("auto", "bar", "lines", "none")
_LINE_INTERVAL: Final = 10.0  # seconds
_STATUS_INTERVAL: Final = 1.0
_COLUMNS: Final = 80  # of a terminal that does not say how wide it is
_BEGINS: Final = "begins ..."
_CLEAR: Final = "\r\x1b[K"


class Renderer(Protocol):
    def __call__(self, event: Progress) -> None: ...

    def notice(self, event: Notice) -> None: ...

    def __enter__(self) -> Renderer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_renderer(progress: str, *, as_json: bool) -> Renderer:
    """Returns the renderer for `--progress` and `--json`; "auto" shows a bar on a terminal and lines elsewhere."""
    if as_json:
        return JsonLines()
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"  # which knows no way back to a line's begin
    if progress == "bar" or (progress == "auto" and terminal):
        return Bar()
    return Silent() if progress == "none" else Lines()


class Silent:
    def __call__(self, event: Progress) -> None:
        pass

    def notice(self, event: Notice) -> None:
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Lines(Silent):
    """A line on stderr every 10 seconds: enough for a log; a shorter job prints none."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_INTERVAL

    def notice(self, event: Notice) -> None:
        print(one_line(str(event)), file=sys.stderr, flush=True)

    def __call__(self, event: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_INTERVAL
        print(log_line(event), file=sys.stderr, flush=True)


class JsonLines(Silent):
    def __init__(self) -> None:
        self._next = 0.0

    def notice(self, event: Notice) -> None:
        words = {"phase": "network", "location": event.location, "message": event.text}
        print(json.dumps({"type": "status", **words, **event.facts}), flush=True)

    def __call__(self, event: Progress) -> None:
        if time.monotonic() >= self._next or event.done_chunks == event.total_chunks:
            self._next = time.monotonic() + _STATUS_INTERVAL
            print(json.dumps({"type": "status", **asdict(event)}), flush=True)


class Bar(Silent):
    """One line of a terminal, written over again and again; at the end it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event: Progress | None = None

    def __call__(self, event: Progress) -> None:
        with self._lock:
            self._event = event
            self._draw()

    def notice(self, event: Notice) -> None:
        with self._lock:
            print(f"{_CLEAR}{one_line(str(event))}", file=sys.stderr)
            self._draw()

    def __enter__(self) -> Bar:
        print(end=_BEGINS, file=sys.stderr, flush=True)  # until there is something to count: a large tree is looked at
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._event = None
            print(end=_CLEAR, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if self._event is not None:
            print(end=f"{_CLEAR}{bar_line(self._event, _columns())}", file=sys.stderr, flush=True)


def _columns() -> int:
    """Returns the width of the terminal, asked each time: people drag windows."""
    try:
        return os.get_terminal_size(2).columns or _COLUMNS
    except OSError:
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() and int(columns) else _COLUMNS
