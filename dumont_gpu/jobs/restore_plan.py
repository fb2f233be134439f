"""Plans a restore into a target: `-n` prints the plan, and a run carries it out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dumont_gpu import native
from dumont_gpu.columns.placement import Placement
from dumont_gpu.columns.table import EntryTable, as_table, changed_files, rows_at
from dumont_gpu.columns.views import count_types
from dumont_gpu.errors import DumontError, NoSpaceError
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.resources import memory_share, thread_count
from dumont_gpu.jobs.resume import Checker, altered, remaining
from dumont_gpu.progress import ProgressCallback
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.tree.renaming import strip
from dumont_gpu.tree.selection import select_tree
from dumont_gpu.tree.target.journal import NAMES, Journal
from dumont_gpu.tree.target.leftovers import Leftovers
from dumont_gpu.tree.target.options import TargetOptions
from dumont_gpu.tree.target.plan import Decision, SelectedEntries, TreePlan
from dumont_gpu.tree.target.policy import Policy
from dumont_gpu.tree.target.target import Target, check_creatable


@dataclass(frozen=True)  # without slots: cached properties need a dictionary
class RestorePlan:
    """Everything that a restore will do to its target. Sizes are bytes."""

    snapshot: Snapshot
    tree: TreePlan
    placement: Placement  # the chunks to fetch, and the extents to write from each
    resumed: bool  # the restore continues an interrupted one
    altered: int  # files that would have been kept, but have other content (with `verify`)
    check_seconds: float | None  # busy time of reading the target's files; None: no file was read

    @property
    def entries(self) -> EntryTable:
        """The entries to restore, including entries that an interrupted run has written."""
        return self.tree.decision.wanted

    @property
    def counts(self) -> dict[str, int]:
        """How many of `entries` are files, directories and links, by the format's names."""
        return {kind.value: count for kind, count in count_types(self.entries).items()}

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Patterns that match nothing."""
        return self.tree.selected.unmatched

    @cached_property
    def needed_chunks(self) -> frozenset[int]:
        """The chunks that hold bytes of `entries`, including bytes that are in the target already."""
        written = self.tree.todo is self.entries
        return frozenset(self.placement if written else Placement(self.entries, len(self.snapshot.chunks)))

    @property
    def changed_files(self) -> tuple[str, ...]:
        """Paths of the files that changed while they were packed."""
        return tuple(file.path for file in changed_files(self.entries))

    @property
    def left_out(self) -> int:
        """Files and links that `strip` leaves out."""
        return self.tree.selected.left_out

    @property
    def original_size(self) -> int:
        """Bytes of the files among `entries`."""
        return self.entries.total_size()

    @property
    def compressed_size(self) -> int:
        """Encoded bytes of the needed chunks."""
        return sum(self.snapshot.chunks[chunk].size_compressed for chunk in self.needed_chunks)

    @property
    def num_chunks(self) -> int:
        """Number of the needed chunks."""
        return len(self.needed_chunks)

    @property
    def fetched_size(self) -> int:
        """Encoded bytes to read."""
        return sum(self.snapshot.chunks[chunk].size_compressed for chunk in self.placement)

    @property
    def decoded_size(self) -> int:
        """Raw bytes of the chunks to read."""
        return sum(self.snapshot.chunks[chunk].size_original for chunk in self.placement)

    @property
    def already_there(self) -> bool:
        """Whether every entry stands in the target already: a restore writes nothing."""
        return self.tree.decision.complete

    @property
    def new(self) -> tuple[str, ...]:
        """Paths of the files and links that are written where nothing stands."""
        todo, replaced = self.tree.todo, set(self.replaced)
        paths = (todo.path(row) for row, number in enumerate(todo.types()) if number != native.DIR)
        return tuple(path for path in paths if path not in replaced)

    @property
    def replaced(self) -> tuple[str, ...]:
        """Paths of the files and links of the target that are written over."""
        return tuple(self.tree.decision.replaced)

    @property
    def newer(self) -> tuple[str, ...]:
        """Paths of the files among `replaced` that were changed after the snapshot's."""
        return tuple(self.tree.decision.newer)

    @property
    def kept(self) -> int:
        """Entries of the target that stay as they are, without directories."""
        return self.tree.decision.kept


def target_options(options: RestoreOptions) -> TargetOptions:
    """Returns the options that concern the target."""
    return TargetOptions(options.overwrite, options.preserve_special, options.owner, options.sync)


def open_target(
    path: str, snapshot: Snapshot, selected: SelectedEntries, options: RestoreOptions, *, read_only: bool = False
) -> Target:
    """Opens the target of a restore; raises as `Target` does."""
    tables = as_table(snapshot.manifest.entries), selected.entries  # whose paths differ if names are stripped
    names = {entries.path(row) for entries in tables for row in rows_at(entries, NAMES)}
    return Target(path, _journal(snapshot, options), options.overwrite, names, read_only=read_only)


