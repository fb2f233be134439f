"""Shows the progress of a job: a bar, lines of a log, or JSON Lines, all from the same events."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Final, Protocol

from dumont_gpu.progress import Notice, Progress
from dumont_gpu.sizes import format_size, one_line

PROGRESS_CHOICES: Final = ("auto", "bar", "lines", "none")
_LINE_INTERVAL: Final = 10.0  # seconds
_STATUS_INTERVAL: Final = 1.0


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
    if progress == "bar" or (progress == "auto" and sys.stderr.isatty()):
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
        left = "" if event.eta is None else f", {event.eta:.0f} s left"
        print(
            f"{event.phase}: {format_size(event.done_bytes)} of {format_size(event.total_bytes)}, "
            f"{format_size(event.rate)}/s{left}",
            file=sys.stderr,
            flush=True,
        )


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
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("scan", total=None)

    def __call__(self, event: Progress) -> None:
        self._bar.update(
            self._task, description=event.phase, completed=event.done_bytes, total=event.total_bytes or None
        )

    def notice(self, event: Notice) -> None:
        self._bar.console.print(one_line(str(event)), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
