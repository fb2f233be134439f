"""Variants of the decode kernel that a device must choose from: compiler options for its named constants."""

from __future__ import annotations

from typing import Final

SOURCE: Final = "zipnn_decode.cu"
KERNEL: Final = "zipnn_decode"
MEMORY: Final = "DUMONT_DECODE_MEMORY"  # dynamic shared memory of a CTA, which the launch must ask for
AS_WRITTEN: Final = "as written"

# Name -> values of constants in kernels/cuda/zipnn_decode.cu, whose doc block says what they are. Sizes that need
# another amount of shared memory name it, and the CTAs that then fit on an SM.
VARIANTS: Final[dict[str, dict[str, int]]] = {
    AS_WRITTEN: {},
    "look-back of 24 bits": {"DUMONT_DECODE_LOOK_BACK": 24},
    "look-back of 32 bits": {"DUMONT_DECODE_LOOK_BACK": 32},
    "look-back of 64 bits": {"DUMONT_DECODE_LOOK_BACK": 64},
    "look-back of 96 bits": {"DUMONT_DECODE_LOOK_BACK": 96},
    "4 CTAs": {"DUMONT_DECODE_CTAS": 4},
    "46 words a lane": {"DUMONT_DECODE_LANE_WORDS": 46, "DUMONT_DECODE_REGION_WORDS": 33},
    "74 words a lane, 4 CTAs": {
        "DUMONT_DECODE_LANE_WORDS": 74, "DUMONT_DECODE_REGION_WORDS": 55, "DUMONT_DECODE_CTAS": 4, MEMORY: 57_344,
    },
}  # fmt: skip


def compiler_options(values: dict[str, int]) -> tuple[str, ...]:
    return tuple(f"-D{name}={value}" for name, value in values.items())