def select_entries(snapshot: Snapshot, options: RestoreOptions, target: str | None) -> SelectedEntries:
    """Returns the entries that the include and exclude patterns select, with their parent directories.

    Patterns are compared with the paths that the snapshot has; `options.strip` comes after them.

    Raises:
        UsageError: a pattern is malformed, no entry matches `include`, or `strip` brings two entries under one path.
        DumontError: the entries declare more than `options.max_size` bytes.
    """
    selection = select_tree(snapshot.manifest.entries, options.include, options.exclude, target)
    entries = as_table(selection.entries)
    size = entries.total_size()
    if size > options.max_size:
        raise DumontError(
            f"{snapshot.source.location}: the files are said to have {size} bytes; --max-size {size} allows it"
        )
    if not options.strip:
        return SelectedEntries(entries, selection.unmatched)
    stripped = strip(entries, options.strip)
    return SelectedEntries(stripped.entries, selection.unmatched, stripped.left_out)


def make_plan(
    snapshot: Snapshot,
    selected: SelectedEntries,
    target: Target,
    options: RestoreOptions,
    progress: ProgressCallback | None = None,
) -> RestorePlan:
    """Plans a restore into a directory that exists, and changes nothing there.

    Raises:
        UsageError, DumontError: a file stands in the way (see `Policy`), or a bound is exceeded.
        NoSpaceError: the file system has too little room.
        OSError: the target cannot be written to.
    """
    policy = Policy(target, selected, options.overwrite, owner=options.owner)
    checker = Checker(
        Leftovers(target, target_options(options)),
        snapshot.digest,
        thread_count(options.jobs),
        options.memory or memory_share(),
        progress,
    )
    decision = policy.decide()
    wrong: set[str] = set()
    checks = decision.complete or options.overwrite == "if-changed"
    if options.verify and checks and decision.kept_files:
        wrong = altered(decision.kept_files, checker)
        if wrong:
            decision = policy.decide(wrong)
    tree = TreePlan(selected, decision, decision.wanted)
    if target.resumed:
        wanted = list(decision.wanted)
        rest = remaining(_files(wanted), checker, decision.foreign, target.path)
        todo = [rest.todo.get(entry.path) if entry.type is EntryType.FILE else entry for entry in wanted]
        tree = replace(
            tree,
            todo=EntryTable(entry for entry in todo if entry is not None),
            begun=rest.begun,
            complete=rest.complete,
        )
    plan = _plan(snapshot, tree, target.resumed, len(wrong), checker.seconds)
    if tree.todo:
        target.check_writable()
    _check_bounds(plan, options, target.statvfs(), target.path)
    return plan


def plan_new_target(
    snapshot: Snapshot, selected: SelectedEntries, target: str | None, options: RestoreOptions
) -> RestorePlan:
    """Plans a restore into a directory that does not exist. Raises as `make_plan`.

    Args:
        target: path of the directory; None plans without a file system to check.
    """
    tree = TreePlan(selected, Decision(selected.entries), selected.entries)
    plan = _plan(snapshot, tree, resumed=False, altered=0, seconds=None)
    if target is not None:
        _check_bounds(plan, options, os.statvfs(check_creatable(target)), target)
    return plan


def _plan(snapshot: Snapshot, tree: TreePlan, resumed: bool, altered: int, seconds: float | None) -> RestorePlan:
    placement = Placement(tree.todo, len(snapshot.chunks), tree.apart())
    return RestorePlan(snapshot, tree, placement, resumed, altered, seconds)


def _check_bounds(plan: RestorePlan, options: RestoreOptions, status: os.statvfs_result, target: str) -> None:
    """Refuses a plan that decodes more than allowed or fills the disk; `status`: of the target's file system."""
    if plan.decoded_size > options.max_size:
        raise DumontError(f"the chunks decode to {plan.decoded_size} bytes; --max-size {plan.decoded_size} allows it")
    needed = native.size_in_blocks(plan.tree.todo.columns, status.f_frsize or 1)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and needed > free:
        raise NoSpaceError(f"{target}: {needed} bytes are needed, {free} are free: {needed - free} are missing")


def _journal(snapshot: Snapshot, options: RestoreOptions) -> Journal:
    """Returns the identity of a restore: only a command with the same identity continues an interrupted run."""
    patterns = [_in_order(options.include), _in_order(options.exclude)]
    selection: list[object] = [*patterns, options.owner, options.preserve_special]
    if snapshot.inside or options.strip:
        selection += [os.fsencode(snapshot.inside).hex(), options.strip]
    return Journal(snapshot.id, hashlib.sha256(json.dumps(selection).encode()).hexdigest())


def _in_order(patterns: Sequence[str]) -> list[str]:
    """Sorts patterns unless their order matters, as it does with a pattern that takes entries back (`!`)."""
    return list(patterns) if any(pattern.startswith("!") for pattern in patterns) else sorted(patterns)


def _files(entries: Sequence[FileEntry]) -> list[FileEntry]:
    return [entry for entry in entries if entry.type is EntryType.FILE]
