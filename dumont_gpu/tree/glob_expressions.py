"""Translates patterns in gitignore's language (see `globs`) to regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from dumont_gpu.errors import UsageError

_POSIX_CLASSES: Final = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "cntrl": "\\x00-\\x1f\\x7f", "digit": "0-9",
    "graph": "\\x21-\\x7e", "lower": "a-z", "print": "\\x20-\\x7e", "punct": "!-/:-@\\[-`{-~", "space": "\\s",
    "upper": "A-Z", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class CompiledPattern(NamedTuple):
    """A pattern as a regular expression."""

    negative: bool
    matches_names: bool  # instead of paths
    expression: str  # matches a whole name or path; the path of a directory ends with a slash
    malformed: str  # why the pattern is malformed: it then matches only an entry with that very name; "" otherwise


# Whether the patterns name entries (or take entries back), and the expressions that match names and paths.
Run: TypeAlias = tuple[bool, re.Pattern[str] | None, re.Pattern[str] | None]


def joined_run(names: bool, patterns: Sequence[tuple[int, CompiledPattern]]) -> Run:
    """Joins consecutive patterns that all name entries (`names`), or all take entries back."""
    of_names = [item for item in patterns if item[1].matches_names]
    of_paths = [item for item in patterns if not item[1].matches_names]
    return names, _joined(of_names), _joined(of_paths)


def _joined(patterns: Sequence[tuple[int, CompiledPattern]]) -> re.Pattern[str] | None:
    """Returns a single expression; the name of the group that matched holds the pattern's number."""
    groups = [f"(?P<_{number}>{compiled.expression})" for number, compiled in patterns]
    return re.compile("|".join(groups), re.DOTALL) if groups else None


def compiled(pattern: str, roots: Mapping[str, str]) -> CompiledPattern:
    """Compiles a pattern; a malformed pattern, too, as an entry may have such a name.

    Args:
        roots: path of a directory on disk -> its path in the snapshot; see `globs.roots_of`.

    Raises:
        UsageError: the pattern is empty or holds a NUL byte.
    """
    negative = pattern.startswith("!")
    body = pattern[negative:]
    if not body or "\0" in body:
        raise UsageError(f"{pattern!r} is no pattern: {'it is empty' if not body else 'it holds a NUL byte'}")
    body = _normal(_in_snapshot(body, roots))
    expressions, malformed = [], ""
    try:
        expressions.append(_expression(body))
    except ValueError as error:
        malformed = str(error)
    if "[" in body or "\\" in body:  # perhaps an entry's name, completed by a shell
        expressions.append(_expression(body, as_it_is=True))
    return CompiledPattern(negative, "/" not in body[:-1], "|".join(expressions), malformed)


def _in_snapshot(body: str, roots: Mapping[str, str]) -> str:
    """Replaces a directory on disk at the start of a pattern by that directory's path in the snapshot."""
    for root in sorted(roots, key=len, reverse=True):
        rest = body.removeprefix("./").removeprefix(root)
        if rest.startswith("/") and len(rest) > 1 and body.startswith((root, f"./{root}")):
            return f"/{roots[root]}{rest}"
        if root.startswith("/") and body.rstrip("/") == root:
            return f"/{roots[root]}"
    return body


def _normal(body: str) -> str:
    """Removes the empty components of a pattern: `./`, `//`, `/./`."""
    parts = [part for part in body.split("/") if part not in ("", ".")]
    if not parts:
        return "*"  # the pattern names the root, and so everything
    anchor = "/" if body.startswith(("/", "./")) else ""
    return anchor + "/".join(parts) + "/" * body.endswith(("/", "/."))


def _expression(body: str, *, as_it_is: bool = False) -> str:
    """Translates a pattern; `as_it_is`: only the slash is special.

    pathspec translates the wildcards. It would hand all other characters and brackets to `re` unescaped, so
    placeholders stand for them in the text that pathspec gets.

    Raises:
        ValueError: the pattern is malformed.
    """
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # takes 10 ms: only commands with patterns pay

    waiting: list[str] = []
    text = ""
    for token in _tokens(body, as_it_is):
        if token in ("/", "*", "?"):
            text += token
        else:
            text += f"\0{len(waiting)}\0"
            waiting.append(token)
    if "/" not in body[:-1]:
        text = f"/{text}"  # the pattern is compared with names
    text = re.sub(r"(^|/)\*\*(/?)\Z", r"\1**/*\2", text)  # `a/**` names the entries in `a`
    regex = GitIgnoreSpecPattern.pattern_to_regex(text)[0] or ""
    if not regex.startswith("^"):
        regex = f".*{regex}"  # pathspec's short form of `**` and `**/`
    regex = regex.replace("(?P<ps_d>", "(?:")
    return re.sub("\0(\\d+)\0", lambda found: waiting[int(found[1])], regex)


def _tokens(body: str, as_it_is: bool) -> Iterator[str]:
    """Yields `/`, `*`, `?`, and a regular expression for each character or bracket between them."""
    at = 0
    while at < len(body):
        char = body[at]
        at += 1
        if char == "[" and not as_it_is:
            expression, at = _bracket(body, at)
            yield expression
            continue
        if char == "\\" and not as_it_is:
            if at == len(body):
                raise ValueError("nothing follows the backslash at its end")
            char = body[at]
            at += 1
        elif char in "*?" and not as_it_is:
            yield char
            continue
        yield "/" if char == "/" else re.escape(char) if char not in "*?" else f"[{char}]"


def _bracket(body: str, at: int) -> tuple[str, int]:
    """Translates the bracket expression that begins just before `at`; returns the index after its end, too."""
    start = at - 1
    negative = body.startswith(("!", "^"), at)
    at += negative
    first, items = at, ""
    while at < len(body) and (body[at] != "]" or at == first):
        named = re.compile(r"\[:([a-z]+):\]").match(body, at)
        if named:
            if named[1] not in _POSIX_CLASSES:
                raise ValueError(f"no such class of characters: {named[0]}")
            items += _POSIX_CLASSES[named[1]]
            at = named.end()
            continue
        low, at = _character(body, at)
        if body.startswith("-", at) and not body.startswith("-]", at) and at + 1 < len(body):
            high, at = _character(body, at + 1)
            if high < low:
                raise ValueError(f"the range {low}-{high} is backwards")
            items += f"{re.escape(low)}-{re.escape(high)}"
        else:
            items += re.escape(low)
    if at >= len(body):
        raise ValueError(f"{body[start:]} has no closing bracket (\\[ is a bracket as it is)")
    return (f"[^/{items}]" if negative else f"(?!/)[{items}]"), at + 1


def _character(body: str, at: int) -> tuple[str, int]:
    if body[at] == "\\" and at + 1 < len(body):
        at += 1
    return body[at], at + 1
