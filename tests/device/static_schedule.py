"""Reads from compiled kernels what ptxas has scheduled: instructions, pipes and stall cycles of every inner loop.

    pip install "nvidia-cuda-nvrtc>=13,<14" "nvidia-cuda-nvdisasm>=13,<14"
    python tests/device/static_schedule.py                      # compares with kernels/schedule.txt
    python tests/device/static_schedule.py --write              # rewrites kernels/schedule.txt
    python tests/device/static_schedule.py --show zipnn_decode sm_90 3    # the third loop, instruction by instruction

Needs no GPU. The stalls are the least number of cycles that one warp takes for a pass through the loop: waiting for
memory comes on top, and other warps may run meanwhile. Exits 1 if the table differs from the file and the compiler is
the one that the file names; another compiler may make other code, so then the differences are only printed.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import compile_kernels

SCHEDULE = compile_kernels.KERNELS / "schedule.txt"
ARCHITECTURES = tuple(dict.fromkeys((*compile_kernels.ARCHITECTURES, "sm_121")))
COLUMNS = "{:22} {:7} {:>4} {:>6} {:>6} {:>5} {:>5} {:>6} {:>5} {:>6} {:>4} {:>4} {:>5}"
HEADS = ("kernel", "arch", "loop", "blocks", "instr", "alu", "fma", "memory", "other", "stalls", "LDS", "LDG", "ATOMS")

MEMORY = re.compile(r"(LD|ST|ATOM|RED|CCTL|SHFL|MATCH|MEMBAR|LDGSTS|UBLK|SYNCS)")  # through the memory pipe
FMA = re.compile(r"(IMAD|FFMA|FMUL|FADD|IDP|HFMA2|HADD2|HMUL2)")
# Branches, barriers, votes, the slow pipe of conversions and bit counts, and the uniform datapath.
OTHER = re.compile(r"(BRA|BRX|BSSY|BSYNC|BREAK|BMOV|BAR|WARPSYNC|YIELD|NANOSLEEP|NOP|EXIT|CALL|RET|VOTE|MUFU|POPC|FLO|BREV"
                   r"|I2F|F2I|I2I|S2R|CS2R|S2UR|R2UR|DEPBAR|ERRBAR|KILL|U(?!NKNOWN))")  # fmt: skip

_KERNEL = re.compile(r"^\.text\.(\S+):")
_LABEL = re.compile(r"^(\.L_\S+):")
_FIRST_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;\s+/\* 0x([0-9a-f]{16}) \*/")
_SECOND_LINE = re.compile(r"^\s*/\* 0x([0-9a-f]{16}) \*/")
_TARGET = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction with its control bits: bits 105 to 125 of the 128, in every architecture since sm_70."""

    text: str
    stall: int  # cycles until the warp's next instruction
    wait: int  # a bit for each scoreboard that must be clear first
    write_barrier: int  # the scoreboard that is set until the result is there; 7: none
    read_barrier: int  # the scoreboard that is set until the operands are read; 7: none

    @classmethod
    def decode(cls, text: str, high: int) -> Instruction:
        control = high >> 41
        return cls(text, control & 15, control >> 11 & 63, control >> 5 & 7, control >> 8 & 7)

    @property
    def opcode(self) -> str:
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split(" ")[0]

    @property
    def pipe(self) -> str:
        for name, pattern in (("memory", MEMORY), ("fma", FMA), ("other", OTHER)):
            if pattern.match(self.opcode):
                return name
        return "alu"


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop as it lies in memory; `blocks`: its basic blocks, 1 for a loop without a branch inside."""

    kernel: str
    number: int  # in the kernel, by address
    blocks: int
    instructions: tuple[Instruction, ...]

    def row(self, architecture: str) -> str:
        pipes = [instruction.pipe for instruction in self.instructions]
        opcodes = [instruction.opcode for instruction in self.instructions]
        loads = sum(opcode.startswith(("LDG", "LD.")) or opcode == "LD" for opcode in opcodes)
        counts = [sum(opcode.startswith("LDS") for opcode in opcodes), loads,
                  sum(opcode.startswith("ATOMS") for opcode in opcodes)]  # fmt: skip
        of_pipes = [pipes.count(pipe) for pipe in ("alu", "fma", "memory", "other")]
        stalls = sum(instruction.stall for instruction in self.instructions)
        return COLUMNS.format(
            self.kernel, architecture, self.number, self.blocks, len(pipes), *of_pipes, stalls, *counts
        )

    def listing(self) -> Iterator[str]:
        cycle = 0
        for each in self.instructions:
            waits = "".join(str(bit) for bit in range(6) if each.wait >> bit & 1) or "-"
            sets = "".join(str(barrier) if barrier != 7 else "-" for barrier in (each.write_barrier, each.read_barrier))
            yield f"{cycle:5} +{each.stall:<2} waits {waits:6} sets {sets}  {each.text}"
            cycle += each.stall


def kernels_of(disassembly: str) -> Iterator[tuple[str, list[Instruction], dict[str, int]]]:
    """Yields each kernel's name, instructions, and labels with the number of the instruction that follows."""
    name, code, labels, first = "", [], {}, None
    for line in disassembly.splitlines():
        if found := _KERNEL.match(line):
            if name:
                yield name, code, labels
            name, code, labels = found[1], [], {}
        elif found := _LABEL.match(line):
            labels[found[1]] = len(code)
        elif found := _FIRST_LINE.match(line):
            first = found[1]
        elif first is not None and (found := _SECOND_LINE.match(line)):
            code.append(Instruction.decode(first, int(found[1], 16)))
            first = None
    if name:
        yield name, code, labels


