"""Addresses of buffers, and operations on whole buffers that do not hold the GIL."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WRITABLE: Final = 1  # PyBUF_WRITABLE
_SIMPLE: Final = 0  # PyBUF_SIMPLE


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


@contextmanager
def address(view: memoryview, *, writable: bool = False) -> Iterator[int]:
    """Yields the address of a contiguous buffer, which stays exported meanwhile.

    ctypes gives the addresses of writable buffers only.
    """
    buffer = _PyBuffer()
    flags = _WRITABLE if writable else _SIMPLE
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), flags)
    try:
        yield buffer.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def address_of(view: memoryview) -> int:
    """Returns the address of a buffer's first byte. The caller keeps the buffer alive while the address is used."""
    with address(view) as start:
        return start


def spoil(view: memoryview) -> None:
    """Overwrites every byte, so that the former content cannot pass for the content that is expected next."""
    with address(view, writable=True) as start:
        ctypes.memset(start, 0xA5, len(view))


def clear(view: memoryview) -> None:
    """Makes every byte zero."""
    with address(view, writable=True) as start:
        ctypes.memset(start, 0, len(view))


def copy(to: memoryview, source: memoryview) -> None:
    """Copies `source` to the start of `to`; copies the first len(`to`) bytes of a longer `source`."""
    with address(to, writable=True) as target, address(source) as start:
        ctypes.memmove(target, start, min(len(source), len(to)))
