"""Finds the files of a scan that are names of one file."""

from __future__ import annotations

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.tree.source.found import Scan


def link_hard_links(found: Scan) -> None:
    """Sorts files by path, and turns the second and later names of each into hard links to the first, their leader."""
    if found.small is not None:
        # Names of one file are rows or objects together: an object can have a name that no row may have.
        found.files += found.small.give_up({file.identity for file in found.files if file.links > 1})
        found.small.link()
    found.files.sort(key=lambda file: file.entry.sort_key)
    first: dict[tuple[int, int], str] = {}
    files = []
    for file in found.files:
        leader = first.setdefault(file.identity, file.entry.path) if file.links > 1 else file.entry.path
        if leader == file.entry.path:
            files.append(file)
        else:
            found.others.append(FileEntry(file.entry.path, EntryType.HARDLINK, target=leader))
    found.files = files
