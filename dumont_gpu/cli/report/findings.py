"""The findings of a pack about its sources that their owner should know: lines for people, data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted, format_size

if TYPE_CHECKING:
    from dumont_gpu.jobs.pack import PackPlan, PackResult

NO_BYTES: Final = "  it holds no bytes: only directories, links and empty files"
_NAMED: Final = 3  # entries; more would hide the other lines


def finding_lines(result: PackResult | PackPlan, *, followed: bool) -> list[str]:
    """Returns lines of a summary; `followed`: the pack followed links that lead out, unless they lead to nothing."""
    lines = []
    if result.num_files and not result.original_size:
        lines.append(NO_BYTES)
    if result.links_out:
        lines += links_out_lines(result.links_out, followed=followed)
    if result.unfinished:
        what = counted(len(result.unfinished), "unfinished file")
        lines.append(f"  {what} of dumont-gpu left out: {_named(result.unfinished)}")
    if result.snapshots:
        are, it = ("is a snapshot itself", "it") if len(result.snapshots) == 1 else ("are snapshots themselves", "them")
        what = counted(len(result.snapshots), "packed file")
        lines.append(f"  {what} {are} (--exclude leaves {it} out): {_named(result.snapshots)}")
    return lines


def finding_data(result: PackResult | PackPlan) -> dict[str, Any]:
    """Returns the same findings for a program; `outcome.show` makes the names exact in JSON."""
    return {
        "links_out": [{"path": link.path, "target": link.target} for link in result.links_out],
        "unfinished": [{"path": entry.path, "size": entry.size} for entry in result.unfinished],
        "snapshots": [{"path": entry.path, "size": entry.size} for entry in result.snapshots],
    }


def links_out_lines(links: Sequence[FileEntry], *, followed: bool) -> list[str]:
    """Says which links lead out of a snapshot, and names the option that packs their targets, unless `followed`."""
    hint = "" if followed else " (pack --follow-outside stores what they lead to)"
    what = counted(len(links), "link")
    lines = [f"  {what} {'leads' if len(links) == 1 else 'lead'} out of what is packed{hint}:"]
    lines += [f"    {printable(link.path)} -> {printable(link.target)}" for link in links[:_NAMED]]
    if len(links) > _NAMED:
        lines.append(f"    and {len(links) - _NAMED:,} more")
    return lines


def _named(entries: Sequence[FileEntry]) -> str:
    """Names the first entries, with their sizes."""
    more = f" and {len(entries) - _NAMED:,} more" if len(entries) > _NAMED else ""
    return ", ".join(f"{printable(entry.path)} ({format_size(entry.size)})" for entry in entries[:_NAMED]) + more
