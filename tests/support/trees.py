"""Trees nobody would think of: a hypothesis strategy, and the code that makes them on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

from support.hostile import float_bytes

# Names as Linux has them: any bytes but "/" and NUL.
NAMES = st.one_of(
    st.sampled_from([b"a", b"model.safetensors", b".hidden", b"weights.pt", b"x.json", b"x.png", b"-n", b"a b"]),
    st.binary(min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(str.encode),
    st.binary(min_size=255, max_size=255),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")[:255]).filter(lambda name: name not in (b".", b".."))  # fmt: skip

MODES = st.sampled_from([0o600, 0o644, 0o755, 0o444, 0o777, 0o700])
TIMES = st.integers(min_value=0, max_value=4_000_000_000_000_000_000)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda data, times: data * times, st.binary(min_size=1, max_size=40), st.integers(1, 6000)),
    st.sampled_from([b"", b"copy"]).map(lambda data: data * 25_000),
)


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int
    mtime: int


@dataclass(frozen=True)
class Sparse:
    """A file of `size` bytes with `content` at `offset`, holes elsewhere."""

    content: bytes
    offset: int
    size: int
    mtime: int


@dataclass(frozen=True)
class Link:
    target: bytes


@dataclass(frozen=True)
class HardLink:
    """Makes a hard link to a file made before, if there is any."""

    which: int


@dataclass(frozen=True)
class Dir:
    mode: int
    mtime: int
    entries: dict[bytes, Dir | File | Sparse | Link | HardLink] = field(default_factory=dict)


LEAVES = st.one_of(
    st.builds(File, CONTENTS, MODES, TIMES),
    st.builds(File, CONTENTS, MODES, TIMES),
    st.builds(
        lambda content, block, after, mtime: Sparse(content, block * 4096, block * 4096 + len(content) + after, mtime),
        st.binary(max_size=9000), st.integers(0, 400), st.integers(0, 2_000_000), TIMES,
    ),
    st.builds(Link, st.one_of(st.sampled_from([b"a", b"../a", b"/etc/passwd", b"missing", b"."]), NAMES)),
    st.builds(HardLink, st.integers(0, 5)),
)  # fmt: skip
# Directories keep their owner's permissions: a test run by anyone but root has to delete them again.
DIR_MODES = st.sampled_from([0o755, 0o700, 0o777, 0o750])
TREES = st.recursive(
    st.builds(Dir, DIR_MODES, TIMES, st.dictionaries(NAMES, LEAVES, max_size=5)),
    lambda inner: st.builds(Dir, DIR_MODES, TIMES, st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=4)),
    max_leaves=6,
)


def make(tree: Dir, path: Path) -> None:
    """Makes `tree` at `path`, which must not exist."""
    _make(tree, os.fsencode(path), [])


def _make(tree: Dir, path: bytes, files: list[bytes]) -> None:
    os.mkdir(path)
    for name, entry in tree.entries.items():
        child = path + b"/" + name
        if isinstance(entry, Dir):
            _make(entry, child, files)
        elif isinstance(entry, Link):
            os.symlink(entry.target, child)
        elif isinstance(entry, HardLink):
            if files:
                os.link(files[entry.which % len(files)], child)
        else:
            with open(child, "wb") as file:
                if isinstance(entry, Sparse):
                    file.seek(entry.offset)
                file.write(entry.content)
                if isinstance(entry, Sparse):
                    file.truncate(entry.size)
                else:
                    os.fchmod(file.fileno(), entry.mode)
            os.utime(child, ns=(entry.mtime, entry.mtime))
            files.append(child)
    os.chmod(path, tree.mode)
    os.utime(path, ns=(tree.mtime, tree.mtime))


def write_files(root: Path, names: Iterable[str], end: str = "\n") -> None:
    """Writes files that say their names; one without bytes, one of floats, one with holes; and `same`, a hard link."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}{end}", errors="surrogateescape", encoding="utf-8")
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(float_bytes(300_000))
    with (root / "holes").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data" * 5000)
    os.link(root / "readme", root / "same")
