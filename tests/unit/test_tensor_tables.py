"""What the tables of tensors say: read from the file's bytes, it is what the libraries that wrote them give back."""

from __future__ import annotations

import ast
import io
import json
import pickle
import random
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import containers
from support.checkpoints import CHECKPOINTS, Tensors, as_json, expected, loaded, saved

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
    if record.dtype.startswith("["):
        return np.lib.format.descr_to_dtype(ast.literal_eval(record.dtype))
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


STRUCTURES = [
    [("a", "<f4"), ("b", ">i2", (2, 3))],
    [("a", "<f4"), ("within", [("x", "u1"), ("y", "S3")])],
    np.dtype({"names": ["a", "b"], "formats": ["f4", "i8"], "offsets": [4, 16], "itemsize": 40}),
    np.dtype([(("a title", "name"), "<U2"), ("ä", "?")]),
]


@pytest.mark.parametrize("number", range(len(STRUCTURES)))
def test_structures_are_described_as_numpy_does(number: int) -> None:
    array = np.zeros((2, 3), STRUCTURES[number])
    array[array.dtype.names[0]] = 7
    (record,) = table_of(npy(array)).records
    assert (record.item_size, record.dtype[:2]) == (array.dtype.itemsize, "[(")
    read = content(npy(array), record)
    assert read.dtype == np.load(io.BytesIO(npy(array))).dtype
    assert np.array_equal(read, array)  # bytes between fields may be anything


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


def test_the_safetensors_library_reads_the_same() -> None:
    library = pytest.importorskip("safetensors.numpy")
    arrays = {"a": RNG.normal(size=(2, 3)), "b": np.array(True), "c": np.zeros((0, 4), np.uint16), "ä": np.arange(5)}
    data = library.save(arrays, {"made": "by the library"})
    read = contents(data)
    assert_same({name: library.load(data)[name] for name in read}, read)
    assert read.keys() == arrays.keys()
    assert table_of(data).metadata == {"made": "by the library"}


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


# --- PyTorch ----------------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden" / "tensors"


def described(data: bytes) -> Tensors:
    """What `support.checkpoints.expected` says of tensors, read from the file's bytes by its table."""
    tensors: Tensors = {}
    for record in table_of(data).records:
        kind = ELEMENT_TYPES[record.dtype].torch
        elements = np.ascontiguousarray(content(data, record)).tobytes().hex()
        tensors[record.name] = {"dtype": kind, "shape": list(record.shape), "hex": elements}
    return tensors


@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("*.pt"), *GOLDEN.glob("*.safetensors")]), ids=lambda path: path.name
)
def test_golden_files_are_read(path: Path) -> None:
    known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    data = path.read_bytes()
    assert known["tensors"] == described(data)
    if path.suffix == ".pt":
        assert known["structure"] == as_json(table_of(data).structure)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_torch_saves_is_what_torch_loads(name: str, protocol: int) -> None:
    pytest.importorskip("torch")
    data = saved(CHECKPOINTS[name](), pickle_protocol=protocol)
    tensors, structure = expected(loaded(data, weights_only=protocol == 2 and name != "plain-data"))
    assert tensors == described(data)
    assert as_json(structure) == as_json(table_of(data).structure)


@pytest.mark.parametrize("seed", range(50))
def test_views_of_all_kinds_are_read(seed: int) -> None:
    torch = pytest.importorskip("torch")
    source = random.Random(seed)
    base = torch.arange(2 * 3 * 4 * 5, dtype=source.choice([torch.float64, torch.bfloat16, torch.int16, torch.uint8]))
    view = base.reshape(source.choice([(2, 3, 4, 5), (6, 20), (5, 4, 6)]))
    for _ in range(source.randrange(6)):
        dimension = source.randrange(view.ndim) if view.ndim else 0
        length = view.shape[dimension] if view.ndim else 0
        choices = [view.unsqueeze(source.randint(0, view.ndim))]
        if view.ndim:
            choices += [
                view.transpose(0, dimension),
                view.narrow(dimension, source.randint(0, length), 0),
                view[..., source.randint(0, view.shape[-1]) :],
                view.expand(source.randint(1, 3), *view.shape),
            ]
            choices += (
                [view.select(dimension, source.randrange(length)), view.unfold(dimension, 1, 2)] if length else []
            )
        view = source.choice(choices)
    data = saved({"view": view, "base": base})
    assert expected(loaded(data, weights_only=True))[0] == described(data)


def test_a_checkpoint_has_the_name_of_its_file_within(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.arange(3)}, tmp_path / "größe.v1.pt")
    data = (tmp_path / "größe.v1.pt").read_bytes()
    assert expected(loaded(data, weights_only=True))[0] == described(data)


def test_a_table_reads_the_directory_and_the_pickle_of_a_checkpoint_alone() -> None:
    data = (GOLDEN / "training.pt").read_bytes()
    reads: list[tuple[int, int]] = []

    class Watched(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            reads.append((self.tell(), count or 0))
            return super().read(count)

    table = read_table(Watched(data), len(data), "training.pt")
    storages = {record.member.header for record in table.records if record.member}
    assert len(storages) == len(table.records)
    begin, end = min(storages), data.index(b"PK\1\2")  # the zip's directory follows the members
    assert [read for read in reads if begin < read[0] < end - 64 and read[0] + read[1] < end] == []


def test_elements_of_numpy_become_numbers() -> None:
    root = {"loss": np.float64(0.25), "seen": np.int32(-7), "done": np.bool_(True), "small": np.float16(0.5)}
    numbers = {"loss": 0.25, "seen": -7, "done": True, "small": 0.5}
    assert numbers == structure_of(pickle.dumps(root, 2))


def test_tied_tensors_share_their_bytes() -> None:
    records = {record.name: record for record in table_of((GOLDEN / "views.pt").read_bytes()).records}
    assert records["tied"].member == records["tied again"].member == records["tied part"].member
    assert [records[name].start for name in ("tied", "tied again", "tied part")] == [0, 0, 4]


def test_a_view_has_the_strides_of_its_storage() -> None:
    records = {record.name: record for record in table_of((GOLDEN / "views.pt").read_bytes()).records}
    assert records["transposed"].strides == (1, 5, 20)
    assert records["expanded"].strides == (1, 0)
    assert (records["expanded"].size, records["expanded"].span) == (32, 8)
    assert records["row"].strides is None


def structure_of(data: bytes) -> object:
    return table_of(checkpoint(data)).structure


def checkpoint(data: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A checkpoint with a pickle of the test's own."""
    members = [(f"archive/data/{key}", content) for key, content in (storages or {}).items()]
    return containers.zip_file([("archive/data.pkl", data), ("archive/byteorder", b"little"), *members], align=64)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers(-(2**63), 2**63) | st.tuples(st.integers(0, 9), st.text())
values = st.recursive(
    scalars | st.sets(st.integers(-5, 5)) | st.frozensets(st.text()) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(values, st.integers(2, 5))
def test_plain_data_comes_back(value: object, protocol: int) -> None:
    def same(first: object, second: object) -> bool:
        return as_json(first) == as_json(second)

    assert same(pickle.loads(pickle.dumps(value, protocol)), structure_of(pickle.dumps(value, protocol)))


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
