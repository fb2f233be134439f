"""The CUDA kernels: the source of each, and the shape of its CTAs in constants of kernels/shared."""

from __future__ import annotations

from typing import Final, NamedTuple

from dumont_gpu.native import layout


class Kernel(NamedTuple):
    source: str  # in kernels/cuda
    threads: str  # of a CTA: the name of a constant
    plane_memory: str = ""  # dynamic shared memory for each plane: the name of a constant; empty: none


KERNELS: Final = {
    "zipnn_decode": Kernel("zipnn_decode.cu", "kPlaneThreads", "kPlaneMemory"),
    "zipnn_join": Kernel("zipnn_decode.cu", "kJoinThreads"),
    "zipnn_plan": Kernel("zipnn_encode.cu", "kEncodeThreads", "kPlanMemory"),
    "zipnn_layout": Kernel("zipnn_encode.cu", "kEncodeThreads"),
    "zipnn_write": Kernel("zipnn_encode.cu", "kEncodeThreads"),
    "copy_stored": Kernel("copy_stored.cu", "kCopyThreads"),
    "lz4_layout": Kernel("lz4_frame.cu", "kFrameThreads"),
    "lz4_write": Kernel("lz4_frame.cu", "kFrameThreads"),
}


class Launch(NamedTuple):
    """What `Stream.launch` takes."""

    kernel: str
    grid: int  # CTAs
    block: int  # threads of a CTA
    shared: int  # bytes of dynamic shared memory of a CTA
    arguments: tuple[int, ...]  # addresses


def launch(name: str, grid: int, *arguments: int, planes: int = 0) -> Launch:
    """Returns the launch of a kernel of KERNELS by `grid` CTAs, each for a block with `planes` planes."""
    kernel = KERNELS[name]
    memory = planes * layout(kernel.plane_memory) if kernel.plane_memory else 0
    return Launch(name, grid, layout(kernel.threads), memory, arguments)
