"""How two directory trees differ: the judge of restores. `python -m dumont_gpu.bench.compare_trees A B` prints it.

Compared: names, types, modes, mtimes (ns), sizes, content, symlink targets, device numbers, which names share an
inode, and whether B lost holes that A has. Not compared: owners, extended attributes, atimes, ctimes.
"""
# ruff: noqa: PTH115, PTH123 (names are bytes here, which pathlib does not take)

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator

_PIECE = 1 << 20  # bytes read at a time
_HOLE_SLACK = 1 << 20  # bytes: room for extent blocks and a different block size

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Entries = dict[bytes, os.stat_result]


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


# Fields that must be equal between two entries of one type: a name, and how the field reads from a stat result.
FIELDS: tuple[tuple[str, Callable[[os.stat_result], object]], ...] = (
    ("mode", lambda s: f"{stat.S_IMODE(s.st_mode):04o}"),
    ("mtime_ns", lambda s: s.st_mtime_ns),
    ("size", lambda s: s.st_size if stat.S_ISREG(s.st_mode) else None),
    ("device", lambda s: s.st_rdev if _is_device(s) else None),
)


def entries(root: bytes) -> Entries:
    """Every entry below `root` by its relative path, and `root` itself as `.`; links are not followed."""
    found: Entries = {b".": os.stat(root)}
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as listing:
            for entry in listing:
                path = os.path.join(folder, entry.name)
                found[path] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
    return found


def link_groups(tree: Entries) -> dict[bytes, tuple[bytes, ...]]:
    """For each file with several names in the tree, all of them."""
    by_inode: dict[tuple[int, int], list[bytes]] = {}
    for path, status in tree.items():
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            by_inode.setdefault((status.st_dev, status.st_ino), []).append(path)
    return {path: tuple(sorted(names)) for names in by_inode.values() if len(names) > 1 for path in names}


def first_difference(a: bytes, b: bytes) -> int | None:
    """The offset of the first byte that differs between two files of one size."""
    offset = 0
    with open(a, "rb", buffering=0) as file_a, open(b, "rb", buffering=0) as file_b:
        while True:
            chunk_a, chunk_b = file_a.read(_PIECE), file_b.read(_PIECE)
            if chunk_a != chunk_b:
                pairs = zip(chunk_a, chunk_b, strict=False)
                shorter = min(len(chunk_a), len(chunk_b))
                return offset + next((i for i, (x, y) in enumerate(pairs) if x != y), shorter)
            if not chunk_a:
                return None
            offset += len(chunk_a)


def _differences(root_a: bytes, root_b: bytes, tree_a: Entries, tree_b: Entries) -> Iterator[str]:
    groups_a, groups_b = link_groups(tree_a), link_groups(tree_b)
    for path in sorted(tree_a.keys() | tree_b.keys()):
        shown = os.fsdecode(path)
        if path not in tree_b or path not in tree_a:
            yield f"{shown!r}: only in {'A' if path in tree_a else 'B'}"
            continue
        a, b = tree_a[path], tree_b[path]
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            yield f"{shown!r}: type {stat.filemode(a.st_mode)[0]} became {stat.filemode(b.st_mode)[0]}"
            continue
        for name, read in FIELDS:
            if read(a) != read(b):
                yield f"{shown!r}: {name} {read(a)} became {read(b)}"
        if groups_a.get(path) != groups_b.get(path):
            yield f"{shown!r}: hard links {groups_a.get(path, ())} became {groups_b.get(path, ())}"
        if stat.S_ISLNK(a.st_mode):
            targets = os.readlink(os.path.join(root_a, path)), os.readlink(os.path.join(root_b, path))
            if targets[0] != targets[1]:
                yield f"{shown!r}: target {targets[0]!r} became {targets[1]!r}"
        if stat.S_ISREG(a.st_mode):
            yield from (f"{shown!r}: {text}" for text in _file_differences(root_a, root_b, path, a, b))


def _file_differences(root_a: bytes, root_b: bytes, path: bytes, a: os.stat_result, b: os.stat_result) -> Iterator[str]:
    if b.st_blocks * 512 > a.st_blocks * 512 * 1.1 + _HOLE_SLACK:
        yield f"holes lost: {a.st_blocks * 512} bytes on disk became {b.st_blocks * 512}"
    if a.st_size == b.st_size:
        offset = first_difference(os.path.join(root_a, path), os.path.join(root_b, path))
        if offset is not None:
            yield f"content differs from byte {offset}"


def differences(a: AnyPath, b: AnyPath) -> Iterator[str]:
    """Yields a line for each difference between tree `a` and tree `b`."""
    root_a, root_b = os.fsencode(a), os.fsencode(b)
    yield from _differences(root_a, root_b, entries(root_a), entries(root_b))


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: compare_trees.py A B", file=sys.stderr)
        return 2
    root_a, root_b = map(os.fsencode, arguments)
    tree_a, tree_b = entries(root_a), entries(root_b)
    found = 0
    for line in _differences(root_a, root_b, tree_a, tree_b):
        print(line)
        found += 1
    size_a, size_b = (sum(s.st_size for s in t.values() if stat.S_ISREG(s.st_mode)) for t in (tree_a, tree_b))
    print(f"{found} differences; A: {len(tree_a)} entries, {size_a} bytes; B: {len(tree_b)} entries, {size_b} bytes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
