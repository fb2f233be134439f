"""What the tables of tensors say: read from the file's bytes, it is what the libraries that wrote them give back."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from support import containers

from dumont_gpu.errors import DumontError, UnsupportedError
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES, is_numpy, item_size
from dumont_gpu.tensors.record import SINGLE, TensorRecord, TensorTable
from dumont_gpu.tensors.table import read_table
from dumont_gpu.tensors.zip_members import inflate, locate

RNG = np.random.default_rng(5)


def table_of(data: bytes, name: str = "file") -> TensorTable:
    return read_table(io.BytesIO(data), len(data), name)


def words(record: TensorRecord) -> np.dtype[Any]:
    """The element type as NumPy can hold it."""
    if is_numpy(record.dtype):
        return np.dtype(record.dtype)
    known = ELEMENT_TYPES[record.dtype]
    return np.dtype(known.numpy or known.words)


def content(data: bytes, record: TensorRecord) -> np.ndarray[Any, Any]:
    """Reads a tensor's elements out of its file by its record alone."""
    record = locate(io.BytesIO(data), record)
    if record.member is not None:
        data = inflate(io.BytesIO(data), record.member, record.start + record.span)
    raw = data[record.start : record.start + record.span]
    assert len(raw) == record.span
    kind = words(record)
    if not record.count:
        return np.zeros(record.shape, kind)
    if record.strides is None:
        return np.frombuffer(raw, kind).reshape(record.shape)
    steps = [stride * record.item_size for stride in record.strides]
    return np.lib.stride_tricks.as_strided(np.frombuffer(raw, kind), record.shape, steps)


def contents(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return {record.name: content(data, record) for record in table_of(data).records}


def assert_same(expected: Mapping[str, np.ndarray[Any, Any]], actual: Mapping[str, np.ndarray[Any, Any]]) -> None:
    assert list(expected) == list(actual)
    for name, array in expected.items():
        assert (array.shape, array.dtype) == (actual[name].shape, actual[name].dtype), name
        assert array.tobytes() == actual[name].tobytes(), name


# --- NumPy ------------------------------------------------------------------------------------------------------------


def npy(array: object, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asanyarray(array), version)
    return out.getvalue()


PLAIN = ["f8", "f4", "f2", "c8", "c16", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
OTHER = [">f4", ">i8", "U5", ">U3", "S7", "M8[ns]", "m8[25s]", "M8", "V3", "f16"]


@pytest.mark.parametrize("kind", PLAIN + OTHER)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3), (4, 0, 2), (2, 3, 4)])
def test_an_array_file_is_one_tensor(kind: str, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(kind)
    count = int(np.prod(shape))
    array = (
        np.frombuffer(bytes(range(1, 251)) * 100, dtype, count).reshape(shape)
        if dtype.itemsize
        else np.zeros(shape, dtype)
    )
    data = npy(array.astype("?") if kind == "?" else array)
    (record,) = table_of(data).records
    assert (record.name, record.item_size, record.strides, record.member) == (SINGLE, dtype.itemsize, None, None)
    assert (record.dtype in ELEMENT_TYPES) == (kind in PLAIN)
    assert_same({SINGLE: np.load(io.BytesIO(data))}, contents(data))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_array_format_is_read(version: tuple[int, int]) -> None:
    array = RNG.normal(size=(3, 5))
    assert_same({SINGLE: array}, contents(npy(array, version)))


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 4), (2, 3, 4), (3, 0)])
def test_an_array_in_fortran_order_has_strides(shape: tuple[int, ...]) -> None:
    array = np.asfortranarray(RNG.normal(size=shape))
    assert_same({SINGLE: array}, contents(npy(array)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_of_an_npz_file_are_its_members(save: Any) -> None:
    arrays = {
        "a": RNG.normal(size=(30, 40)),
        "deep/b": np.asfortranarray(RNG.integers(9, size=(3, 4))),
        "c": np.array(3),
    }
    out = io.BytesIO()
    save(out, **arrays)
    assert_same(arrays, contents(out.getvalue()))
    members = [record.member for record in table_of(out.getvalue()).records]
    assert [member is not None for member in members] == [save is np.savez_compressed] * 3


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", sorted(set(ELEMENT_TYPES) - {"C128"}))
def test_every_element_type_of_safetensors_is_known(dtype: str) -> None:
    size = ELEMENT_TYPES[dtype].size
    raw = bytes(range(6)) * size if dtype != "BOOL" else b"\0\1" * 3
    data = safetensors({"t": entry(dtype, [2, 3], 0, 6 * size)}, raw)
    (record,) = table_of(data).records
    assert (record.name, record.dtype, record.shape, record.size) == ("t", dtype, (2, 3), len(raw))
    assert content(data, record).tobytes() == raw


def test_metadata_and_order_are_the_header_s() -> None:
    header = {"b": entry("U8", [2], 2, 4), "__metadata__": {"format": "pt"}, "a": entry("U8", [2], 0, 2)}
    table = table_of(safetensors(header, b"aabb"))
    assert table.metadata == {"format": "pt"}
    assert [record.name for record in table.records] == ["b", "a"]
    assert table.structure is None


def test_a_type_that_is_not_known_is_listed_and_not_loaded() -> None:
    data = safetensors({"t": entry("F4", [4], 0, 2), "u": entry("U8", [1], 2, 3)}, b"abc")
    first, second = table_of(data).records
    assert (first.dtype, first.item_size, first.shape) == ("F4", 0, (4,))
    assert content(data, second).tobytes() == b"c"
    with pytest.raises(UnsupportedError, match="F4"):
        item_size(first.dtype)


# --- what is none of the kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no tensors that are known"),
        (b"text", "no tensors that are known"),
        (b"GGUF" + bytes(100), "GGUF"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before version 1.6"),
        (b"\x80\x04K\x01.", "pickle without a zip"),
        (containers.onnx({"a": bytes(8)}), "ONNX"),
        (containers.zip_file([("readme", b"text")]), "zip of other things"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        table_of(data, "dir/na\nme")
    assert str(caught.value).startswith("dir/na\\nme: ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DumontError)
