"""Compiles every variant of the decode kernel that a GPU check times, as a device would; needs no GPU.

    PYTHONPATH=. python tests/device/compile_variants.py [sm_90 ...]

Prints registers, shared memory and spills of each. Exits 1 if one does not compile: its figures would be missing from a
run on a device, which is rare.
"""

from __future__ import annotations

import sys

import compile_kernels

from dumont_gpu.bench.measure.gpu.variant_table import KERNEL, SOURCE, VARIANTS, compiler_options


def main(architectures: list[str]) -> int:
    nvrtc, source, failed = compile_kernels.Nvrtc(), compile_kernels.KERNELS / "cuda" / SOURCE, 0
    for architecture in architectures:
        for name, values in VARIANTS.items():
            try:
                compiled = nvrtc.compile(source, architecture, compiler_options(values))
            except compile_kernels.CompileError as error:
                failed += 1
                print(f"{architecture}  {name}: {error}")
                continue
            for usage in compile_kernels.parse_log(compiled.log):
                if usage.kernel == KERNEL:
                    spilled = f", {usage.spill_stores + usage.spill_loads} bytes spilled" if usage.spills else ""
                    print(f"{architecture}  {usage.registers:3} registers{spilled}  {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["sm_90"]))
