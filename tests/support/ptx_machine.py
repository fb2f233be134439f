"""The machine of tests/device/ptx_machine as a library, built on first use and kept for the next run."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_SOURCE = _ROOT / "tests" / "device" / "ptx_machine"
_INPUTS = ("tests/device/ptx_machine/*", "tests/device/compile_*.py", "kernels/cuda/*", "kernels/shared/*")


def missing() -> str | None:
    """What this host lacks to build the machine; None if nothing."""
    if os.environ.get("DUMONT_PTX_MACHINE"):
        return None
    if not shutil.which("cmake") or not shutil.which("c++"):
        return "the PTX machine needs cmake and a C++ compiler"
    if not _nvrtc():
        return "the PTX machine needs NVRTC 13: pip install 'nvidia-cuda-nvrtc>=13,<14'"
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """The machine with all kernels. Set DUMONT_PTX_MACHINE to use a library that is there already."""
    given = os.environ.get("DUMONT_PTX_MACHINE")
    machine = ctypes.CDLL(given or str(_build()))
    machine.machine_launch.argtypes = [ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p]
    machine.machine_error.restype = ctypes.c_char_p
    machine.machine_add_memory.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    machine.machine_remove_memory.argtypes = [ctypes.c_void_p]
    return machine


def _nvrtc() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((library for folder in folders for library in Path(folder).glob("cu13/lib/libnvrtc.so.13")), None)


def _build() -> Path:
    """Builds in a folder that is named by all that goes in, so that only a change builds again."""
    digest = hashlib.sha256(f"{_nvrtc()} {sys.executable} {_ROOT}".encode())
    for path in sorted(path for pattern in _INPUTS for path in _ROOT.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"dumont-ptx-machine-{os.getuid()}-{digest.hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    done = folder / "libdumont_ptx_machine.so.done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            configure = ["cmake", "-S", str(_SOURCE), "-B", str(folder), f"-DPython3_EXECUTABLE={sys.executable}"]
            make = ["cmake", "--build", str(folder), "--target", "dumont_ptx_machine", "-j", str(os.cpu_count() or 1)]
            for command in (configure, make):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            done.touch()
    return folder / "libdumont_ptx_machine.so"
