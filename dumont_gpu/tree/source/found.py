"""The entries that a scan of the source trees found."""

from __future__ import annotations

from dataclasses import dataclass, field

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile, SourceTree
from dumont_gpu.tree.source.small_files import SmallFiles


@dataclass(slots=True)
class Scan:
    """The result of a scan. Files and other entries are in path order."""

    trees: list[SourceTree] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    small: SmallFiles | None = None  # plain small files, if they were to be rows; the others are in `files`
    others: list[FileEntry] = field(default_factory=list)  # directories, symlinks, hard links
    root: FileEntry | None = None
    problems: list[Problem] = field(default_factory=list)
    excluded: int = 0  # entries left out by a pattern, with the content of excluded directories
    excluded_more: bool = False  # there are more: they were not all counted
    special: int = 0  # sockets, fifos and devices, which are not packed
    unfinished: list[FileEntry] = field(default_factory=list)  # unfinished files of this program, which are left out
    links_out: list[FileEntry] = field(default_factory=list)  # symlinks whose target is not packed
    named: int = 0  # entries that are sources themselves

    @property
    def is_empty(self) -> bool:
        """Whether the scan found no entry but the sources themselves."""
        return self.num_entries == self.named

    @property
    def num_entries(self) -> int:
        """How many tree entries were found."""
        return len(self.files) + len(self.others) + (self.small.count if self.small else 0)

    @property
    def size(self) -> int:
        """Bytes of all regular files."""
        return sum(file.entry.size for file in self.files) + (self.small.size if self.small else 0)

    def close(self) -> None:
        """Closes the source trees."""
        if self.small is not None:
            self.small.close()
        for tree in self.trees:
            tree.handles.close()