def loops_in(disassembly: str) -> list[Loop]:
    """Returns the loops that contain no other: from the target of a branch backwards to the branch."""
    found = []
    for name, code, labels in kernels_of(disassembly):
        spans = set()
        for at, instruction in enumerate(code):
            target = _TARGET.search(instruction.text)
            if target and instruction.opcode.startswith("BRA") and labels.get(target[1], at + 1) < at:
                spans.add((labels[target[1]], at))  # a branch to itself only fills the end of a kernel
        inner = [
            (start, end)
            for start, end in sorted(spans)
            if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
        ]
        heads = set(labels.values())
        for number, (start, end) in enumerate(inner, 1):
            parts = {start} | {at for at in heads if start < at <= end}
            parts |= {at + 1 for at in range(start, end) if code[at].opcode.startswith(("BRA", "BRX"))}
            found.append(Loop(name, number, len(parts), tuple(code[start : end + 1])))
    return sorted(found, key=lambda loop: (loop.kernel, loop.number))


def nvdisasm() -> str:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for program in sorted(Path(folder).glob("*/bin/nvdisasm")):
            return str(program)
    if program := shutil.which("nvdisasm"):
        return program
    raise SystemExit("no nvdisasm: pip install nvidia-cuda-nvdisasm")


def disassemble(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([nvdisasm(), "-hex", file.name], capture_output=True, text=True, check=True).stdout


def compiler_version(nvrtc: compile_kernels.Nvrtc) -> str:
    """The exact version of the wheel, where there is one: even the last number may change the code."""
    try:
        return importlib.metadata.version("nvidia-cuda-nvrtc")
    except importlib.metadata.PackageNotFoundError:
        return nvrtc.version()


def schedule(nvrtc: compile_kernels.Nvrtc) -> dict[tuple[str, str], list[Loop]]:
    """The loops of every kernel source and architecture."""
    jobs = [(source, architecture) for source in sorted((compile_kernels.KERNELS / "cuda").glob("*.cu"))
            for architecture in ARCHITECTURES]  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = pool.map(lambda job: disassemble(nvrtc.compile(*job).cubin), jobs)
        return {(source.name, arch): loops_in(text) for (source, arch), text in zip(jobs, texts, strict=True)}


def table(version: str, found: dict[tuple[str, str], list[Loop]]) -> str:
    rows = sorted(
        (loop.kernel, ARCHITECTURES.index(architecture), loop.number, loop.row(architecture))
        for (_, architecture), loops in found.items()
        for loop in loops
    )
    head = [f"NVRTC {version}", "Written by `python tests/device/static_schedule.py --write`; one pass of one warp through "
            "each innermost loop.", "", COLUMNS.format(*HEADS)]  # fmt: skip
    return "\n".join([*head, *(row for *_, row in rows)]) + "\n"


def compare(made: str, path: Path) -> int:
    """Prints what differs from the file; returns the exit code."""
    if not path.exists():
        print(f"there is no {path.name}: --write makes it")
        return 1
    kept = path.read_text(encoding="utf-8")
    if made == kept:
        print(f"{path.name} is as compiled: {len(made.splitlines()) - 4} loops, {made.splitlines()[0]}")
        return 0
    sys.stdout.writelines(
        line if line.endswith("\n") else f"{line}\n"
        for line in difflib.unified_diff(kept.splitlines(), made.splitlines(), path.name, "as compiled", "", "", 0, "")
    )
    same_compiler = kept.partition("\n")[0] == made.partition("\n")[0]
    print(f"{path.name} " + ("is not what the kernels compile to: rewrite it with --write" if same_compiler else
          "was made by another compiler: differences are to be expected, nothing is compared"))  # fmt: skip
    return 1 if same_compiler else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help=f"rewrite {SCHEDULE.name}")
    action.add_argument("--show", nargs=3, metavar=("KERNEL", "ARCH", "LOOP"), help="print one loop")
    options = parser.parse_args()
    nvrtc = compile_kernels.Nvrtc()
    found = schedule(nvrtc)
    if options.show:
        kernel, architecture, number = options.show
        for (_, arch), loops in found.items():
            for loop in loops:
                if (loop.kernel, arch, str(loop.number)) == (kernel, architecture, number):
                    print(*loop.listing(), loop.row(arch), sep="\n")
        return 0
    made = table(compiler_version(nvrtc), found)
    if options.write:
        SCHEDULE.write_text(made, encoding="utf-8")
        print(f"{SCHEDULE.name} written: {len(made.splitlines()) - 4} loops")
        return 0
    return compare(made, SCHEDULE)


if __name__ == "__main__":
    sys.exit(main())
