"""Symlinks of a scan that lead out of everything packed: which they are, and what they point to, where that is wanted.

What a link points to is found by opening it, so the kernel resolves it, once; its files are then opened from handles,
as everywhere. Whatever is reached twice is stored once: a file's other names become hard links, a directory's become
relative links to the first, which ends loops, too.
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
from dumont_gpu.tree.links_out import leads_out, place_of

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
    """Collects the links of a scan that may lead out of it."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}  # real path of what is packed -> its path in the snapshot
        self._links: dict[str, _Link] = {}  # those that are absolute or climb, by path

    def add_root(self, folder: Path, path: str) -> None:
        """Says what else is packed: `folder` and all below it, at `path` of the snapshot."""
        self._roots.setdefault(os.path.realpath(folder), path)

    def note(self, path: str, target: str, tree: SourceTree, relative: str) -> None:
        """Says that there is a link at `path`."""
        if target.startswith("/") or ".." in target:
            self._links[path] = _Link(path, target, tree, relative)

    def left(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Returns those symlinks among `entries` that lead to something which is not packed, or not at that place."""
        links = {entry.path: entry.target for entry in entries if entry.type is EntryType.SYMLINK}
        return [
            entry
            for entry in entries
            if entry.type is EntryType.SYMLINK
            and (leads_out(entry.path, entry.target, links) or self._misleads(entry, links))
        ]

    def follow(self, scanner: _Scanner) -> None:
        """Stores what the links point to, and what links in there point to, in place of the links."""
        _Follower(self, scanner).run()

    def leaving(self, links: dict[str, str]) -> list[_Link]:
        """The links that leave the source they are in, in path order."""
        return [link for _, link in sorted(self._links.items()) if self._leaves(link, links)]

    def place_of_real(self, real: str) -> str | None:
        """Where in the snapshot the real path stands, or would stand if nothing were left out."""
        at = real
        while at.startswith("/"):  # a pipe's "real path" is none
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
        place = place_of(link.path, link.target, links)
        return bool(prefix) and place is not None and place != prefix and not place.startswith(prefix + "/")

    def _misleads(self, entry: FileEntry, links: dict[str, str]) -> bool:
        """Whether a link leads to one place among the sources, and to another one in the snapshot."""
        link = self._links.get(entry.path)
        if link is None or link.target != entry.target or not self._leaves(link, links):
            return False
        try:
            found = open_target(link)
        except OSError as error:  # it leads to something that this user may not see, so nothing of it is packed
            if is_shortage(error.errno):
                raise
            return True
        if found is None:
            return False
        fd, real = found
        os.close(fd)
        return self.place_of_real(real) != place_of(link.path, link.target, links)


def open_target(link: _Link) -> tuple[int, str] | None:
    """Opens what a link points to, only to look at it; returns the descriptor and the real path, or None.

    Raises:
        OSError: it cannot be reached, though it may be there.
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
        self._seen: set[str] = set()  # paths of links that were looked at
        self._replaced: set[str] = set()  # paths of links in whose place something else stands
        self._aliases: dict[str, str] = {}  # path of a link -> path in the snapshot of what it points to
        self._trees: SourceTree | None = None  # all that is outside

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
        """Without the links in whose place something else stands now."""
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
        inside = self._links.place_of_real(real)
        if inside is not None:
            if link.target.startswith("/") or inside != place_of(link.path, link.target, known):
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
            # Several links may lead to it: it counts as a file of several names.
            links = max(2, status.st_nlink)
            self._scanner.add_file(tree, link.path, real.lstrip("/"), name, status, parent, links=links)
        self._replaced.add(link.path)

    def _tree(self, root: Path, prefix: str, folder: str) -> SourceTree:
        """A tree of what is outside; `folder`, from `/` on, may be opened by its path."""
        from dumont_gpu.tree.source.files import SourceTree

        if self._trees is None:
            self._trees = SourceTree(Path("/"), "", DirectoryHandles(os.open("/", _ROOT)))
            self._scanner.result.trees.append(self._trees)
        handles = self._trees.handles
        handles.admitted.add(folder)
        return SourceTree(root, prefix, handles, folder) if prefix else self._trees

    def _with_new_targets(self, entries: list[FileEntry]) -> list[FileEntry]:
        """Lets links to what is packed point there in the snapshot, wherever it is restored."""
        if not self._aliases:
            return entries
        present = {entry.path for entry in entries} | {file.entry.path for file in self._scanner.result.files} | {""}
        return [
            entry._replace(target=os.path.relpath(f"/{place}", f"/{split(entry.path)[0]}"))
            if (place := self._aliases.get(entry.path)) is not None and place in present
            else entry
            for entry in entries
        ]


def _check_same(found: os.stat_result, status: os.stat_result) -> None:
    if not os.path.samestat(found, status):
        raise OSError(0, "became something else while it was looked at")
