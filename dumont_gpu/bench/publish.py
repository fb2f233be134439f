"""Shows a record, and keeps it in files: no other module knows every form of a record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dumont_gpu.bench.report.machine import cpu_slug, slug
from dumont_gpu.bench.report.page import page
from dumont_gpu.bench.report.plot import picture
from dumont_gpu.bench.report.record import Record
from dumont_gpu.bench.report.text import markdown, print_tables
from dumont_gpu.disk.outputs import check_output
from dumont_gpu.errors import UsageError

_MARK: Final = b"<title>dumont-gpu "  # near the start of every picture of a benchmark
_PICTURES: Final[dict[str, Callable[[Record], str]]] = {".svg": picture, ".html": page}


def check_picture(plot: str | None) -> None:
    """Refuses a picture that cannot be drawn or written, before anything is measured.

    Raises:
        UsageError: the kind is unknown, or the picture would replace a file that is no picture of a benchmark.
    """
    if plot is None:
        return
    if Path(plot).suffix not in _PICTURES:
        raise UsageError(f"--plot {plot}: name a file that ends in {' or '.join(_PICTURES)}")
    check_output(plot, expendable=lambda head: _MARK in head, kind="picture of a benchmark", way_out="")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yields a function that reports progress on stderr: a line that changes on a terminal, or lines of a log."""
    if quiet:
        yield lambda text: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("bench", spinner="line") as status:
            yield lambda text: status.update(f"bench: {text}")
    else:
        yield lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)


def show(record: Record, *, as_json: bool, as_markdown: bool) -> None:
    """Prints the record on stdout."""
    if as_json:
        print(json.dumps({"type": "summary", **record}))
    elif as_markdown:
        print(markdown(record), end="")
    else:
        print_tables(record)


def publish(record: Record, plot: str | None, results: str | None) -> None:
    """Writes the picture `plot`, and the record in every form into the folder `results`."""
    if plot is not None:
        _write(Path(plot), _PICTURES[Path(plot).suffix](record))
    if results is not None:
        folder = Path(results)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"bench-{machine_slug(record)}"
        _write(folder / f"{name}.json", json.dumps(record) + "\n")
        _write(folder / f"{name}.md", markdown(record))
        _write(folder / f"{name}.svg", picture(record))


def machine_slug(record: Record) -> str:
    """Returns the names of processor and device for use in a file name."""
    return "-".join(filter(None, (cpu_slug(), slug(record["device"]["detail"] if record["device"]["name"] else ""))))


def _write(path: Path, text: str) -> None:
    check_output(str(path), force=True, kind="result")  # no device, no pipe; a file of this name is a result
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)
