"""Compiles the CUDA kernels for every supported architecture, as the product will at run time; needs no GPU.

    pip install "nvidia-cuda-nvrtc>=13,<14"  # or nvidia-cuda-nvrtc-cu12
    python tests/device/compile_kernels.py          # kernels/cuda/*.cu, or the files named

Prints each kernel's resources. Exits 1 if a kernel does not compile, or spills registers without a reason in
ALLOWED_SPILLS.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
INCLUDES = (f"-I{KERNELS / 'cuda'}", f"-I{KERNELS / 'shared'}")
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "sm_121")
# CuPy adds -ftz=true and the architecture to the options that we give it.
OPTIONS = ("--std=c++17", *INCLUDES, "-ftz=true", "--ptxas-options=-v")
# -lineinfo changes no instruction.
PTX_OPTIONS = ("--std=c++17", *INCLUDES, "-ftz=true", "-lineinfo", "-arch=compute_80")
ALLOWED_SPILLS: dict[tuple[str, str], str] = {}  # (kernel, architecture): why the kernel may spill


class CompileError(Exception):
    """The compiler's log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of one kernel, as ptxas reports them; sizes in bytes, of shared memory the static part."""

    kernel: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int

    @property
    def spills(self) -> bool:
        return self.spill_stores + self.spill_loads > 0


@dataclass(frozen=True, slots=True)
class Compiled:
    source: Path
    architecture: str
    cubin: bytes
    log: str


class Nvrtc:
    """The runtime compiler, through its C interface: no driver, no device."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(find_nvrtc()))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: Path, architecture: str, more: tuple[str, ...] = ()) -> Compiled:
        with self._program(source, (*OPTIONS, *more, f"-arch={architecture}")) as (program, log):
            cubin = ctypes.create_string_buffer(self._size("nvrtcGetCUBINSize", program))
            self._call("nvrtcGetCUBIN", program, cubin)
            return Compiled(source, architecture, cubin.raw, log)

    def ptx(self, source: Path) -> bytes:
        """The compiler's output before ptxas, the same for every architecture, with the lines of the source."""
        with self._program(source, PTX_OPTIONS) as (program, _):
            text = ctypes.create_string_buffer(self._size("nvrtcGetPTXSize", program))
            self._call("nvrtcGetPTX", program, text)
            return text.value

    @contextmanager
    def _program(self, source: Path, options: Sequence[str]) -> Iterator[tuple[ctypes.c_void_p, str]]:
        program = ctypes.c_void_p()
        text, name = source.read_bytes(), source.name.encode()
        encoded = [option.encode() for option in (f"-I{source.parent}", *options)]
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            status = self._library.nvrtcCompileProgram(
                program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded)
            )
            log = ctypes.create_string_buffer(self._size("nvrtcGetProgramLogSize", program))
            self._call("nvrtcGetProgramLog", program, log)
            if status != 0:
                raise CompileError(f"{source.name}, {options[-1]}:\n{log.value.decode()}")
            yield program, log.value.decode()
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _size(self, function: str, program: ctypes.c_void_p) -> int:
        size = ctypes.c_size_t()
        self._call(function, program, ctypes.byref(size))
        return size.value

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            raise RuntimeError(f"{function}: {self._library.nvrtcGetErrorString(status).decode()}")


def find_nvrtc() -> Path:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        # CUDA 13 puts all libraries into one folder, CUDA 12 each library into its own folder.
        for library in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return library
    raise SystemExit("no NVRTC: pip install nvidia-cuda-nvrtc")


def parse_log(log: str) -> list[Usage]:
    """Reads the report of ptxas on each kernel; functions that were not inlined count for the kernel above them."""
    usages = []
    for section in log.split("Compiling entry function '")[1:]:
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", section)
        shared = re.findall(r"(\d+) bytes smem", section)
        usages.append(
            Usage(
                kernel=section.split("'")[0],
                registers=int(re.findall(r"Used (\d+) registers", section)[0]),
                shared=int(shared[0]) if shared else 0,
                stack=max(int(frame[0]) for frame in frames),
                spill_stores=sum(int(frame[1]) for frame in frames),
                spill_loads=sum(int(frame[2]) for frame in frames),
            )
        )
    return sorted(usages, key=lambda usage: usage.kernel)


def warnings_in(log: str) -> list[str]:
    return [line for line in log.splitlines() if "warning" in line.lower()]


def compile_with_nvcc(source: Path, architecture: str) -> None:
    """Raises CompileError, also for a warning."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-cubin", "-std=c++17", *INCLUDES, f"-arch={architecture}", "-Werror", "all-warnings"]
        command += ["-o", f"{folder}/kernel.cubin", str(source)]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise CompileError(f"nvcc, {source.name} for {architecture}:\n{run.stdout}{run.stderr}")


def print_table(compiled: list[Compiled]) -> list[str]:
    """Returns a line for each spill that ALLOWED_SPILLS does not list."""
    columns = "{:32} {:7} {:>9} {:>13} {:>6} {:>12} {:>11} {:>8}"
    titles = ("kernel", "arch", "registers", "static shared", "stack", "spill stores", "spill loads", "cubin")
    print(columns.format(*titles))
    forbidden = []
    for unit in sorted(compiled, key=lambda unit: (unit.source.name, ARCHITECTURES.index(unit.architecture))):
        for usage in parse_log(unit.log):
            print(
                columns.format(
                    usage.kernel,
                    unit.architecture,
                    usage.registers,
                    usage.shared,
                    usage.stack,
                    usage.spill_stores,
                    usage.spill_loads,
                    len(unit.cubin),
                )
            )
            if usage.spills and (usage.kernel, unit.architecture) not in ALLOWED_SPILLS:
                forbidden.append(f"{usage.kernel} spills registers on {unit.architecture}")
        for warning in warnings_in(unit.log):
            print(f"  {unit.architecture}: {warning}")
    return forbidden


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="default: kernels/cuda/*.cu")
    parser.add_argument("--nvcc", action="store_true", help="compile with nvcc too")
    arguments = parser.parse_args()
    sources = arguments.sources or sorted((KERNELS / "cuda").glob("*.cu"))
    jobs = [(source, architecture) for source in sources for architecture in ARCHITECTURES]

    nvrtc = Nvrtc()
    print(f"NVRTC {nvrtc.version()}")
    compiled: list[Compiled] = []
    errors: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        with_nvcc = [pool.submit(compile_with_nvcc, *job) for job in jobs if arguments.nvcc]
        for unit in [pool.submit(nvrtc.compile, *job) for job in jobs]:
            try:
                compiled.append(unit.result())
            except CompileError as error:
                errors.append(str(error))
        errors += [str(task.exception()) for task in with_nvcc if task.exception()]
    errors += print_table(compiled)
    for message in errors:
        print(message, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
