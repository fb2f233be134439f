"""Fills a target by a plan: directories first, then files, links at the end; nothing outside it, nothing there lost.

Every component is opened from its parent's descriptor without following symlinks; symlinks and hard links come last.
A file that replaces another is written beside it and renamed over it. From the first change to the end a journal
stands in the target, so that a restore that is cut short continues from the files it wrote. An entry that the file
system refuses is a problem of that entry (`refusals`); everything else is restored.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.handles import split
from dumont_gpu.tree.target.directories import DirectoryWriter
from dumont_gpu.tree.target.files import FileWriter
from dumont_gpu.tree.target.journal import NAMES
from dumont_gpu.tree.target.links import Leaders, LinkWriter
from dumont_gpu.tree.target.messages import located
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.options import TargetOptions
from dumont_gpu.tree.target.plan import TreePlan
from dumont_gpu.tree.target.refusals import Refusals, is_refusal
from dumont_gpu.tree.target.replacing import Replacing
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import is_temporary_name


@contextmanager
def filling(
    target: Target, plan: TreePlan, options: TargetOptions, root: FileEntry | None = None
) -> Iterator[TreeWriter]:
    """Begins to fill `target`, and finishes it when the block ends without an error.

    From the start of the block, the same command continues an interrupted restore.

    Args:
        root: mode, time and owner of the target itself.
    """
    if plan.todo:
        target.begin(kept=plan.decision.kept_indices, durable=options.sync)
    tree = TreeWriter(target, plan, options, root)
    yield tree
    tree.finish()


class TreeWriter:
    """Carries out one plan in one target; made by `filling`."""

    def __init__(self, target: Target, plan: TreePlan, options: TargetOptions, root: FileEntry | None) -> None:
        self._target, self._plan, self._options, self._root = target, plan, options, root
        self.refusals = Refusals()
        metadata = Metadata(self.refusals, target.traits, root, options)
        leaders = Leaders(plan)
        self._replacing = Replacing(target, plan, options)
        told = metadata, self.refusals
        self._files = FileWriter(target, plan, self._replacing, leaders, *told, owner=options.owner)
        self._links = LinkWriter(target, plan, self._replacing, leaders, *told)
        self._directories = DirectoryWriter(target, self._replacing, *told, owner=options.owner)

    @property
    def copied_links(self) -> int:
        """Hard links that became files of their own."""
        return self._links.copied

    def make_directories(self) -> FileWriter:
        """Creates directories and files without extents; returns the writer for the content of all other files."""
        if not self._target.traits.modes:
            self._refuse_own_names()
        for entry in self._plan.todo:
            if entry.type is EntryType.DIR:
                self._directories.make(entry.path)
            elif entry.type is EntryType.FILE and not entry.extents:
                self._files.write(entry, [])
        return self._files

    def finish(self) -> None:
        """Creates symlinks and hard links, gives directories their modes and times, and syncs."""
        entries = self.refusals.present(self._plan.todo)
        for kind, make in (
            (EntryType.SYMLINK, self._links.make_symlink),
            (EntryType.HARDLINK, self._links.make_hard_link),
        ):
            for entry in entries:
                if entry.type is kind:
                    self._directories.guarded(entry, make)
        if self._target.follows_another:
            self._remove_leftovers()
        self._directories.finish([entry for entry in entries if entry.type is EntryType.DIR])
        self._target.access.put_back()
        if self._target.begun:
            traits = self._target.traits
            self.refusals.ignored |= {name for name in ("modes", "times") if not getattr(traits, name)}
        with self._target.handles.lease("") as root_fd:
            if self._options.sync:
                _sync_file_system(root_fd)  # before the journal goes: without it, nobody checks the files again
            changed = self._target.fresh or self._options.overwrite != "never"
            self._directories.finish_target(root_fd, self._root if changed else None, sync=self._options.sync)

    def _refuse_own_names(self) -> None:
        """Without modes, only names tell a restore's own files: no entry may have such a name."""
        for entry in self._plan.todo:
            name = split(entry.path)[1]
            if entry.type is not EntryType.DIR and (name in NAMES or is_temporary_name(name)):
                self.refusals.refuse(entry.path, "a name that only dumont-gpu itself may use on this file system")

    def _remove_leftovers(self) -> None:
        """Removes temporary files of an interrupted run beside entries that need no replacing any more."""
        for entry in self._plan.selected.entries:
            if entry.type is not EntryType.DIR:
                self._remove_leftover(entry)

    def _remove_leftover(self, entry: FileEntry) -> None:
        folder, name = split(entry.path)
        try:
            self._target.access.attempt(folder, lambda parent: self._replacing.clear(parent, name, entry))
        except FileNotFoundError:  # the directory does not exist
            pass
        except OSError as error:
            if not is_refusal(error):  # another program's file, or a directory that cannot exist here
                raise located(error, self._target.path, entry.path) from error


def _sync_file_system(fd: int) -> None:
    """Calls syncfs once, in place of an fsync per file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
