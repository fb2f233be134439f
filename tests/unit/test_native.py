"""The numbers that Python and the compiled kernels both know are the same."""

from __future__ import annotations

import pytest

from dumont_gpu import native
from dumont_gpu.backends import decode_slot, encode_slot

NUMBERS = {
    "DeviceBlock": native.ZIPNN_BLOCK,
    "EncodeJob": native.ENCODE_JOB,
    "PlanePlan": native.PLANE_PLAN,
    "StoredCopy": native.STORED_COPY,
    "FrameJob": encode_slot.FRAME_JOB.size,
    "kDecodeMemory": decode_slot.DECODE_MEMORY,
    "kDecodeThreads": decode_slot.DECODE_THREADS,
    "kPlanMemory": encode_slot.PLAN_MEMORY,
    "kEncodeThreads": encode_slot.THREADS,
    "kFrameThreads": encode_slot.THREADS,
    "kHeaderSize": encode_slot.HEADER,
    "kMaxPlanes": encode_slot.MAX_PLANES,
    "kLz4BlockSize": decode_slot.LZ4_BLOCK,
    "kLz4BlockRoom": encode_slot.LZ4_ROOM,
}


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_python_has_the_numbers_of_the_kernels(name: str, number: int) -> None:
    assert native.layout(name) == number


def test_kernels_find_room_after_the_encoded_bytes() -> None:
    assert native.layout("kRoomAfterEncoded") <= decode_slot.ROOM_AFTER


def test_an_unknown_name_has_no_number() -> None:
    with pytest.raises(KeyError, match="kNothing"):
        native.layout("kNothing")
