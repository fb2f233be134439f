"""Compiler options with which a device has shown to decode fastest, by its compute capability.

`python bench/gpu_report.py options RESULT.json...` writes the table from results of the step "variants".
"""

from __future__ import annotations

from typing import Final

OPTIONS: Final[dict[str, tuple[str, ...]]] = {}  # of zipnn_decode.cu; empty until a device has run


def kernel_options(source: str, capability: str) -> tuple[str, ...]:
    """Returns the options for a source of kernels/cuda; none if no device of this capability has been measured."""
    return OPTIONS.get(capability, ()) if source == "zipnn_decode.cu" else ()
