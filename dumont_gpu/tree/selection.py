"""Selects entries of a snapshot by a command's patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, compress
from typing import NamedTuple

from dumont_gpu.columns.table import EntryTable, as_table, part_of, rows_at
from dumont_gpu.columns.views import paths_of
from dumont_gpu.errors import UsageError
from dumont_gpu.format.entries import EntryType, FileEntry, with_new_leaders
from dumont_gpu.format.paths import printable
from dumont_gpu.tree.globs import Patterns, chosen, roots_of


class Selection(NamedTuple):
    """The entries that a command's patterns select."""

    entries: Sequence[FileEntry]
    unmatched: tuple[str, ...] = ()  # patterns that match nothing


def matching(entries: Sequence[FileEntry], pattern: str) -> Iterator[FileEntry]:
    """Returns the entries that a pattern names.

    Raises:
        UsageError: the pattern is malformed, or names nothing.
    """
    kept, _ = _kept(entries, (pattern,), (), None)
    return (entries[index] for index in compress(range(len(entries)), kept))


def select_tree(
    entries: Sequence[FileEntry], include: Sequence[str], exclude: Sequence[str], target: str | None
) -> Selection:
    """Selects the entries that `include` names (all entries, if empty) and `exclude` does not, with their directories.

    A hard link whose leader is not selected gets a new leader.

    Args:
        entries: tree entries of a snapshot, in the snapshot's order.
        include: patterns.
        exclude: patterns.
        target: the path on disk of the snapshot's root, with which patterns may begin.

    Raises:
        UsageError: a pattern is malformed, or `include` is not empty but selects nothing.
    """
    if not include and not exclude:
        return Selection(entries)
    kept, unmatched = _kept(entries, include, exclude, target)
    table = as_table(entries)
    rows = set(compress(range(len(table)), kept))
    folders: set[str] = set()
    for row in rows:
        path = table.path(row)
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    rows.update(rows_at(table, folders))
    selected = part_of(table, sorted(rows))
    links = list(selected.of_type(EntryType.HARDLINK))
    if links:
        leaders = {table.path(row): table[row] for row in rows_at(table, {link.target for link in links})}
        selected = EntryTable(with_new_leaders(selected, leaders))
    return Selection(selected, unmatched)


def _kept(
    entries: Sequence[FileEntry], include: Sequence[str], exclude: Sequence[str], target: str | None
) -> tuple[list[bool], tuple[str, ...]]:
    """Returns whether each entry is selected, and the patterns that match nothing; see `select_tree`."""
    roots = {}
    if target is not None:
        top = {path for path in chain.from_iterable(paths_of(entries)) if "/" not in path}
        roots = roots_of({target: ""}, lambda _, name: name in top)
    including, excluding = Patterns(include, roots), Patterns(exclude, roots)
    paths = chain.from_iterable(paths_of(entries, slashes=True))
    kept = list(chosen(paths, including, excluding))
    unmatched = including.unmatched() + excluding.unmatched()
    if include and not any(kept):
        but = f" but not {', '.join(map(printable, exclude))}" if exclude else ""
        raise UsageError(f"nothing in the snapshot matches {', '.join(map(printable, include))}{but}")
    return kept, unmatched
