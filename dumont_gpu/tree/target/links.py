"""Creates symlinks and hard links; a hard link becomes a copy where the file system has none."""

from __future__ import annotations

import errno
import os
from typing import Final

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.handles import CREATE, REREAD, split
from dumont_gpu.tree.target.copies import copy_file
from dumont_gpu.tree.target.leftovers import fingerprint_of
from dumont_gpu.tree.target.metadata import Metadata
from dumont_gpu.tree.target.plan import TreePlan
from dumont_gpu.tree.target.refusals import Refusals, creating, refusal
from dumont_gpu.tree.target.replacing import Replacing
from dumont_gpu.tree.target.target import Target
from dumont_gpu.tree.target.temporary import temporary_name
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_NO_LINK: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)  # no links, or too many


class Leaders:
    """The leaders of a plan's hard links: the files that they lead to, by path in the snapshot."""

    def __init__(self, plan: TreePlan) -> None:
        links = (entry.target for entry in plan.todo.of_type(EntryType.HARDLINK))
        self._fingerprints = {target: plan.complete.get(target) for target in links}
        self._stand_ins: dict[str, str] = {}  # path of a refused leader -> path of the hard link that has its content

    def __contains__(self, path: object) -> bool:
        return path in self._fingerprints

    def note(self, path: str, fd: int) -> None:
        """Takes note that the file at `path`, open as `fd`, is complete."""
        leader = self._leader(path)
        if leader in self._fingerprints:
            self._fingerprints[leader] = fingerprint_of(os.fstat(fd))

    def stand_in(self, leader: str, link: str) -> None:
        """Takes note that `link` gets the content of its leader, which the file system refuses."""
        self._stand_ins[leader] = link

    def path_of(self, leader: str) -> str:
        """Returns the path in the target of a leader's content."""
        return self._stand_ins.get(leader, leader)

    def fingerprint(self, leader: str) -> tuple[int, ...] | None:
        """Returns the fingerprint of a leader, or None while the leader is incomplete."""
        return self._fingerprints.get(leader)

    def _leader(self, path: str) -> str:
        """Returns the leader whose content stands at `path` in the target."""
        if not self._stand_ins:
            return path
        return next((leader for leader, link in self._stand_ins.items() if link == path), path)


class LinkWriter:
    """Creates the links of a plan, after its files. Used by a single thread."""

    def __init__(
        self,
        target: Target,
        plan: TreePlan,
        replacing: Replacing,
        leaders: Leaders,
        metadata: Metadata,
        refusals: Refusals,
    ) -> None:
        self._target, self._plan, self._replacing = target, plan, replacing
        self._leaders, self._metadata, self._refusals = leaders, metadata, refusals
        self.copied = 0  # hard links that became copies

    def make_symlink(self, entry: FileEntry, parent: int, name: str) -> None:
        """Creates a symlink under `name` in the directory `parent`.

        Raises:
            OSError: the file system refuses the symlink, or fails.
        """

        def set_time(new: str) -> None:
            os.utime(new, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

        def give(new: str, uid: int, gid: int) -> None:
            os.chown(new, uid, gid, dir_fd=parent, follow_symlinks=False)

        def create(new: str) -> None:
            try:
                with creating(parent):
                    os.symlink(entry.target, new, dir_fd=parent)
            except OSError as error:
                if error.errno in _NO_LINK:
                    raise refusal(f"there can be no symlink here: {error.strerror}") from None
                raise
            self._metadata.attempt(entry.path, "times", lambda: set_time(new))
            self._metadata.give_owner(entry, lambda uid, gid: give(new, uid, gid))

        self._replacing.create(create, parent, name, entry)

    def make_hard_link(self, entry: FileEntry, parent: int, name: str) -> None:
        """Creates a hard link, or a copy of its leader, under `name` in the directory `parent`.

        Raises:
            OSError: the file system refuses the link, or fails; or another program replaced the leader.
        """
        path = self._leaders.path_of(entry.target)
        if path == entry.path:
            return  # this link stands in for its leader
        if self._refusals.is_refused(path):
            raise refusal("the file that it is a hard link of could not be restored")
        folder, leader = split(path)
        fingerprint = self._leaders.fingerprint(entry.target)
        if (
            self._target.resumed
            and entry.path in self._plan.decision.replaceable
            and self._is_linked(parent, name, fingerprint)
        ):
            return  # an earlier run created the link; rename() would do nothing for two names of the same file

        def create(new: str) -> None:
            with self._target.handles.lease(folder) as leader_parent:
                try:
                    os.link(leader, new, src_dir_fd=leader_parent, dst_dir_fd=parent, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _NO_LINK:
                        raise
                    # Without modes, half a copy under the entry's own name would pass for a complete file.
                    beside = new == name and not self._target.traits.modes
                    if beside:
                        self._replacing.clear(parent, name, entry)
                        new = temporary_name(name)
                    self._copy(leader_parent, leader, fingerprint, parent, new, entry.path)
                    if beside:
                        self._replacing.move(parent, new, name, entry)
                    return
            status = os.stat(new, dir_fd=parent, follow_symlinks=False)
            if fingerprint_of(status) != fingerprint:
                os.unlink(new, dir_fd=parent)
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")

        self._replacing.create(create, parent, name, entry)

    def _copy(
        self, leader_parent: int, leader: str, fingerprint: tuple[int, ...] | None, parent: int, new: str, path: str
    ) -> None:
        """Copies the leader to `new` in the directory `parent`."""
        source = os.open(leader, REREAD, dir_fd=leader_parent)
        try:
            status = os.fstat(source)
            if fingerprint_of(status) != fingerprint:
                raise OSError(errno.ESTALE, "the file it links to was replaced during the restore")
            with creating(parent):
                out = os.open(new, CREATE, UNFINISHED_MODE, dir_fd=parent)
            try:
                try:
                    copy_file(source, out)
                    self._metadata.set_like(out, status, path)
                finally:
                    os.close(out)
                if self._target.traits.only_closed:
                    again = os.open(new, REREAD, dir_fd=parent)
                    try:
                        self._metadata.set_like(again, status, path)
                    finally:
                        os.close(again)
            except BaseException:
                os.unlink(new, dir_fd=parent)
                raise
        finally:
            os.close(source)
        self.copied += 1

    @staticmethod
    def _is_linked(parent: int, name: str, fingerprint: tuple[int, ...] | None) -> bool:
        try:
            return fingerprint_of(os.stat(name, dir_fd=parent, follow_symlinks=False)) == fingerprint
        except FileNotFoundError:
            return False
