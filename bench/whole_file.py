"""Writes a file so that whoever is killed, or runs out of room, leaves the old one or the new one, never a part."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replaces the content of `path`.

    Raises:
        OSError: it could not be written; what was there still is.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
