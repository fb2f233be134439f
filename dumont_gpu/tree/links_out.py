"""Finds symlinks that lead out of their tree: their targets are missing in a snapshot of that tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dumont_gpu.columns.views import entries_of_type
from dumont_gpu.format.entries import EntryType, FileEntry

_MAX_HOPS: Final = 40  # symlinks on the way to a target; Linux's limit


def links_out(entries: Sequence[FileEntry]) -> list[FileEntry]:
    """Returns the symlinks among `entries` that lead out of the tree: their targets will be missing elsewhere.

    An absolute symlink leads out wherever it points, as nobody knows where the snapshot will be restored.
    """
    links = list(entries_of_type(entries, EntryType.SYMLINK))
    targets = {entry.path: entry.target for entry in links}
    return [entry for entry in links if leads_out(entry.path, entry.target, targets)]


def leads_out(path: str, target: str, links: Mapping[str, str]) -> bool:
    """Whether a symlink itself leaves the tree's root.

    If the way to its target leaves the root at another symlink of the tree, only that other symlink leads out.

    Args:
        path: the symlink's path, relative to the root.
        target: the symlink's text.
        links: path -> text of every symlink of the tree.
    """
    if target.startswith("/"):
        return True
    if ".." not in target:
        return False
    return resolve(path, target, links) is None


def resolve(path: str, target: str, links: Mapping[str, str]) -> str | None:
    """Returns the path in the tree that a relative symlink points to, or None if the symlink leaves the root.

    Where another symlink on the way leaves the root, the path ends with that symlink. Arguments as for `leads_out`.
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
