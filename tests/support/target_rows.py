"""Stands between a restore and the kernels that make many entries in one call: a file system that refuses some of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from dumont_gpu import native
from dumont_gpu.columns.rows import path_at


def files_fail(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], int | None]) -> None:
    """Lets the files of a batch fail for whose path `fails` returns an errno."""
    original = native.create_files

    def create_files(
        root: int, columns: native.Columns, placed: memoryview, content: memoryview, mask: int
    ) -> Iterator[tuple[int, int]]:
        size = native.PLACED.size
        for index, (row, _) in enumerate(native.PLACED.iter_unpack(placed)):
            code = fails(os.fsdecode(path_at(columns, row)))
            if code is not None:
                yield index, code
            else:
                one = placed[index * size : (index + 1) * size]
                yield from ((index, number) for _, number in original(root, columns, one, content, mask))

    monkeypatch.setattr(native, "create_files", create_files)


def directories_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every directory fail in the batch, so that Python's own calls make it."""

    def make_directories(_: int, columns: native.Columns) -> Iterator[tuple[int, int]]:
        types = columns.entries[native.TYPE_AT :: native.ENTRY.size]
        return ((row, errno.EEXIST) for row, kind in enumerate(types) if kind == native.DIR)

    monkeypatch.setattr(native, "make_directories", make_directories)
