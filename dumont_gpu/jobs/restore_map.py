"""Restores several parts of a snapshot, each to a place of its own: sources that were packed together come back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from dumont_gpu.columns.table import as_table
from dumont_gpu.columns.views import paths_of
from dumont_gpu.errors import UsageError
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.snapshot.inside import entry_at_path, normal_path
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import Source

_NAMED: Final = 3  # paths that a message names
_SPECIAL: Final = re.compile(r"[*?\[\\]")  # characters that mean something in a pattern


class Part(NamedTuple):
    """A part of a snapshot, and where it is restored."""

    inside: str  # "": everything that no other part has
    target: str
    options: RestoreOptions


def parse_map(texts: Sequence[str]) -> dict[str, str]:
    """Returns path in the snapshot -> path on disk for texts like `NAME=PATH`.

    Raises:
        UsageError: a text is no such pair, or two name the same part, or one part lies in another.
    """
    places: dict[str, str] = {}
    for text in texts:
        name, _, place = text.partition("=")
        name = normal_path(name)
        if not name or not place:
            raise UsageError(f"--map {printable(text)}: write NAME=PATH, a name in the snapshot and a place on disk")
        for other in places:
            if f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/"):
                raise UsageError(f"--map: {printable(other)} and {printable(name)} have entries in common")
        places[name] = os.path.expanduser(place)  # noqa: PTH111 - leaves an unknown ~user; not every shell expands ~ after =
    return places


def parts_of(source: Source, places: Mapping[str, str], rest: str | None, options: RestoreOptions) -> Iterator[Part]:
    """Yields what to restore where, once it is sure that every part exists and nothing is forgotten.

    Args:
        source: the snapshot.
        places: path in the snapshot -> path on disk.
        rest: where everything else goes; None: nothing else may be there.
        options: of each restore; patterns are compared with the paths within a part.

    Raises:
        UsageError: `rest` is None, and the snapshot has entries that no part has; two parts would go to one place; or
            the options name parts, too.
        SnapshotNotFoundError: the snapshot does not hold a part.
        DamagedError, UnsupportedError, DumontError: as `read_snapshot`.
    """
    if options.include or options.strip:
        raise UsageError("--map says which parts go where: leave --include and --strip out")
    targets = [place for place in (*places.values(), rest) if place is not None]
    if len({os.path.realpath(place) for place in targets}) < len(targets):
        raise UsageError("--map: two parts would be mixed in one place: name another place for each")
    snapshot = read_snapshot(source, options.expect)
    table = as_table(snapshot.manifest.entries)
    for name in places:
        entry_at_path(snapshot, table, name)
    if rest is None:
        left = [path for paths in paths_of(table) for path in paths if not _is_mapped(path, places)]
        if left:
            more = f" and {len(left) - _NAMED:,} more" if len(left) > _NAMED else ""
            named = ", ".join(map(printable, left[:_NAMED]))
            raise UsageError(f"no --map says where {named}{more} shall go: add one, or name a TARGET for the rest")
    else:
        others = [f"/{_SPECIAL.sub(lambda found: chr(92) + found[0], name)}" for name in places]
        yield Part("", rest, replace(options, exclude=(*options.exclude, *others)))
    for name, place in places.items():
        yield Part(name, place, options)


def _is_mapped(path: str, places: Mapping[str, str]) -> bool:
    """Whether a part has the entry, or lies below the entry."""
    return any(f"{path}/".startswith(f"{name}/") or name.startswith(f"{path}/") for name in places)
