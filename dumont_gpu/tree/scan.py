"""Lists what is in the source trees of a snapshot, and reads their files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.manifest import MAX_EXTENTS, EntryType, FileEntry, clamp_mtime
from dumont_gpu.paths import MAX_PATH
from dumont_gpu.problems import Problem
from dumont_gpu.shortages import is_shortage
from dumont_gpu.tree.handles import DirectoryHandles, split

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a file may have become a fifo
_MODE_BITS: Final = 0o7777
_MAX_RANGES: Final = MAX_EXTENTS // 4  # leaves room for the cuts that chunks and element types make


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One regular file of the source, as the scan found it."""

    entry: FileEntry  # without extents
    tree: SourceTree
    relative: str  # path within `tree`
    identity: tuple[int, int]  # device, inode
    links: int  # names of this inode, inside the source or not
    allocated: int  # bytes on disk: fewer than the size means holes

    def data_ranges(self) -> list[tuple[int, int]]:
        """Returns the (start, end) offsets of what is not a hole.

        Raises:
            OSError: the file cannot be read.
        """
        size = self.entry.size
        if self.allocated >= size or size == 0:
            return [(0, size)] if size else []
        with self.open() as fd:
            ranges: list[tuple[int, int]] = []
            end = 0
            while end < size:
                try:
                    start = os.lseek(fd, end, os.SEEK_DATA)
                except OSError:  # ENXIO: only a hole is left
                    break
                end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
                if start < end:
                    ranges.append((start, end))
                if len(ranges) == _MAX_RANGES:  # endless small holes: the rest is packed as data
                    ranges[-1] = (start, size)
                    break
            return ranges

    def open(self) -> OpenedFile:
        """Returns a context in which a descriptor for reading is open, reached without following symlinks.

        Raises:
            OSError: on entry, if the file cannot be opened.
        """
        return OpenedFile(self)

    def unchanged(self, status: os.stat_result) -> bool:
        """Whether `status` shows the file that the scan found."""
        entry = self.entry
        return (
            (status.st_dev, status.st_ino) == self.identity
            and status.st_size == entry.size
            and clamp_mtime(status.st_mtime_ns) == entry.mtime_ns
        )


class OpenedFile:
    """`with file.open() as fd:` as a class, which costs half of what a generator does, once per file."""

    __slots__ = ("_fd", "_file")

    def __init__(self, file: SourceFile) -> None:
        self._file = file

    def __enter__(self) -> int:
        folder, name = split(self._file.relative)
        with self._file.tree.handles.lease(folder) as parent:
            self._fd = os.open(name, _READ_FLAGS, dir_fd=parent)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class SourceTree:
    """One SOURCE of a snapshot; its entries stand under `prefix` there."""

    root: Path
    prefix: str
    handles: DirectoryHandles


@dataclass(slots=True)
class Scan:
    """Everything found, in path order."""

    trees: list[SourceTree] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    others: list[FileEntry] = field(default_factory=list)  # directories, symlinks, hard links
    root: FileEntry | None = None
    problems: list[Problem] = field(default_factory=list)
    excluded: int = 0  # entries left out by a pattern; what an excluded directory holds is not counted
    special: int = 0  # sockets, fifos and devices, which are not packed

    def close(self) -> None:
        for tree in self.trees:
            tree.handles.close()


def scan(
    sources: Sequence[str],
    excluded: Callable[[str, bool], bool],
    *,
    leave_out: Collection[tuple[int, int]] = (),
    with_owner: bool = False,
) -> Scan:
    """Scans the source trees.

    Args:
        sources: one directory, whose content becomes the root of the snapshot, or several paths, each of which
            stands under its base name. A single file stands under its name.
        excluded: says of a path in the snapshot, and whether it is a directory, if it and all below it is left out.
        leave_out: devices and inodes of the snapshot being written, and of the one it replaces: they may lie inside
            a source.
        with_owner: record user and group.

    Raises:
        SnapshotNotFoundError: a source does not exist.
        UsageError: two sources of one name.
    """
    result = Scan()
    scanner = _Scanner(result, excluded, leave_out, with_owner)
    try:
        for source in sources:
            scanner.add_source(Path(source), alone=len(sources) == 1)
    except BaseException:
        result.close()
        raise
    result.files.sort(key=lambda file: file.entry.sort_key)
    _link_hard_links(result)
    result.others.sort(key=lambda entry: entry.sort_key)
    return result


