"""Which symlinks of a tree lead out of it: what they point to is not in a snapshot of that tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dumont_gpu.format.entries import EntryType, FileEntry

_MAX_HOPS: Final = 40  # links on the way to one target, as Linux has it


def links_out(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Returns the symlinks among `entries` that lead out of the tree: what is behind them will be missing elsewhere.

    An absolute link leads out wherever it points: it says nothing of the place where a snapshot is restored.
    """
    links = [entry for entry in entries if entry.type is EntryType.SYMLINK]
    targets = {entry.path: entry.target for entry in links}
    return [entry for entry in links if leads_out(entry.path, entry.target, targets)]


def leads_out(path: str, target: str, links: Mapping[str, str]) -> bool:
    """Whether a link itself leaves the tree's root.

    A link that comes to another one of the tree, and with that leaves it, does not: the other one does.

    Args:
        path: of the link, relative to the root.
        target: what it says.
        links: every link of the tree, by path.
    """
    if target.startswith("/"):
        return True
    if ".." not in target:
        return False
    return place_of(path, target, links) is None


def place_of(path: str, target: str, links: Mapping[str, str]) -> str | None:
    """Returns the path in the tree that a relative link points to, or None if it leaves the root.

    Where another link on the way leaves the root, the path ends with that link.
    """
    at = path.split("/")[:-1]
    waiting = target.split("/")[::-1]
    hops = 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            if not at:
                return None
            at.pop()
        elif name not in ("", "."):
            at.append(name)
            here = "/".join(at)
            if here in links and waiting:
                hops += 1
                if hops > _MAX_HOPS or leads_out(here, links[here], {}):
                    return here
                at.pop()
                waiting += links[here].split("/")[::-1]
    return "/".join(at)
