"""Lines and clauses that several reports share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dumont_gpu.codecs import CODECS
from dumont_gpu.format.paths import printable
from dumont_gpu.sizes import counted, format_size

if TYPE_CHECKING:
    from dumont_gpu.errors import LostFile
    from dumont_gpu.tree.problems import Problem

CODEC_NAMES: Final = {codec.id: codec.name for codec in CODECS}
_KINDS: Final = {
    "file": ("file",),
    "dir": ("directory", "directories"),
    "symlink": ("link",),
    "hardlink": ("hard link",),
}
MAX_NAMED: Final = 20  # patterns that a warning, or paths that a plan, names without -v


def unmatched_warning(patterns: Sequence[str], *, verbose: bool = True) -> str:
    """Returns a line that names the patterns without a match."""
    named = patterns if verbose else patterns[:MAX_NAMED]
    more = f" and {len(patterns) - len(named)} more (-v shows all)" if len(named) < len(patterns) else ""
    return f"matched nothing: {', '.join(map(printable, named))}{more}" if patterns else ""


def problem_data(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "reason": problem.reason} for problem in problems]


def lost_data(lost: Sequence[LostFile]) -> list[dict[str, Any]]:
    return [{"path": file.path, "chunk": file.chunk} for file in lost]


def codec_lines(codecs: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        f"  {name:8} {format_size(original):>10} into {format_size(stored):>10} ({original / stored:.2f}x)"
        for name, (original, stored) in sorted(codecs.items())
    ]


def count_entries(count: int) -> str:
    return counted(count, "entry", "entries")


def count_kinds(counts: Mapping[str, int]) -> str:
    """Returns how many entries there are of each type, which FORMAT.md names: `1 file, 903 directories`."""
    return ", ".join(counted(counts[kind], *words) for kind, words in _KINDS.items() if counts.get(kind)) or "nothing"


def count_chunks(count: int) -> str:
    return counted(count, "chunk")


def problem_line(done: str, problems: Sequence[Problem]) -> str:
    they = "as it was: see the message" if len(problems) == 1 else "as they were: see the messages"
    return f"  {count_entries(len(problems))} could not be {done} {they}"


def stage_line(seconds: Mapping[str, float]) -> str:
    return "  busy: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


def local_time(time_ns: int) -> str:
    """Returns a time as local time, with its distance from UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M %z", time.localtime(time_ns // 10**9))
    except (ValueError, OverflowError, OSError):
        return "out of range"


def fields_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
