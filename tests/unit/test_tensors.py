"""Where the tensors of a file are, by the file's own word; and files that lie."""

from __future__ import annotations

import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import containers
from support.containers import CONTAINERS, field, onnx_tensor, zip_file

from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import make_method
from dumont_gpu.plan.regions import Region, find_tensor_regions
from dumont_gpu.plan.tensors import find_tensors
from dumont_gpu.plan.tensors.tensor import MAX_TENSORS, SHORTEST, Tensor
from dumont_gpu.sizes import KiB, MiB

rng = random.Random(11)
LARGE = {f"layer.{number}.weight": rng.randbytes(SHORTEST + 4 * 1000 * number) for number in range(5)}
SMALL = {f"layer.{number}.bias": rng.randbytes(1536) for number in range(5)}
TENSORS = {name: data for pair in zip(LARGE.items(), SMALL.items(), strict=True) for name, data in pair}


def found_in(data: bytes, claimed_size: int | None = None) -> list[Tensor]:
    fd = os.memfd_create("container")
    try:
        os.write(fd, data)
        if claimed_size is not None:
            os.truncate(fd, claimed_size)
        return find_tensors(fd, len(data) if claimed_size is None else claimed_size)
    finally:
        os.close(fd)


def regions_in(data: bytes) -> list[Region]:
    fd = os.memfd_create("container")
    try:
        os.write(fd, data)
        return find_tensor_regions(fd, [(0, len(data))] if data else [], make_method("hybrid_v3"), 64 * KiB)
    finally:
        os.close(fd)


def contents(data: bytes) -> list[bytes]:
    return [data[tensor.start : tensor.end] for tensor in found_in(data)]


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_large_tensors_of_a_container_are_found(name: str) -> None:
    assert sorted(contents(CONTAINERS[name](TENSORS))) == sorted(LARGE.values())


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_gguf_versions_and_alignments(version: int, alignment: int) -> None:
    data = containers.gguf(TENSORS, version=version, alignment=alignment)
    assert contents(data) == list(LARGE.values())
    assert {tensor.dtype for tensor in found_in(data)} == {Dtype.FP32}


def test_quantised_tensors_of_gguf_end_where_the_next_one_begins() -> None:
    assert contents(containers.gguf(LARGE, kind=8)) == [data + bytes(-len(data) % 32) for data in LARGE.values()]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_array_file_is_one_tensor(version: int) -> None:
    array = next(iter(LARGE.values()))
    assert contents(containers.npy(array, version)) == [array]


def test_files_of_numpy_itself_are_read(tmp_path: Path) -> None:
    arrays = {name: np.frombuffer(data, "<f4") for name, data in TENSORS.items()}
    np.savez(tmp_path / "stored.npz", **arrays)
    np.save(tmp_path / "array.npy", arrays["layer.1.weight"])
    assert contents((tmp_path / "stored.npz").read_bytes()) == list(LARGE.values())
    assert contents((tmp_path / "array.npy").read_bytes()) == [LARGE["layer.1.weight"]]


def test_types_of_safetensors_are_the_codecs_types() -> None:
    for name, dtype in (("F32", Dtype.FP32), ("BF16", Dtype.BF16), ("F8_E5M2", Dtype.FP8_E5M2), ("I64", None)):
        assert {tensor.dtype for tensor in found_in(containers.safetensors(LARGE, name))} == {dtype}


@pytest.mark.parametrize(("kind", "dtype"), [(1, Dtype.FP32), (10, Dtype.FP16), (16, Dtype.BF16), (7, None)])
def test_types_of_onnx_are_the_codecs_types(kind: int, dtype: Dtype | None) -> None:
    tensor = field(5, onnx_tensor("weight", LARGE["layer.1.weight"], kind))
    assert [found.dtype for found in found_in(field(1, 9) + field(7, tensor))] == [dtype]


def test_members_of_a_compressed_zip_have_borders_too() -> None:
    data = zip_file(LARGE.items(), method=zipfile.ZIP_DEFLATED)
    assert len(found_in(data)) == len(LARGE)


