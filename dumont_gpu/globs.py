"""Which paths of a tree a list of glob patterns names.

`*` and `?` stay within a component, `**` crosses them. A pattern without a slash names a component anywhere in the
tree, one with a slash a path from the root; whoever names a directory names everything in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from dumont_gpu.errors import UsageError


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Returns a function that says whether a relative path, or a directory it lies in, matches any pattern.

    Raises:
        UsageError: a malformed pattern.
    """
    if not patterns:
        return lambda path: False
    try:
        expression = re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns), re.DOTALL)
    except re.error as error:
        raise UsageError(f"malformed pattern among {', '.join(patterns)}: {error}") from None
    return lambda path: expression.match(path) is not None


def _translate(pattern: str) -> str:
    anchored = pattern.strip("/")
    prefix = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    return f"{prefix}{_translate_stars(anchored)}(?:/.*)?\\Z"


def _translate_stars(pattern: str) -> str:
    parts, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            parts.append(".*")
            at += 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            body = pattern[at + 1 : end].replace("\\", "\\\\")
            parts.append(f"[^{body[1:]}]" if body[0] in "!^" else f"[{body}]")
            at = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    return "".join(parts)
