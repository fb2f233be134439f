"""Compiles CUDA sources to PTX, as NVRTC makes it for the product.

    pip install "nvidia-cuda-nvrtc>=13,<14"
    python tests/device/compile_ptx.py FOLDER [SOURCE ...]  # default: kernels/cuda/*.cu

Writes FOLDER/NAME.ptx for each NAME.cu.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from compile_kernels import KERNELS, Nvrtc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sources", nargs="*", type=Path)
    arguments = parser.parse_args()
    nvrtc = Nvrtc()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for source in arguments.sources or sorted((KERNELS / "cuda").glob("*.cu")):
        (arguments.folder / f"{source.stem}.ptx").write_bytes(nvrtc.ptx(source))


if __name__ == "__main__":
    main()
