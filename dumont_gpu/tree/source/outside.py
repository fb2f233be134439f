"""Finds the symlinks of a scan that lead out of everything packed, and packs their targets on request.

A target is found by opening the symlink: the kernel resolves it, once. The target's files are then opened from handles,
as all files are. A target that is reached twice is packed once: a second name of a file becomes a hard link, and a
second name of a directory becomes a relative symlink to the first, which also ends loops.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import DirectoryHandles, split
from dumont_gpu.tree.links_out import leads_out, resolve

if TYPE_CHECKING:
    from dumont_gpu.tree.source.files import SourceTree
    from dumont_gpu.tree.source.scan import _Scanner

_FOLLOW: Final = os.O_PATH | os.O_CLOEXEC
_LEADS_TO_NOTHING: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Link:
    path: str  # in the snapshot
    target: str
    tree: SourceTree
    relative: str  # path within `tree.handles`


class OutsideLinks:
    """Collects the symlinks of a scan that may lead out of the packed trees."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}  # real path of a packed file or directory -> its path in the snapshot
        self._links: dict[str, _Link] = {}  # absolute or climbing symlinks, by path

    def add_root(self, folder: Path, path: str) -> None:
        """Adds a packed tree: `folder` and everything below, at `path` in the snapshot."""
        self._roots.setdefault(os.path.realpath(folder), path)

    def note(self, path: str, target: str, tree: SourceTree, relative: str) -> None:
        """Takes note of a symlink, if its target can lie outside.

        Args:
            path: in the snapshot.
            target: the symlink's text.
            tree: the tree that holds the symlink.
            relative: path within the tree's handles.
        """
        if target.startswith("/") or ".." in target:
            self._links[path] = _Link(path, target, tree, relative)

    def leading_out(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Returns the symlinks among `entries` whose target is not in the snapshot, or is another entry there."""
        links = {entry.path: entry.target for entry in entries if entry.type is EntryType.SYMLINK}
        return [
            entry
            for entry in entries
            if entry.type is EntryType.SYMLINK
            and (leads_out(entry.path, entry.target, links) or self._misleads(entry, links))
        ]

    def follow(self, scanner: _Scanner) -> None:
        """Packs the targets of symlinks in place of the symlinks; also for symlinks inside those targets."""
        _Follower(self, scanner).run()

    def leaving(self, links: dict[str, str]) -> list[_Link]:
        """Returns the symlinks that leave their source, in path order; `links`: path -> text of every symlink."""
        return [link for _, link in sorted(self._links.items()) if self._leaves(link, links)]

    def snapshot_path(self, real: str) -> str | None:
        """Returns the path in the snapshot of a real path, even if patterns leave it out; None for a path outside."""
        at = real
        while at.startswith("/"):  # for a pipe, `real` is no path
            if at in self._roots:
                below = real[len(at) :].lstrip("/")
                return "/".join(filter(None, (self._roots[at], below)))
            at = split(at)[0] or "/" * (at != "/")
        return None

    @staticmethod
    def _leaves(link: _Link, links: dict[str, str]) -> bool:
        if leads_out(link.path, link.target, links):
            return True
        prefix = link.tree.prefix
        path = resolve(link.path, link.target, links)
        return bool(prefix) and path is not None and path != prefix and not path.startswith(prefix + "/")

    def _misleads(self, entry: FileEntry, links: dict[str, str]) -> bool:
        """Whether a symlink's target in the snapshot is not its target among the sources."""
        link = self._links.get(entry.path)
        if link is None or link.target != entry.target or not self._leaves(link, links):
            return False
        try:
            found = open_target(link)
        except OSError as error:  # a target that this user may not see is not packed
            if is_shortage(error.errno):
                raise
            return True
        if found is None:
            return False
        fd, real = found
        os.close(fd)
        return self.snapshot_path(real) != resolve(link.path, link.target, links)


def open_target(link: _Link) -> tuple[int, str] | None:
    """Opens a symlink's target without reading it; returns the descriptor and the real path, None without a target.

    Raises:
        OSError: the target cannot be reached, though it may exist.
    """
    folder, name = split(link.relative)
    try:
        with link.tree.handles.lease(folder) as parent:
            fd = os.open(name, _FOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno in _LEADS_TO_NOTHING:
            return None
        raise
    try:
        return fd, str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        os.close(fd)
        raise


class _Follower:
    def __init__(self, links: OutsideLinks, scanner: _Scanner) -> None:
        self._links, self._scanner = links, scanner
        self._seen: set[str] = set()  # paths of symlinks that were followed
        self._replaced: set[str] = set()  # paths of symlinks that gave way to their targets
        self._aliases: dict[str, str] = {}  # path of a symlink -> path of its target in the snapshot
        self._outside: SourceTree | None = None  # rooted at /

    def run(self) -> None:
        others = self._scanner.result.others
        while True:
            known = {entry.path: entry.target for entry in self._kept(others) if entry.type is EntryType.SYMLINK}
            waiting = [link for link in self._links.leaving(known) if link.path not in self._seen]
            if not waiting:
                break
            for link in waiting:
                self._seen.add(link.path)
                try:
                    self._follow(link, known)
                except OSError as error:
                    self._scanner.problem(link.path, error)
        others[:] = self._with_new_targets(self._kept(others))

    def _kept(self, entries: list[FileEntry]) -> list[FileEntry]:
        """Returns the entries without the symlinks that gave way to their targets."""
        return [entry for entry in entries if entry.type is not EntryType.SYMLINK or entry.path not in self._replaced]

    def _follow(self, link: _Link, known: dict[str, str]) -> None:
        found = open_target(link)
        if found is None:
            return
        fd, real = found
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        inside = self._links.snapshot_path(real)
        if inside is not None:
            if link.target.startswith("/") or inside != resolve(link.path, link.target, known):
                self._aliases[link.path] = inside
        elif stat.S_ISDIR(status.st_mode):
            self._add_directory(link, real, status)
        elif stat.S_ISREG(status.st_mode):
            self._add_file(link, real, status)

    def _add_directory(self, link: _Link, real: str, status: os.stat_result) -> None:
        base = real.strip("/")
        tree = self._tree(Path(real), link.path, base)
        with tree.handles.lease(base) as fd:
            _check_same(os.fstat(fd), status)
        self._links.add_root(Path(real), link.path)
        self._replaced.add(link.path)
        self._scanner.result.others.append(self._scanner.entry(link.path, EntryType.DIR, status))
        self._scanner.walk(tree)

    def _add_file(self, link: _Link, real: str, status: os.stat_result) -> None:
        folder, name = split(real.lstrip("/"))
        tree = self._tree(Path("/"), "", folder)
        with tree.handles.lease(folder) as parent:
            _check_same(os.stat(name, dir_fd=parent, follow_symlinks=False), status)
            # Other symlinks may lead to this file: it counts as a file of several names.
            links = max(2, status.st_nlink)
            self._scanner.add_file(tree, link.path, real.lstrip("/"), name, status, parent, links=links)
        self._replaced.add(link.path)

    def _tree(self, root: Path, prefix: str, folder: str) -> SourceTree:
        """Returns a tree outside the sources whose handles may open `folder` (relative to /) by its whole path."""
        from dumont_gpu.tree.source.files import SourceTree

        if self._outside is None:
            self._outside = SourceTree(Path("/"), "", DirectoryHandles(os.open("/", _ROOT)))
            self._scanner.result.trees.append(self._outside)
        handles = self._outside.handles
        handles.admitted.add(folder)
        return SourceTree(root, prefix, handles, folder) if prefix else self._outside

    def _with_new_targets(self, entries: list[FileEntry]) -> list[FileEntry]:
        """Makes symlinks to packed entries relative: they then lead there wherever the snapshot is restored."""
        if not self._aliases:
            return entries
        present = {entry.path for entry in entries} | {file.entry.path for file in self._scanner.result.files} | {""}
        return [
            entry._replace(target=os.path.relpath(f"/{path}", f"/{split(entry.path)[0]}"))
            if (path := self._aliases.get(entry.path)) is not None and path in present
            else entry
            for entry in entries
        ]


def _check_same(found: os.stat_result, status: os.stat_result) -> None:
    if not os.path.samestat(found, status):
        raise OSError(0, "became something else while it was looked at")
