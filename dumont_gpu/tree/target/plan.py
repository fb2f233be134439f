"""What a restore does to its target, decided before anything there changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.target.leftovers import Fingerprint, Leftover


class SelectedEntries:
    """The entries that a restore is about, and their paths."""

    def __init__(self, entries: Sequence[FileEntry]) -> None:
        self.entries = entries
        self._paths: frozenset[str] | None = None  # made when a path is first asked for

    def paths(self) -> frozenset[str]:
        if self._paths is None:
            self._paths = frozenset(entry.path for entry in self.entries)
        return self._paths

    def file(self, path: str) -> FileEntry | None:
        """Returns the file at `path`, or the file that a hard link there stands for."""
        entry = next((entry for entry in self.entries if entry.path == path), None)
        return self.file(entry.target) if entry is not None and entry.type is EntryType.HARDLINK else entry


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the selected entries, given what stands in the target under their names."""

    wanted: Sequence[FileEntry]  # to be in the target when the restore ends
    kept_indices: frozenset[int] | None = None  # of the selected entries, those left alone; None: the target was empty
    kept: int = 0  # entries of the target left as they are, without directories
    kept_files: Sequence[FileEntry] = ()  # the regular files among them
    replaced: Sequence[str] = ()  # paths of what stands in the target and is written over
    replaceable: frozenset[str] = frozenset()  # paths that an interrupted run left: replaced whatever the policy says
    foreign: frozenset[str] = frozenset()  # of these, files that another program may have changed since


@dataclass(frozen=True, slots=True)
class TreePlan:
    """Everything that fills a target: made from the selected entries and the target, carried out by a TreeWriter."""

    selected: SelectedEntries
    decision: Decision
    todo: Sequence[FileEntry]  # the wanted entries that are not complete; a file has the extents still to be written
    begun: Mapping[str, Leftover] = field(default_factory=dict)  # path -> the unfinished file that is continued
    complete: Mapping[str, Fingerprint] = field(default_factory=dict)  # path of a file that is complete already
