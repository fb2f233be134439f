"""Writes a file whole: whoever is killed, or runs out of room, leaves the old file or the new one, never a part."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replaces the content of `path`.

    Raises:
        OSError: the file could not be written; its old content is still there.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
