"""Takes each barrier of each kernel away in turn, and sees whether the machine finds out.

    python tests/device/ptx_machine/mutations.py BUILD

BUILD holds machine_run and libdumont_ptx_machine.so. Prints a line for each barrier of the PTX. Exits 1 if a barrier can go
unseen without a reason in ALLOWED, or if a reason there is no longer needed.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

DEVICE = Path(__file__).resolve().parents[1]
KERNELS = DEVICE.parents[1] / "kernels"
GOLDEN = str(DEVICE.parent / "golden" / "streams")

# The cases of machine_run that each kernel is run with, the likeliest to notice first.
CASES = {
    "zipnn_decode": [["streams", GOLDEN, "0", "80"], ["streams", GOLDEN, "5200", "200"]],
    "zipnn_plan": [["encode", "3256", "120"], ["encode", "3000", "200"]],
    "zipnn_layout": [["encode", "3500", "30"], ["encode", "0", "201"]],
    "zipnn_write": [["encode", "3256", "120"], ["encode", "3000", "200"]],
    "blake3_groups": [["blake3", "100", "40"], ["blake3", "300", "56"]],
    "blake3_roots": [["blake3", "100", "40"], ["blake3", "300", "56"]],
    "lz4_layout": [["frames", "380", "100"], ["frames", "1200", "4"]],
}
# (kernel, function, which of the function's barriers) -> why the barrier may go unseen.
ALLOWED: dict[tuple[str, str, int], str] = {
    ("zipnn_plan", "plan_code", 1): (
        "what the choice reads last and the description writes first lie apart in their union: not to be relied on"
    ),
    ("zipnn_plan", "describe_code", 2): (
        "the lane that writes the first byte is the one that reads it: not to be relied on"
    ),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    kernel: str
    index: int
    place: str  # file:line: PTX

    @property
    def key(self) -> tuple[str, str, int]:
        file, line = self.place.split(":")[:2]
        lines = next(KERNELS.glob(f"*/{file}")).read_text().splitlines()[: int(line)]
        head = max(n for n, text in enumerate(lines) if re.match(r"\S.*\b\w+\(", text) and not text.startswith("//"))
        function = re.findall(r"(\w+)\(", lines[head])[0]
        return self.kernel, function, sum("__sync" in text for text in lines[head:])


def mutants(build: Path) -> list[Mutant]:
    machine = ctypes.CDLL(str(build / "libdumont_ptx_machine.so"))
    machine.machine_barrier.restype = machine.machine_counts.restype = ctypes.c_char_p
    found = []
    for kernel in json.loads(machine.machine_counts()):  # all that are there
        for index in range(machine.machine_barriers(kernel.encode())):
            found.append(Mutant(kernel, index, machine.machine_barrier(kernel.encode(), index).decode()))
    return found


def finding(build: Path, mutant: Mutant) -> str | None:
    """What the first case that notices says; None if none does."""
    environment = {**os.environ, "MACHINE_WEAKEN": f"{mutant.kernel}:{mutant.index}"}
    for case in CASES.get(mutant.kernel, []):
        run = subprocess.run([build / "machine_run", *case], env=environment, capture_output=True, text=True)
        if run.returncode != 0:
            return run.stderr.splitlines()[0]
    return None


def main() -> int:
    build = Path(sys.argv[1])
    for kernel in CASES:
        if found := finding(build, Mutant(kernel, -1, "")):
            raise SystemExit(f"{kernel} fails with all its barriers: {found}")
    wrong = 0
    needed: set[tuple[str, str, int]] = set()
    all_mutants = mutants(build)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = pool.map(lambda mutant: finding(build, mutant), all_mutants)
        for mutant, found in zip(all_mutants, findings, strict=True):
            reason = None
            if found is None:
                needed.add(mutant.key)
                reason = ALLOWED.get(mutant.key)
                wrong += reason is None
            verdict = found or (f"not found, allowed: {reason}" if reason else "NOT FOUND")
            print(f"{mutant.kernel}: {mutant.key[1]}, {mutant.key[2]}: {mutant.place}\n    {verdict}", flush=True)
    for key in ALLOWED.keys() - needed:
        print(f"the reason for {key} is no longer needed")
        wrong += 1
    print(f"mutations: {len(all_mutants)} barriers, {wrong} unexplained")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
