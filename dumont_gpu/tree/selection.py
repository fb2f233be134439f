"""Which entries of a snapshot the patterns of a command name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry, with_new_leaders
from dumont_gpu.tree.globs import Patterns, chosen, places_of


class Selection(NamedTuple):
    entries: list[FileEntry]
    unmatched: tuple[str, ...] = ()  # patterns that match nothing


def select(
    entries: Sequence[FileEntry],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    target: str | None = None,
) -> Selection:
    """Returns the entries that `include` names (all, if it is empty) and `exclude` does not.

    Args:
        entries: of a snapshot, in its order.
        include: patterns.
        exclude: patterns.
        target: where the root of the snapshot is to be on disk: patterns may begin with that.

    Raises:
        UsageError: a malformed pattern, or nothing is left of what `include` asks for.
    """
    if not include and not exclude:
        return Selection(list(entries))
    kept, unmatched = _kept(entries, include, exclude, target)
    return Selection(list(compress(entries, kept)), unmatched)


def select_tree(
    entries: Sequence[FileEntry], include: Sequence[str], exclude: Sequence[str], target: str | None
) -> Selection:
    """As `select`, with the directories that the entries lie in, and hard links whose file is not among them mended."""
    if not include and not exclude:
        return Selection(list(entries))
    kept, unmatched = _kept(entries, include, exclude, target)
    folders = {entry.path.rpartition("/")[0] for entry in compress(entries, kept)}
    for path in list(folders):
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    selected = [entry for entry, keep in zip(entries, kept, strict=True) if keep or entry.path in folders]
    if any(entry.type is EntryType.HARDLINK for entry in selected):
        files = {entry.path: entry for entry in entries if entry.type is EntryType.FILE}
        selected = with_new_leaders(selected, files)
    return Selection(selected, unmatched)


def _kept(
    entries: Sequence[FileEntry], include: Sequence[str], exclude: Sequence[str], target: str | None
) -> tuple[list[bool], tuple[str, ...]]:
    """Says of each entry whether it is selected; see `select`."""
    places = {}
    if target is not None:
        top = {entry.path for entry in entries if "/" not in entry.path}
        places = places_of({target: ""}, lambda _, name: name in top)
    including, excluding = Patterns(include, places), Patterns(exclude, places)
    directory = EntryType.DIR
    paths = [f"{entry.path}/" if entry.type is directory else entry.path for entry in entries]
    kept = list(chosen(paths, including, excluding))
    unmatched = including.unmatched() + excluding.unmatched()
    if include and not any(kept):
        but = f" but not {', '.join(exclude)}" if exclude else ""
        raise UsageError(f"nothing in the snapshot matches {', '.join(include)}{but}")
    return kept, unmatched
