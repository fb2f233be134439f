"""Fills a target by a plan: directories first, then files, links last. Changes nothing outside, and loses no file.

Every component of a path is opened from its parent's descriptor without following symlinks. A file that replaces
another is written under a temporary name and renamed over the old file. From the first change to the end, a journal
stands in the target, so that an interrupted restore can be continued. A refusal by the file system concerns a single
entry (`refusals`); all other entries are restored.
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
    """Begins to fill `target`; finishes the restore when the block ends without an error.

    From the start of the block, an interrupted restore can be continued by the same command.

    Args:
        root: mode, time and owner of the target itself.

    Raises:
        DumontError, OSError: the target cannot be written to.
    """
    if plan.todo:
        target.begin(kept=plan.decision.kept_indices, durable=options.sync)
    tree = TreeWriter(target, plan, options, root)
    yield tree
    if plan.decision.complete:
        target.complete = True
    else:
        tree.finish()


class TreeWriter:
    """Carries out a plan in a target; made by `filling`."""

    def __init__(self, target: Target, plan: TreePlan, options: TargetOptions, root: FileEntry | None) -> None:
        self._target, self._plan, self._options, self._root = target, plan, options, root
        self.refusals = Refusals()
        metadata = Metadata(self.refusals, target.traits, root, options)
        leaders = Leaders(plan)
        self._replacing = Replacing(target, plan, options)
        shared = metadata, self.refusals
        self._files = FileWriter(target, plan, self._replacing, leaders, *shared, owner=options.owner)
        self._links = LinkWriter(target, plan, self._replacing, leaders, *shared)
        self._directories = DirectoryWriter(target, self._replacing, *shared, owner=options.owner)
        self._lost = False

    @property
    def copied_links(self) -> int:
        """Number of hard links that became copies."""
        return self._links.copied

    def make_directories(self) -> FileWriter:
        """Creates directories; returns the writer of the files in them.

        Raises:
            OSError: the file system fails, or a file stands in the way.
        """
        if not self._target.traits.modes:
            self._refuse_own_names()
        self._directories.make_all(self._plan.todo)
        return self._files

    def lose(self, path: str, reason: str) -> None:
        """Takes note, after all other files are written, that a file lacks bytes that nobody has.

        What was written of the file stays marked as unfinished. The journal stays, too: with a sound snapshot, the
        same restore can be completed.
        """
        self.refusals.refuse(path, reason)
        self._lost = True

    def finish(self) -> None:
        """Creates links, sets the metadata of directories and the target, and syncs. Raises as `make_directories`."""
        entries = self.refusals.present(self._plan.todo)
        for kind, make in (
            (EntryType.SYMLINK, self._links.make_symlink),
            (EntryType.HARDLINK, self._links.make_hard_link),
        ):
            for entry in entries.of_type(kind):
                self._directories.guarded(entry, make)
        if self._target.follows_another:
            self._remove_leftovers()
        self._directories.finish(entries)
        self._target.access.put_back()
        if self._target.begun:
            traits = self._target.traits
            self.refusals.ignored |= {name for name in ("modes", "times") if not getattr(traits, name)}
        with self._target.handles.lease("") as root_fd:
            if self._options.sync:
                _sync_file_system(root_fd)  # before the journal goes: without a journal, no run checks the files again
            if self._lost:
                return
            changed = self._target.fresh or self._options.overwrite != "never"
            self._directories.finish_target(root_fd, self._root if changed else None, sync=self._options.sync)

    def _refuse_own_names(self) -> None:
        """Refuses entries with names of a restore's own files: without modes, only names mark those files."""
        for entry in self._plan.todo:
            name = split(entry.path)[1]
            if entry.type is not EntryType.DIR and (name in NAMES or is_temporary_name(name)):
                self.refusals.refuse(entry.path, "a name that only dumont-gpu itself may use on this file system")

    def _remove_leftovers(self) -> None:
        """Deletes an interrupted run's temporary files, also beside entries that need no replacement now."""
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
