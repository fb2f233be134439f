"""The CUDA kernels: the source of each, and the shape of its CTAs in constants of kernels/shared."""

from __future__ import annotations

from typing import Final, NamedTuple

from dumont_gpu.native import layout


class Kernel(NamedTuple):
    source: str  # in kernels/cuda
    threads: str  # of a CTA: the name of a constant
    memory: str = ""  # dynamic shared memory of a CTA: the name of a constant; empty: none
    each_plane: bool = False  # whether `memory` is for each plane of a block


KERNELS: Final = {
    "zipnn_decode": Kernel("zipnn_decode.cu", "kDecodeThreads", "kDecodeMemory"),
    "zipnn_plan": Kernel("zipnn_encode.cu", "kEncodeThreads", "kPlanMemory", each_plane=True),
    "zipnn_layout": Kernel("zipnn_encode.cu", "kEncodeThreads"),
    "zipnn_write": Kernel("zipnn_encode.cu", "kEncodeThreads"),
    "copy_stored": Kernel("copy_stored.cu", "kCopyThreads"),
    "lz4_layout": Kernel("lz4_frame.cu", "kFrameThreads"),
    "lz4_write": Kernel("lz4_frame.cu", "kFrameThreads"),
    "blake3_groups": Kernel("blake3.cu", "kBlake3Group"),
    "blake3_roots": Kernel("blake3.cu", "kBlake3RootThreads"),
}


class Launch(NamedTuple):
    """What `Stream.launch` takes."""

    kernel: str
    grid: int  # CTAs
    block: int  # threads of a CTA
    shared: int  # bytes of dynamic shared memory of a CTA
    arguments: tuple[int, ...]  # addresses


def launch(name: str, grid: int, *arguments: int, planes: int = 1) -> Launch:
    """Returns the launch of a kernel of KERNELS by `grid` CTAs; `planes`: of an element."""
    kernel = KERNELS[name]
    memory = layout(kernel.memory) if kernel.memory else 0
    return Launch(name, grid, layout(kernel.threads), memory * planes if kernel.each_plane else memory, arguments)