def test_a_zip_behind_other_bytes_and_before_a_comment_is_read() -> None:
    whole = zip_file(LARGE.items())
    data = zip_file([("first", b"1")]) + whole[:-2] + struct.pack("<H", 500) + b"c" * 500
    assert contents(data) == list(LARGE.values())


def test_zip64_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    data = zip_file(LARGE.items())
    assert data.count(b"PK\6\6") == data.count(b"PK\6\7") == 1
    assert contents(data) == list(LARGE.values())


def test_of_too_many_tensors_the_longer_ones_have_borders() -> None:
    count = MAX_TENSORS + 10
    sizes = [SHORTEST if number % 2 else 2 * SHORTEST for number in range(count)]
    entries, at = [], 0
    for number, size in enumerate(sizes):
        entries.append(f'"{number}":{{"dtype":"I8","data_offsets":[{at},{at + size}]}}')
        at += size
    text = ("{" + ",".join(entries) + "}").encode()
    found = found_in(struct.pack("<Q", len(text)) + text, claimed_size=8 + len(text) + at)  # a sparse file
    assert len(found) == count // 2
    assert {tensor.end - tensor.start for tensor in found} == {2 * SHORTEST}


@pytest.mark.parametrize("data", [b"", b"{", b"PK\3\4", b"\x93NUMPY", b"GGUF", b"\x08", b"text" * 100_000])
def test_other_files_have_no_tensors(data: bytes) -> None:
    assert found_in(data) == []


# --- files that lie ---------------------------------------------------------------------------------------------------


def head(*numbers: int) -> bytes:
    return b"GGUF" + struct.pack(f"<I{len(numbers) - 1}Q", *numbers)


def text(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(MiB)


def end_record(members: int, size: int, offset: int) -> bytes:
    return b"PK\3\4" + bytes(MiB) + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, members, members, size, offset, 0)


def end_record64(members: int, size: int, offset: int) -> bytes:
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, members, members, size, offset)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, MiB + 4, 1)
    return b"PK\3\4" + bytes(MiB) + record + locator + end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)[MiB + 4 :]


def nested(depth: int) -> bytes:
    """A graph in a node of a graph in a node…"""
    message = field(5, onnx_tensor("weight", LARGE["layer.0.weight"]))
    for _ in range(depth):
        message = field(1, field(5, field(6, message)))
    return field(1, 9) + field(7, message)


