"""Selects paths of a tree by a list of patterns, in gitignore's language; for every option that takes patterns.

pattern        names
`src`, `*.tmp` every entry of that name, at any depth: a pattern without a slash is compared with names
`/src`         `src` at the root of the snapshot; so is every pattern with a slash before its end: `a/b`, `./src/`
`cache/`       directories only
`* ? [a-z]`    any characters, a single character, a character of the set ([!a-z]: outside the set); never a slash
`a/**/b`       `**` stands for any number of directories
`!keep.tmp`    takes back entries that earlier patterns named: the last pattern that matches decides; nothing is taken
               back from an excluded directory
`\\*` `\\!x`      a backslash makes the next character literal
`/abs/ws/x`    the entry with that path on disk, if /abs/ws is packed, or restored into

A pattern that names a directory names everything in the directory. A path as `ls` prints it names itself, whatever
its characters (with a slash in front, if the path begins with `!`). In a file of patterns, a line is a pattern; blank
lines, lines that begin with `#`, and blanks at the end of a line are ignored.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from dumont_gpu.errors import UsageError
from dumont_gpu.tree.glob_expressions import compiled, joined_run

# The same table for `-h`.
HELP: Final = (
    ("GLOB", "a pattern as in .gitignore, in quotes for the shell:"),
    ("src, *.tmp", "every entry so called, at any depth, in folders of folders too"),
    ("/src, ./src, a/b", "from the root, as is all that has a slash before its end"),
    ("cache/", "a directory; whoever names one names everything in it"),
    ("* ? [a-z] [!a-z]", "never match a slash"),
    ("a/**/b, a/**", "any directories between; everything in a"),
    ("!keep.tmp", "takes back what those before it named; the last one decides"),
    ("\\*", "a star: a backslash takes the next character as it is"),
    ("/abs/ws/x", "what lies there, if /abs/ws is packed or restored into"),
)

_BEFORE_BLANKS: Final = re.compile(rb"((?:[^\\]|\\.)*?) *")  # a blank after a backslash is literal


class Patterns:
    """A list of patterns that remembers which patterns have matched.

    Args:
        patterns: in order: the last pattern that matches decides.
        roots: path of a directory on disk, with which a pattern may begin -> its path in the snapshot.

    Raises:
        UsageError: a pattern is empty or holds a NUL byte.
    """

    def __init__(self, patterns: Sequence[str], roots: Mapping[str, str] | None = None) -> None:
        self._patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._roots = roots or {}
        self._compiled = [compiled(pattern, self._roots) for pattern in self._patterns]
        runs = groupby(enumerate(self._compiled), lambda item: item[1].negative)
        self._runs = [joined_run(not negative, list(run)) for negative, run in runs][::-1]  # the last decides
        self._silent = set(range(len(self._patterns)))  # numbers of patterns that have decided nothing yet
        self._decided: list[str] = []  # paths that other patterns decided: silent patterns may match these, too

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str, is_directory: bool = False) -> bool:
        """Whether the patterns name an entry whose directory they do not name."""
        if not self._runs:
            return False
        full = f"{path}/" if is_directory else path
        return self.decide(full, full[full.rfind("/", 0, -1) + 1 :]) is True

    def decide(self, path: str, name: str) -> bool | None:
        """Returns True if the patterns name an entry, False if they take it back, None if its directory decides.

        Args:
            path: the entry's path; ends with a slash if the entry is a directory.
            name: the last component of `path`, including the slash.
        """
        for names, of_names, of_paths in self._runs:
            found = of_names.fullmatch(name) if of_names else None
            if found is None:
                found = of_paths.fullmatch(path) if of_paths else None
            if found is not None:
                if self._silent:
                    self._note(found, path)
                return names
        return None

    def _note(self, found: re.Match[str], path: str) -> None:
        self._silent.discard(int((found.lastgroup or "")[1:]))
        self._decided.append(path)

    def unmatched(self) -> tuple[str, ...]:
        """Returns the patterns that match none of the entries seen so far.

        Raises:
            UsageError: such a pattern is malformed, and no entry has it as a name.
        """
        rest, some_matched = self, True
        while rest._silent and some_matched:  # a pattern may match, though a later pattern always decides instead
            rest = Patterns([rest._patterns[number] for number in sorted(rest._silent)], self._roots)
            for path in self._decided:
                rest.decide(path, path[path.rfind("/", 0, -1) + 1 :])
            some_matched = len(rest._silent) < len(rest._patterns)
        for number in sorted(rest._silent):
            if rest._compiled[number].malformed:
                raise UsageError(f"malformed pattern {rest._patterns[number]!r}: {rest._compiled[number].malformed}")
        return tuple(rest._patterns[number] for number in sorted(rest._silent))


def chosen(paths: Iterable[str], include: Patterns, exclude: Patterns) -> Iterator[bool]:
    """Yields, for each path, whether `include` names the path (or is empty) and `exclude` does not.

    Args:
        paths: paths of entries, a directory before its content; a directory's path ends with a slash.
    """
    include_decides, exclude_decides = include.decide if include else None, exclude.decide if exclude else None
    within = {"": not include}  # directory -> whether it is chosen, and with it its content
    left_out: set[str] = set()
    for path in paths:
        start = path.rfind("/", 0, -1) + 1
        folder, name = path[:start], path[start:]
        wanted = include_decides(path, name) if include_decides is not None else True
        if wanted is None:
            wanted = within[folder]
        if name[-1] == "/":
            within[path] = wanted
        if exclude_decides is not None and (folder in left_out or exclude_decides(path, name)):
            left_out.add(path)
            wanted = False
        yield wanted


def pattern_lines(content: bytes) -> list[str]:
    """Returns the patterns in a file's `content`, a pattern per line, as git reads the file.

    Raises:
        UsageError: `content` holds a NUL byte, as UTF-16 does.
    """
    if b"\0" in content:
        raise UsageError("is no list of patterns: it holds a NUL byte (was it saved as UTF-16? UTF-8 is needed)")
    lines = (line.removesuffix(b"\r") for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"))
    return [os.fsdecode(_without_blanks(line)) for line in lines if line.strip(b" ") and not line.startswith(b"#")]


def _without_blanks(line: bytes) -> bytes:
    found = _BEFORE_BLANKS.fullmatch(line) if line.endswith(b" ") else None
    return line if found is None else found[1]


def roots_of(paths: Mapping[str, str], holds: Callable[[str, str], bool]) -> dict[str, str]:
    """Returns every spelling of directories on disk that a pattern may begin with, for `Patterns`.

    Args:
        paths: path of a directory as the user wrote it -> its name in the snapshot ("" for the snapshot's root).
        holds: takes a path and a name, and tells whether the path's tree has an entry of that name at its root: a
            pattern that begins with the name then means that entry.
    """
    roots = {}
    for path, name in paths.items():
        logical = os.path.join(os.environ.get("PWD", ""), path)  # abspath() resolves symlinks in the working directory
        for spelling in map(os.path.normpath, (path, os.path.abspath(path), os.path.realpath(path), logical)):
            first = spelling.lstrip("/").split("/")[0]
            if first not in ("", ".") and not holds(path, first):
                roots[spelling] = name
    return roots
