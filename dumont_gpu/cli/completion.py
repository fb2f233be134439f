"""What a shell offers for a value that is being typed: choices of an option, and paths inside a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from dumont_gpu.errors import DumontError

_MOST: Final = 500  # offers; a shell asks before it shows more


def words_of(metavar: str) -> Callable[[str], list[str]] | None:
    """Returns what completes a value written as `one|two|N`: the words, not what stands for a value; None: no words."""
    words = [word for word in metavar.split("|") if word == word.lower()] if "|" in metavar else []
    return (lambda incomplete: [word for word in words if word.startswith(incomplete)]) if words else None


def paths_inside(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the paths that go on from what is typed, up to the next slash; none over a network, which takes long."""
    location = context.params.get("snapshot")
    if not location or "://" in location:
        return []
    from dumont_gpu.columns.views import paths_of
    from dumont_gpu.snapshot.reader import read_snapshot
    from dumont_gpu.storage import open_source

    try:
        source = open_source(location)
    except DumontError:  # the command itself will say so
        return []
    offers: dict[str, None] = {}
    try:
        for paths in paths_of(read_snapshot(source).manifest.entries, slashes=True):
            for path in paths:
                if path.startswith(incomplete) and path != incomplete:
                    offers[path[: path.find("/", len(incomplete)) + 1] or path] = None
                    if len(offers) == _MOST:
                        return list(offers)
    except DumontError:
        return []
    finally:
        source.close()
    return list(offers)