MAX = 2**64 - 1
KEY = struct.pack("<Q", 1) + b"k"
LIES = {
    "gguf: endless tensors": head(3, MAX, 0) + bytes(MiB),
    "gguf: endless pairs": head(3, 0, MAX) + bytes(MiB),
    "gguf: many pairs": head(3, 0, 99_999) + (struct.pack("<QI", 0, 0) + b"1") * 90_000,
    "gguf: an endless name": head(3, 0, 1) + struct.pack("<Q", MAX) + bytes(MiB),
    "gguf: an endless array": head(3, 0, 1) + KEY + struct.pack("<IIQ", 9, 0, MAX) + bytes(MiB),
    "gguf: endless strings": head(3, 0, 1) + KEY + struct.pack("<IIQ", 9, 8, MAX) + bytes(MiB),
    "gguf: an endless string": head(3, 0, 1) + KEY + struct.pack("<IIQQ", 9, 8, 1, MAX) + bytes(MiB),
    "gguf: arrays of arrays": head(3, 0, 1) + KEY + struct.pack("<IIQ", 9, 9, 1) + bytes(MiB),
    "gguf: no alignment": containers.gguf(LARGE, alignment=32).replace(
        b"alignment" + struct.pack("<II", 4, 32), b"alignment" + struct.pack("<II", 4, 0)
    ),
    "gguf: an endless tensor": head(3, 1, 0) + KEY + struct.pack("<IQQIQ", 2, MAX, MAX, 0, 0) + bytes(MiB),
    "gguf: a tensor far away": head(3, 1, 0) + KEY + struct.pack("<IQIQ", 1, 99_999, 0, MAX) + bytes(MiB),
    "gguf: many dimensions": head(3, 1, 0) + KEY + struct.pack("<I", 2**32 - 1) + bytes(MiB),
    "gguf: big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(MiB),
    "safetensors: an endless header": struct.pack("<Q", MAX) + b"{" + bytes(MiB),
    "safetensors: overlapping": text(
        '{"a":{"dtype":"F32","data_offsets":[0,100000]},"b":{"dtype":"F32","data_offsets":[50000,200000]}}'
    ),
    "safetensors: before the file": text('{"a":{"dtype":"F32","data_offsets":[-99999999,100000]}}'),
    "safetensors: behind the file": text(f'{{"a":{{"dtype":"F32","data_offsets":[0,{MAX}]}}}}'),
    "safetensors: backwards": text('{"a":{"dtype":"F32","data_offsets":[100000,0]}}'),
    "safetensors: deep": text('{"a":' + "[" * 100_000),
    "safetensors: a number of many digits": text('{"a":{"dtype":"F32","data_offsets":[0,' + "9" * 100_000 + "]}}"),
    "npy: a new version": b"\x93NUMPY\x09\0\2\0{}" + bytes(MiB),
    "npy: an endless header": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(MiB),
    "zip: endless members": end_record(0xFFFE, 0, 0),
    "zip: a directory of this size": end_record(1, 2**32 - 2, 0),
    "zip64: endless members": end_record64(MAX, 0, 0),
    "zip64: a directory far away": end_record64(1, 46, MAX),
    "onnx: an endless field": b"\x08\x09" + b"\x3a" + b"\xff" * 9 + b"\x01" + bytes(MiB),
    "onnx: an endless number": b"\x08" + b"\xff" * MiB,
    "onnx: fields without end": b"\x08\x09" * 500_000,
    "onnx: zeros": b"\x08" + bytes(MiB),
    "onnx: a group": b"\x08\x09" + b"\x0b" * 100,
    "onnx: deep": nested(200),
}


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_tensor_of_no_whole_elements_is_covered(dtype: str) -> None:
    data = containers.safetensors({"a": rng.randbytes(100_001), "b": rng.randbytes(70_003)}, dtype)
    regions = regions_in(data)
    assert [0, *(region.end for region in regions)] == [*(region.start for region in regions), len(data)]
    assert all((region.end - region.start) % region.codec.element_size == 0 for region in regions)


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_has_no_tensors(lie: str) -> None:
    assert found_in(LIES[lie]) == []


def test_zeros_that_pass_for_endless_strings_are_not_read_to_their_end() -> None:
    lie = head(3, 0, 1) + KEY + struct.pack("<IIQ", 9, 8, MAX)
    assert found_in(lie, claimed_size=1 << 42) == []  # 4 TiB of nothing would take hours


def test_a_model_within_two_branches_is_found() -> None:
    assert contents(nested(2)) == [LARGE["layer.0.weight"]]


@pytest.mark.parametrize("name", [*CONTAINERS, "npy"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_bent_tables_of_contents_never_raise(name: str, data: st.DataObject) -> None:
    whole = WHOLE[name]
    bent = bytearray(whole)
    places = st.integers(0, len(whole) - 1) if data.draw(st.booleans()) else st.sampled_from(INTERESTING[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(places)
        value = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" * 8]))
        bent[at : at + len(value)] = value
    cut = data.draw(st.none() | st.integers(0, len(bent)))
    size = len(bent) if cut is None else cut
    regions = regions_in(bytes(bent[:cut]))
    assert [0, *(region.end for region in regions)] == [*(region.start for region in regions), size]
    found = found_in(bytes(bent[:cut]))
    edges = [edge for tensor in found for edge in (tensor.start, tensor.end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= size for edge in edges)
    assert all(tensor.end - tensor.start >= SHORTEST for tensor in found)


MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {**CONTAINERS, "npy": lambda t: containers.npy(t["a"])}
FEW = {"a": bytes(70 * KiB), "b": b"\1" * 100, "c": bytes(80 * KiB)}
WHOLE = {name: make(FEW) for name, make in MAKERS.items()}
# Every place whose byte is not part of a tensor, most of which are zero here: counts, sizes, offsets, types.
INTERESTING = {name: [at for at, byte in enumerate(whole) if byte] or [0] for name, whole in WHOLE.items()}
