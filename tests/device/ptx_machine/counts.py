"""Prints what the kernels execute, as the machine counts it, as a table in Markdown.

    python tests/device/ptx_machine/counts.py BUILD

BUILD holds machine_run. These are counts, not times: they compare two forms of a kernel, and say nothing of a clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = str(Path(__file__).resolve().parents[2] / "golden" / "streams")
CASES = [["streams", GOLDEN], ["encode", "3000"], ["frames", "300", "900"]]
CLASSES = (
    "integer",
    "compare",
    "move",
    "branch",
    "collective",
    "barrier",
    "global",
    "shared",
    "local",
    "atomic",
    "other",
)
TITLES = (
    "kernel",
    "warp instructions",
    *CLASSES,
    "lanes an access",
    "branches that part",
    "wavefronts a shared access",
    "sectors of the least",
)


def counted(build: Path, case: list[str]) -> dict[str, dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        environment = {**os.environ, "MACHINE_COUNTS": str(file)}
        subprocess.run([build / "machine_run", *case], env=environment, check=True, stdout=subprocess.DEVNULL)
        kernels: dict[str, dict[str, int]] = json.loads(file.read_text())
        return kernels


def row(kernel: str, counts: dict[str, int]) -> list[str]:
    instructions = sum(counts[name] for name in CLASSES)
    accesses = counts["shared_accesses"] + counts["global_accesses"]

    def ratio(part: int, whole: int) -> str:
        return f"{part / whole:.2f}" if whole else "–"

    return [
        kernel,
        f"{instructions:,}",
        *(f"{100 * counts[name] / instructions:.1f} %" for name in CLASSES),
        ratio(counts["memory_lanes"], accesses),
        ratio(counts["divergent_branches"], counts["branch"]),
        ratio(counts["shared_wavefronts"], counts["shared_accesses"]),
        ratio(counts["global_sectors"], counts["global_sectors_least"]),
    ]


def main() -> None:
    build = Path(sys.argv[1])
    total: dict[str, dict[str, int]] = {}
    for case in CASES:
        for kernel, counts in counted(build, case).items():
            sums = total.setdefault(kernel, dict.fromkeys(counts, 0))
            for name, count in counts.items():
                sums[name] += count
    print("| " + " | ".join(TITLES) + " |")
    print("|---" + "|---:" * (len(TITLES) - 1) + "|")
    for kernel, counts in total.items():
        if any(counts.values()):
            print("| " + " | ".join(row(kernel, counts)) + " |")


if __name__ == "__main__":
    main()
