"""The plan for a target, decided before the target changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dumont_gpu.columns.table import EntryTable, rows_at
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.target.leftovers import Fingerprint, Leftover


class SelectedEntries:
    """The entries that a restore selects from its snapshot, and their paths."""

    def __init__(self, entries: EntryTable, unmatched: tuple[str, ...] = (), left_out: int = 0) -> None:
        self.entries = entries
        self.unmatched = unmatched  # patterns that match nothing
        self.left_out = left_out  # files and links whose path `strip` leaves no name
        self._paths: frozenset[str] | None = None  # built on first use: most restores need no paths

    def paths(self) -> frozenset[str]:
        """Returns the paths of the entries."""
        if self._paths is None:
            self._paths = frozenset(self.entries.path(row) for row in range(len(self.entries)))
        return self._paths

    def file(self, path: str) -> FileEntry | None:
        """Returns the entry at `path`, or the leader of a hard link at `path`; None without an entry."""
        row = self.entries.find(path)
        entry = None if row is None else self.entries[row]
        return self.file(entry.target) if entry is not None and entry.type is EntryType.HARDLINK else entry


@dataclass(frozen=True, slots=True)
class Decision:
    """Which selected entries are written and which are kept, given the files that stand in the target."""

    wanted: EntryTable  # entries that the restore must bring into the target
    kept_indices: frozenset[int] | None = None  # indices of kept entries among the selected; None: no entry existed
    kept: int = 0  # entries of the target left as they are, without directories
    kept_files: Sequence[FileEntry] = ()  # the regular files among the kept entries
    replaced: Sequence[str] = ()  # paths of the files and links of the target that are written over
    newer: Sequence[str] = ()  # those of `replaced` that were changed after the snapshot's
    replaceable: frozenset[str] = frozenset()  # paths that an interrupted run left: replaced whatever the policy says
    complete: bool = False  # every entry stood there before: there is nothing to do, and nothing is written
    foreign: frozenset[str] = frozenset()  # replaceable paths of files that another program may have changed


@dataclass(frozen=True, slots=True)
class TreePlan:
    """The steps that fill a target: made from the selected entries and the target, carried out by a TreeWriter."""

    selected: SelectedEntries
    decision: Decision
    todo: EntryTable  # the wanted entries that are not complete; a file has the extents still to be written
    begun: Mapping[str, Leftover] = field(default_factory=dict)  # path -> the unfinished file that is continued
    complete: Mapping[str, Fingerprint] = field(default_factory=dict)  # path -> fingerprint of a complete file

    def apart(self) -> Iterator[int]:
        """Yields the indices in `todo` of files that are not written together with others.

        They are files that are continued, files that stand in the place of another, and leaders of hard links, whose
        identity must be known.
        """
        leaders = {entry.target for entry in self.todo.of_type(EntryType.HARDLINK)}
        return rows_at(self.todo, leaders.union(self.begun, self.decision.replaced, self.decision.replaceable))
