"""Lists the entries of the source trees of a pack."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from dumont_gpu import native
from dumont_gpu.disk.outputs import Output, identity, kind_of
from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.format.entries import MAX_MTIME, MIN_MTIME, EntryType, FileEntry, clamp_mtime
from dumont_gpu.format.paths import MAX_PATH
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import DirectoryHandles, split
from dumont_gpu.tree.problems import Problem
from dumont_gpu.tree.source.files import SourceFile, SourceTree
from dumont_gpu.tree.source.found import Scan
from dumont_gpu.tree.source.hard_links import link_hard_links
from dumont_gpu.tree.source.left_out import MOST_COUNTED, count_below
from dumont_gpu.tree.source.outside import OutsideLinks
from dumont_gpu.tree.source.own_files import is_begun, is_journal, is_own
from dumont_gpu.tree.source.small_files import SmallFiles
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

_MODE_BITS: Final = 0o7777
_BEGUN: Final = stat.S_IFREG | UNFINISHED_MODE


def scan(
    sources: Sequence[str],
    excluded: Callable[[str, bool], bool] | None = None,
    *,
    small: native.RowLimits | None = None,
    leave_out: Collection[tuple[int, int]] = (),
    output: Output | None = None,
    follow_outside: bool = False,
    with_owner: bool = False,
) -> Scan:
    """Scans the source trees.

    Args:
        sources: a single directory, whose content stands at the snapshot's root; otherwise each source stands there
            under its base name. A symlink given as a source is followed.
        excluded: takes a path in the snapshot, and True for a directory; tells whether to leave out the entry and
            everything below. None: nothing is left out.
        small: the largest plain files that become rows; None: every file becomes an object.
        leave_out: (device, inode) of the snapshot being written and of the snapshot to be replaced: both may lie inside
            a source.
        output: where the snapshot will stand, and the file that it replaces.
        follow_outside: pack the targets of symlinks that lead out, in place of the symlinks.
        with_owner: record user and group ids.

    Raises:
        SnapshotNotFoundError: a source does not exist.
        UsageError: two sources have the same name, a source is neither a file nor a directory, or the output would
            replace a file of a source.
        DumontError: a source cannot be opened.
    """
    result = Scan()
    if small is not None and not follow_outside:
        result.small = SmallFiles(small, leave_out, with_owner=with_owner)
    scanner = _Scanner(result, excluded, leave_out, output, with_owner)
    try:
        for source in sources:
            scanner.add_source(Path(source), alone=len(sources) == 1)
        if follow_outside:
            scanner.outside.follow(scanner)
    except BaseException:
        result.close()
        raise
    link_hard_links(result)
    result.others.sort(key=lambda entry: entry.sort_key)
    result.links_out = scanner.outside.leading_out(result.others)
    return result


class _Scanner:
    def __init__(
        self,
        result: Scan,
        excluded: Callable[[str, bool], bool] | None,
        leave_out: Collection[tuple[int, int]],
        output: Output | None,
        with_owner: bool,
    ) -> None:
        self.result, self._leave_out, self._with_owner = result, leave_out, with_owner
        self._patterns = excluded
        self._output = output
        self._names: set[str] = set()
        self.outside = OutsideLinks()

    def add_source(self, root: Path, *, alone: bool) -> None:
        name = Path(os.path.abspath(root)).name
        status = _status_of(root)
        is_tree = stat.S_ISDIR(status.st_mode)
        if not is_tree and not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{root}: is {kind_of(status)}: name a directory or a file")
        prefix = "" if alone and is_tree else name
        if prefix in self._names:
            raise UsageError(f"two sources are named {prefix!r}: pack them one by one, or rename one")
        if not prefix and not is_tree:
            raise UsageError(f"{root}: not a directory")
        self._names.add(prefix)
        if prefix and is_tree and self._excluded(prefix, True):
            return
        # A symlink given as a source is followed; its entry keeps the symlink's name.
        real = root if is_tree or not root.is_symlink() else Path(os.path.realpath(root))
        folder = real if is_tree else real.parent
        try:
            root_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotNotFoundError(f"{root}: no such file or directory") from None
        except OSError as error:
            raise DumontError(f"{root}: {error.strerror}") from None
        tree = SourceTree(folder, prefix if is_tree else "", DirectoryHandles(root_fd))
        self.result.trees.append(tree)
        if not is_tree:
            self._add_single(tree, root, real.name, prefix)
            return
        self.outside.add_root(folder, prefix)
        directory = self.entry(prefix, EntryType.DIR, os.fstat(root_fd))
        if prefix:
            self.result.others.append(directory)
            self.result.named += 1
        else:
            self.result.root = directory
        self.walk(tree)

    def _add_single(self, tree: SourceTree, source: Path, name: str, path: str) -> None:
        self.outside.add_root(tree.root / name, path)
        with tree.handles.lease("") as parent:
            try:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                raise SnapshotNotFoundError(f"{source}: no such file or directory") from None
            self._add(tree, path, name, name, status, parent)

    def walk(self, tree: SourceTree) -> None:
        waiting = [tree.base]
        while waiting:
            folder = waiting.pop()
            below = []
            try:
                with tree.handles.lease(folder) as fd:
                    for name in self._listed(tree, folder, fd):
                        relative = f"{folder}/{name}" if folder else name
                        path = self._path(tree, relative)
                        try:
                            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                            if self._add(tree, path, relative, name, status, fd):
                                below.append(relative)
                        except OSError as error:
                            self.problem(path, error)
            except OSError as error:
                self.problem(self._path(tree, folder), error)
            waiting += reversed(below)

    def _listed(self, tree: SourceTree, folder: str, fd: int) -> Iterator[str]:
        """Yields the names in a directory, but not those of files that become rows."""
        small = self.result.small
        if small is None:
            with os.scandir(fd) as listing:
                yield from (item.name for item in listing)
            return
        first = len(small.table)
        names, error = small.scan(tree, folder, self._path(tree, folder), fd)
        if self._patterns is not None:
            for row in range(first, len(small.table)):
                if self._excluded(small.table.path(row), False):
                    small.drop(row)
        yield from names
        if error:
            raise OSError(error, os.strerror(error))

    def _excluded(self, path: str, is_directory: bool) -> bool:
        """Whether a pattern leaves out an entry; counts what is left out."""
        out = self._patterns is not None and self._patterns(path, is_directory)
        self.result.excluded += out
        return out

    def _count_left_out(self, parent: int, name: str) -> None:
        result = self.result
        left = max(0, MOST_COUNTED - result.excluded)
        below = count_below(parent, name, left)
        result.excluded += below
        result.excluded_more = result.excluded_more or below == left

    def _add(self, tree: SourceTree, path: str, relative: str, name: str, status: os.stat_result, parent: int) -> bool:
        """Adds an entry; returns True for a directory to walk."""
        kind = stat.S_IFMT(status.st_mode)
        if self._excluded(path, kind == stat.S_IFDIR):
            if kind == stat.S_IFDIR:
                self._count_left_out(parent, name)
            return False
        if len(path) > MAX_PATH // 4 and len(os.fsencode(path)) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, f"a path of more than {MAX_PATH} bytes")
        if kind == stat.S_IFDIR:
            self.result.others.append(self.entry(path, EntryType.DIR, status))
            return True
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=parent)
            self.result.others.append(self.entry(path, EntryType.SYMLINK, status, target=target))
            self.outside.note(path, target, tree, relative)
        elif kind != stat.S_IFREG:
            self.result.special += 1
        else:
            self.add_file(tree, path, relative, name, status, parent, links=status.st_nlink)
        return False

    def add_file(
        self, tree: SourceTree, path: str, relative: str, name: str, status: os.stat_result, parent: int, *, links: int
    ) -> None:
        """Adds a regular file, but not the output and no unfinished file of this program."""
        found = (status.st_dev, status.st_ino)
        if found in self._leave_out and self._is_output(path, name, status, parent):
            return
        if name[0] == "." and is_own(parent, name, status):
            self._leave_out_unfinished(path, name, status, parent)
            return
        if status.st_mode == _BEGUN and is_begun(status):
            self.result.problems.append(Problem(path, "is what a restore has begun and not finished"))
        self.result.files.append(
            SourceFile(
                entry=self.entry(path, EntryType.FILE, status, size=status.st_size),
                tree=tree,
                relative=relative,
                identity=found,
                links=links,
                allocated=status.st_blocks * 512,
            )
        )

    def _is_output(self, path: str, name: str, status: os.stat_result, parent: int) -> bool:
        """Whether the file is the snapshot being written or the snapshot that it replaces.

        Raises:
            UsageError: the output would replace the file, which is no snapshot.
        """
        if self._output is None or identity(status) not in self._output.identities:
            return True
        if not self._output.stands_at(parent, name, status):
            return False
        if not self._output.expendable:
            raise UsageError(
                f"{self._output.path}: would be replaced, and is a file of what is to be packed: name another output"
            )
        return True

    def _leave_out_unfinished(self, path: str, name: str, status: os.stat_result, parent: int) -> None:
        self.result.unfinished.append(self.entry(path, EntryType.FILE, status, size=status.st_size))
        if is_journal(parent, name, status):
            folder = split(path)[0] or "."
            reason = "a restore into it has not ended: what it has not written yet is not packed"
            self.result.problems.append(Problem(folder, reason))

    def entry(
        self, path: str, kind: EntryType, status: os.stat_result, *, size: int = 0, target: str = ""
    ) -> FileEntry:
        mtime_ns = status.st_mtime_ns
        if not MIN_MTIME <= mtime_ns <= MAX_MTIME:
            mtime_ns = clamp_mtime(mtime_ns)
            reason = "its time is not between 1677-09-21 and 2262-04-11: the nearest of these is stored"
            self.result.problems.append(Problem(path or ".", reason))
        return FileEntry(
            path=path,
            type=kind,
            mode=0 if kind is EntryType.SYMLINK else status.st_mode & _MODE_BITS,
            mtime_ns=mtime_ns,
            size=size,
            target=target,
            owner=(status.st_uid, status.st_gid) if self._with_owner else None,
        )

    def _path(self, tree: SourceTree, relative: str) -> str:
        if tree.base:
            relative = relative[len(tree.base) + 1 :]
        return f"{tree.prefix}/{relative}" if tree.prefix and relative else tree.prefix or relative

    def problem(self, path: str, error: OSError) -> None:
        if is_shortage(error.errno):
            raise error
        self.result.problems.append(Problem(path or ".", error.strerror or str(error)))


def _status_of(source: Path) -> os.stat_result:
    """Returns the status of a source, with symlinks followed."""
    try:
        return os.stat(source)
    except (FileNotFoundError, NotADirectoryError):
        reason = "leads to nothing" if source.is_symlink() else "no such file or directory"
        raise SnapshotNotFoundError(f"{source}: {reason}") from None
    except OSError as error:
        raise DumontError(f"{source}: {error.strerror}") from None
