"""The numbers of the kernels' headers, as Python sees them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dumont_gpu import native
from dumont_gpu.backends.kernels import KERNELS, launch
from dumont_gpu.backends.launches import ROOM_AFTER

PACKAGE = Path(native.__file__).parent.parent


def test_the_library_exports_every_number_that_python_asks_for() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    names = set(re.findall(r'\blayout\("(\w+)"\)', text))
    assert names
    assert [name for name in sorted(names) if not native.layout(name)] == []


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_has_a_shape_that_devices_launch(name: str) -> None:
    shape = launch(name, 1, planes=native.layout("kMaxPlanes"))
    assert shape.block % 32 == 0
    assert 0 < shape.block <= 1024
    assert shape.shared <= 99 * 1024  # the most that every device since Turing but Turing itself has: 64 KiB there


def test_kernels_find_room_after_the_encoded_bytes() -> None:
    assert native.layout("kRoomAfterEncoded") <= ROOM_AFTER


def test_an_unknown_name_has_no_number() -> None:
    with pytest.raises(KeyError, match="kNothing"):
        native.layout("kNothing")
