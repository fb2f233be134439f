"""An installation that cannot work says so in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_compiler_one_line_says_which_package_to_install(tmp_path: Path) -> None:
    """As pip shows it: CMake, with a program that builds, and no compiler in the path."""
    cmake, builder = shutil.which("cmake"), shutil.which("make") or shutil.which("ninja")
    if cmake is None or builder is None:
        pytest.skip("no cmake, or nothing that it builds with")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / Path(builder).name).symlink_to(builder)
    generator = "Unix Makefiles" if Path(builder).name == "make" else "Ninja"
    ran = subprocess.run(
        [cmake, "-G", generator, "-S", ROOT / "kernels/cpu", "-B", tmp_path / "build"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    line = "dumont-gpu needs a C++ compiler: apt install g++ (dnf: gcc-c++, apk: g++, conda: gxx)"
    assert [line in text for text in ran.stderr.splitlines()].count(True) == 1


def test_a_checkout_without_kernels_says_why_it_was_taken() -> None:
    """Python looks in the current folder before it looks where the package is installed."""
    if any((ROOT / "dumont_gpu").glob("*.so")):
        pytest.skip("this checkout has its kernels")
    code = "import dumont_gpu.native as native; native.layout('DeviceBlock')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (
        f"{ROOT / 'dumont_gpu'} is a checkout, without compiled kernels: start Python in another folder" in ran.stderr
    )
