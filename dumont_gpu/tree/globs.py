"""Which paths of a tree a list of patterns names: gitignore's language, for every option that takes patterns.

pattern        names
`*.tmp`        every entry so called, at any depth: a pattern without a slash looks at names
`/runs`        `runs` at the root of the snapshot; so does every pattern with a slash before its end: `a/b`, `./a`
`cache/`       directories only
`* ? [a-z]`    any characters, one character, one of these ([!a-z]: none of these); never a slash
`a/**/b`       `**` stands for directories, any number of them
`!keep.tmp`    takes back what patterns before it named: the last that matches decides; nothing is taken back from a
               directory that is excluded
`\\*` `\\!x`      the character after a backslash as it is
`/abs/ws/x`    what has that place on disk, if /abs/ws is packed, or restored into

Whoever names a directory names everything in it. A path as `ls` prints it names itself, whatever characters it holds
(with a slash before it, if it begins with `!`). In a file of patterns, a line is a pattern; blank lines, lines that
begin with `#` and blanks at the end of a line do not count.
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
    ("*.tmp", "every entry so called, at any depth"),
    ("/runs, runs/a", "from the root, as is all that has a slash before its end"),
    ("cache/", "a directory; whoever names one names everything in it"),
    ("* ? [a-z] [!a-z]", "never match a slash; a/**/b: any directories between"),
    ("!keep.tmp", "takes back what those before it named; the last one decides"),
    ("\\*", "a star: a backslash takes the next character as it is"),
    ("/abs/ws/x", "what lies there, if /abs/ws is packed or restored into"),
)

_BEFORE_BLANKS: Final = re.compile(rb"((?:[^\\]|\\.)*?) *")  # a blank after a backslash counts


class Patterns:
    """A list of patterns, and which of them have matched something.

    Args:
        patterns: in the order that counts: the last that matches decides.
        places: directories on disk, as a pattern may begin with them, and the paths in the snapshot that they became.

    Raises:
        UsageError: an empty pattern, or one with a NUL byte.
    """

    def __init__(self, patterns: Sequence[str], places: Mapping[str, str] | None = None) -> None:
        self._patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._places = places or {}
        self._compiled = [compiled(pattern, self._places) for pattern in self._patterns]
        runs = groupby(enumerate(self._compiled), lambda item: item[1].negative)
        self._runs = [joined_run(not negative, list(run)) for negative, run in runs][::-1]  # the last decides
        self._silent = set(range(len(self._patterns)))  # those that have decided nothing yet
        self._decided: list[str] = []  # what others decided meanwhile: it may be what those match, too

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str, is_directory: bool = False) -> bool:
        """Whether the patterns name this entry, whose directory they do not name."""
        if not self._runs:
            return False
        full = f"{path}/" if is_directory else path
        return self.decide(full, full[full.rfind("/", 0, -1) + 1 :]) is True

    def decide(self, path: str, name: str) -> bool | None:
        """Returns whether the patterns name an entry or take it back; None: they leave it as its directory is.

        Args:
            path: with a slash at its end if it is a directory.
            name: the last component of `path`, slash included.
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
            UsageError: one of them is malformed, and is no entry's name either.
        """
        rest, some_matched = self, True
        while rest._silent and some_matched:  # one may stand before another that always decides in its place
            rest = Patterns([rest._patterns[number] for number in sorted(rest._silent)], self._places)
            for path in self._decided:
                rest.decide(path, path[path.rfind("/", 0, -1) + 1 :])
            some_matched = len(rest._silent) < len(rest._patterns)
        for number in sorted(rest._silent):
            if rest._compiled[number].malformed:
                raise UsageError(f"malformed pattern {rest._patterns[number]!r}: {rest._compiled[number].malformed}")
        return tuple(rest._patterns[number] for number in sorted(rest._silent))


def chosen(paths: Iterable[str], include: Patterns, exclude: Patterns) -> Iterator[bool]:
    """Says of each path whether `include` names it (or is empty) and `exclude` does not.

    Args:
        paths: with a slash at its end if it is a directory's, which stands before what is in it.
    """
    include_decides, exclude_decides = include.decide if include else None, exclude.decide if exclude else None
    within = {"": not include}  # directory -> whether it is chosen, and so what it holds
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
    """Returns the patterns in a file of them, one a line, as git reads it.

    Raises:
        UsageError: it holds a NUL byte, as UTF-16 does.
    """
    if b"\0" in content:
        raise UsageError("is no list of patterns: it holds a NUL byte (was it saved as UTF-16? UTF-8 is needed)")
    lines = (line.removesuffix(b"\r") for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"))
    return [os.fsdecode(_without_blanks(line)) for line in lines if line.strip(b" ") and not line.startswith(b"#")]


def _without_blanks(line: bytes) -> bytes:
    found = _BEFORE_BLANKS.fullmatch(line) if line.endswith(b" ") else None
    return line if found is None else found[1]


def places_of(paths: Mapping[str, str], holds: Callable[[str, str], bool]) -> dict[str, str]:
    """Returns every spelling of places on disk that a pattern may begin with, for `Patterns`.

    Args:
        paths: as the user wrote them, each with what it is called in the snapshot ("": its root).
        holds: whether the tree of a path has an entry of a name at its root: a pattern that begins so means that.
    """
    places = {}
    for path, name in paths.items():
        logical = os.path.join(os.environ.get("PWD", ""), path)  # abspath() resolves links on the way to here
        for spelling in map(os.path.normpath, (path, os.path.abspath(path), os.path.realpath(path), logical)):
            first = spelling.lstrip("/").split("/")[0]
            if first not in ("", ".") and not holds(path, first):
                places[spelling] = name
    return places