class _Scanner:
    def __init__(
        self,
        result: Scan,
        excluded: Callable[[str, bool], bool],
        leave_out: Collection[tuple[int, int]],
        with_owner: bool,
    ) -> None:
        self._result, self._excluded, self._leave_out, self._with_owner = result, excluded, leave_out, with_owner
        self._names: set[str] = set()

    def add_source(self, root: Path, *, alone: bool) -> None:
        name = Path(os.path.abspath(root)).name
        is_tree = root.is_dir()
        prefix = "" if alone and is_tree else name
        if prefix in self._names:
            raise UsageError(f"two sources are named {prefix!r}: pack them one by one, or rename one")
        if not prefix and not is_tree:
            raise UsageError(f"{root}: not a directory")
        self._names.add(prefix)
        if prefix and is_tree and self._excluded(prefix, True):
            self._result.excluded += 1
            return
        try:
            folder = root if is_tree else root.parent
            root_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotNotFoundError(f"{root}: no such file or directory") from None
        except OSError as error:
            raise DumontError(f"{root}: {error.strerror}") from None
        tree = SourceTree(root, prefix, DirectoryHandles(root_fd))
        self._result.trees.append(tree)
        if not is_tree:
            self._add_single(tree, root, root_fd)
            return
        directory = self._entry(prefix, EntryType.DIR, os.fstat(root_fd))
        if prefix:
            self._result.others.append(directory)
        else:
            self._result.root = directory
        self._walk(tree)

    def _add_single(self, tree: SourceTree, path: Path, root_fd: int) -> None:
        tree.prefix = ""
        try:
            status = os.stat(path.name, dir_fd=root_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise SnapshotNotFoundError(f"{path}: no such file or directory") from None
        self._add(tree, path.name, path.name, status, root_fd)

    def _walk(self, tree: SourceTree) -> None:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with tree.handles.lease(folder) as fd, os.scandir(fd) as listing:
                    for item in listing:
                        relative = f"{folder}/{item.name}" if folder else item.name
                        try:
                            status = item.stat(follow_symlinks=False)
                            if self._add(tree, relative, item.name, status, fd):
                                waiting.append(relative)
                        except OSError as error:
                            self._problem(self._path(tree, relative), error)
            except OSError as error:
                self._problem(self._path(tree, folder), error)

    def _add(self, tree: SourceTree, relative: str, name: str, status: os.stat_result, parent: int) -> bool:
        """Adds one entry; returns whether it is a directory to walk."""
        path = self._path(tree, relative)
        kind = stat.S_IFMT(status.st_mode)
        if self._excluded(path, kind == stat.S_IFDIR):
            self._result.excluded += 1
            return False
        if len(path) > MAX_PATH // 4 and len(os.fsencode(path)) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, f"a path of more than {MAX_PATH} bytes")
        if kind == stat.S_IFDIR:
            self._result.others.append(self._entry(path, EntryType.DIR, status))
            return True
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=parent)
            self._result.others.append(self._entry(path, EntryType.SYMLINK, status, target=target))
        elif kind != stat.S_IFREG:
            self._result.special += 1
        elif (status.st_dev, status.st_ino) not in self._leave_out:
            self._result.files.append(
                SourceFile(
                    entry=self._entry(path, EntryType.FILE, status, size=status.st_size),
                    tree=tree,
                    relative=relative,
                    identity=(status.st_dev, status.st_ino),
                    links=status.st_nlink,
                    allocated=status.st_blocks * 512,
                )
            )
        return False

    def _entry(
        self, path: str, kind: EntryType, status: os.stat_result, *, size: int = 0, target: str = ""
    ) -> FileEntry:
        return FileEntry(
            path=path,
            type=kind,
            mode=0 if kind is EntryType.SYMLINK else status.st_mode & _MODE_BITS,
            mtime_ns=clamp_mtime(status.st_mtime_ns),
            size=size,
            target=target,
            owner=(status.st_uid, status.st_gid) if self._with_owner else None,
        )

    def _path(self, tree: SourceTree, relative: str) -> str:
        return f"{tree.prefix}/{relative}" if tree.prefix and relative else tree.prefix or relative

    def _problem(self, path: str, error: OSError) -> None:
        if is_shortage(error.errno):
            raise error
        self._result.problems.append(Problem(path or ".", error.strerror or str(error)))


def _link_hard_links(result: Scan) -> None:
    """Turns all but the first file of each inode into hard links to the first."""
    first: dict[tuple[int, int], str] = {}
    files = []
    for file in result.files:
        leader = first.setdefault(file.identity, file.entry.path) if file.links > 1 else file.entry.path
        if leader == file.entry.path:
            files.append(file)
        else:
            result.others.append(FileEntry(file.entry.path, EntryType.HARDLINK, target=leader))
    result.files = files
