"""Files of tensors that lie, explode or want to run something: each ends with a table or with one line, soon."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from support.containers import zip_file

from dumont_gpu.errors import DumontError, NetworkError, UnsupportedError
from dumont_gpu.tensors.record import TensorTable
from dumont_gpu.tensors.safetensors import parse
from dumont_gpu.tensors.table import read_table
from dumont_gpu.tensors.zip_members import inflate, locate

GOLDEN = Path(__file__).parents[1] / "golden" / "tensors"
SECONDS = 20  # against stuck programs: the slowest attack takes about 5 on an old core


def table_of(data: bytes) -> TensorTable:
    return read_table(io.BytesIO(data), len(data), "file")


def refused(data: bytes, words: str | None = None, kind: type[DumontError] = DumontError) -> str:
    """Returns the one line that refuses a file, within bounded time."""
    begin = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        table_of(data)
    assert time.monotonic() - begin < SECONDS
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700
    return str(caught.value)


def checkpoint(data: bytes, storages: Iterable[tuple[str, bytes]] = (), method: int = zipfile.ZIP_STORED) -> bytes:
    members = [("a/data.pkl", data), *((f"a/data/{key}", content) for key, content in storages)]
    return zip_file(members, method=method)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


# --- pickles that run something ---------------------------------------------------------------------------------------

SYSTEM = b"cposix\nsystem\n"
TOUCH = text("touch ran")
ORDERED = b"ccollections\nOrderedDict\n"
FLOATS = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"

CODE = {
    "a global and a call": SYSTEM + TOUCH + b"\x85R",
    "a global on the stack": text("os") + text("system") + b"\x93" + TOUCH + b"\x85R",
    "a global through an attribute": text("torch") + text("os.system") + b"\x93" + TOUCH + b"\x85R",
    "a global of a module of modules": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
    "an instance": b"(" + TOUCH + b"iposix\nsystem\n",
    "an object": b"(" + SYSTEM + TOUCH + b"o",
    "a new object": SYSTEM + TOUCH + b"\x85\x81",
    "a new object with keywords": SYSTEM + TOUCH + b"\x85}\x92",
    "a state": b"ctypes\nSimpleNamespace\n)R}" + text("__setstate__") + SYSTEM + b"sb" + TOUCH + b"b",
    "a state of a class that is known": ORDERED + TOUCH + b"b",
    "a state of a tensor type": b"ctorch\nTensor\n}" + text("x") + b"K\x01sb",
    "an extension": b"\x82\x01",
    "an extension of two bytes": b"\x83\x01\x00",
    "an extension of four bytes": b"\x84\x01\x00\x00\x00",
    "a persistent id of text": b"Pstorage\n",
    "a persistent id that is a call": SYSTEM + b"Q",
    "a persistent id with a class of its own": b"(" + text("storage") + SYSTEM + text("0") + text("cpu") + b"K\x01tQ",
    "a persistent id with a class that is no storage": b"("
    + text("storage")
    + ORDERED
    + text("0")
    + text("cpu")
    + b"K\x01tQ",
    "a buffer from outside": b"\x97",
    "eval": b"c__builtin__\neval\n" + text("1") + b"\x85R",
    "getattr": b"c__builtin__\ngetattr\n" + ORDERED + text("fromkeys") + b"\x86R",
    "a namespace": b"cargparse\nNamespace\n)R",
    "a function inside a pickle": b"ctorch.storage\n_load_from_bytes\n" + text("x") + b"\x85R",
    "a rebuild by another function": b"ctorch._tensor\n_rebuild_from_type_v2\n" + ORDERED + b"ctorch\nTensor\n)N\x94tR",
    "a codec": b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R",
    "a decoder": b"c_codecs\ndecode\n" + text("x") + text("hex") + b"\x86R",
    "a call of data": text("x") + b")R",
    "a call of a tensor type": b"ctorch\nTensor\n)R",
    "a class as data": ORDERED,
    "a storage as data": b"(" + text("storage") + FLOATS + text("0") + text("cpu") + b"K\x01tQ",
    "an object of NumPy": b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R",
    "an array of NumPy": b"cnumpy.core.multiarray\n_reconstruct\n",
}


@pytest.mark.parametrize("protocol", [b"", b"\x80\x02", b"\x80\x04"])
@pytest.mark.parametrize("name", CODE)
def test_nothing_of_a_pickle_runs(name: str, protocol: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(checkpoint(protocol + CODE[name] + b".", [("0", bytes(4))]))
    assert list(tmp_path.iterdir()) == []


def test_the_refusal_names_what_the_pickle_would_run() -> None:
    assert refused(checkpoint(CODE["a global and a call"] + b"."), kind=UnsupportedError) == (
        "file: holds posix.system, which is not plain data: dumont-gpu runs nothing from a file"
    )


def test_a_hostile_name_is_printable() -> None:
    message = refused(checkpoint(b"c\x1b[2J" + b"x" * 500 + b"\nsystem\n."), "holds")
    assert "\\x1b[2J" in message


def test_real_objects_are_refused() -> None:
    class Reduced:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return print, ("ran",)

    for protocol in range(2, 6):
        refused(checkpoint(pickle.dumps({"a": [Reduced()]}, protocol)), "print")


@pytest.mark.parametrize("protocol", [0, 1])
def test_opcodes_of_old_protocols_are_refused(protocol: int) -> None:
    refused(checkpoint(pickle.dumps({"a": [True, 2**40]}, protocol)), "opcode", UnsupportedError)


# --- pickles that are too much ----------------------------------------------------------------------------------------


def laughs(count: int) -> bytes:
    """Tuples of two: each has the one before it twice."""
    return b"K\x01q\x00" + b"h\x00h\x00\x86q\x00" * count


BOMBS = {
    "a memo of two thousand million": b"Nr\xff\xff\xff\x7f" * 2 + b"j\xfe\xff\xff\x7f",
    "a frame without end": b"\x80\x04\x95" + b"\xff" * 8,
    "text without end": b"X\xff\xff\xff\xffabc",
    "bytes without end": b"\x8e" + b"\xff" * 8,
    "a byte array without end": b"\x96" + b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a long number": b"\x8b\xff\xff\xff\x7f",
    "a negative size of a number": b"\x8b\xff\xff\xff\xff",
    "a number of 10,000 bytes": b"\x8b" + struct.pack("<i", 10_000) + b"\x7f" * 10_000,
    "lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "tuples in tuples": b")" + b"\x85" * 100_000,
    "dicts in dicts": (b"}" + text("k")) * 100_000 + b"N" + b"s" * 100_000,
    "marks": b"(" * 100_000,
    "tuples of two": laughs(100),
    "many tuples of two": laughs(100_000),
    "a key of tuples of two": b"}" + laughs(60) + b"Ns",
    "a key of tuples in tuples": b"})" + b"\x85" * 100_000 + b"Ns",
    "a set of tuples of two": b"\x8f(" + laughs(60) + b"\x90",
    "a frozen set of tuples in tuples": b"()" + b"\x85" * 100_000 + b"\x91",
    "a list that holds itself": b"]q\x00h\x00a",
    "a dict that holds itself": b"}q\x00" + text("k") + b"h\x00s",
    "a list as a key": b"}]Ns",
    "a call with itself": ORDERED + b"q\x00h\x00\x85R",
    "a set of a set": b"c__builtin__\nset\n]\x8fa\x85R",
    "an empty stack": b"",
    "a pop of nothing": b"0",
    "a mark that is not there": b"Nt",
    "a key without a value": b"}(Nu",
    "an append to a number": b"K\x01Na",
    "an append to nothing": b"Na",
    "a value of a text": text("x") + b"NNs",
    "a memory of nothing": b"q\x00",
    "a memory that is not there": b"h\x07",
    "text that is not Unicode": b"X\x02\x00\x00\x00\xff\xfe",
    "a name without end": b"c" + b"x" * 5000,
    "a name that is a number": b"K\x01K\x02\x93",
    "protocol 9": b"\x80\x09N",
    "protocol 0": b"\x80\x00N",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_is_too_much_is_refused(name: str) -> None:
    refused(checkpoint(BOMBS[name] + b"."))


def test_copies_are_paid_for() -> None:
    """One large value that is copied again and again, by a few bytes of the pickle each time."""
    large_list = b"(" + b"N" * 100_000 + b"lq\x00"
    large_dict = b"}(" + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(60_000)) + b"uq\x00"
    large_text = text("x" * 1_000_000) + b"q\x00"
    attacks = [
        large_list + b"c__builtin__\nset\nq\x01" + b"h\x01h\x00\x85R" * 10_000,
        large_list + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 10_000,
        large_dict + b"ccollections\nCounter\nq\x01" + b"h\x01h\x00\x85R" * 10_000,
        large_text + b"c_codecs\nencode\nq\x01" + text("latin1") + b"q\x02" + b"h\x01h\x00h\x02\x86R" * 10_000,
        large_text + b"c__builtin__\nbytearray\nq\x01" + text("latin-1") + b"q\x02" + b"h\x01h\x00h\x02\x86R" * 10_000,
    ]
    for attack in attacks:
        tracemalloc.start()
        refused(checkpoint(attack + b"."))
        assert tracemalloc.get_traced_memory()[1] < 700_000_000
        tracemalloc.stop()


def test_keys_whose_hashes_collide_are_too_much() -> None:
    modulus = (1 << 61) - 1
    numbers = (
        b"}("
        + b"".join(b"\x8a\x0c" + (modulus * n << 16).to_bytes(12, "little") + b"N" for n in range(1, 50_000))
        + b"u"
    )
    refused(checkpoint(numbers + b"."), "key")
    tuples = b"}(" + b"".join(b"M" + struct.pack("<H", n) + b"K\x01\x86N" for n in range(20_000)) + b"u"
    refused(checkpoint(tuples + b"."), "million")


def test_a_small_file_does_not_make_much_work() -> None:
    """The most that a compressed pickle of the largest size can ask for."""
    for opcode in (b"(", b"}", b"\x8f"):
        data = checkpoint(opcode * (4_000_000 // len(opcode)) + b".", method=zipfile.ZIP_DEFLATED)
        assert len(data) < 100_000
        begin = time.monotonic()
        survives(data)
        assert time.monotonic() - begin < SECONDS
    too_large = checkpoint(b"N" * 5_000_000 + b".", method=zipfile.ZIP_DEFLATED)
    refused(too_large, "5000001 bytes")


def test_names_cannot_grow_without_end() -> None:
    long_key = text("k" * 2000)
    refused(checkpoint(b"}" + long_key + tensor() + b"s.", [("0", bytes(64))]), "1024 characters")
    refused(checkpoint(b"}K\x01K\x02\x86" + tensor() + b"s.", [("0", bytes(64))]), "neither text nor a number")


def test_many_names_of_one_tensor_are_too_much() -> None:
    """Ten lists of ten tensors, of each of which there are ten, and so on: a tensor has a name in each place."""
    data = tensor() + b"q\x00" + (b"(" + b"h\x00" * 10 + b"lq\x00") * 8
    refused(checkpoint(data + b".", [("0", bytes(64))]), "values")


def test_two_tensors_of_one_name_are_refused() -> None:
    both = b"}" + text("a.b") + tensor() + b"s" + text("a") + b"}" + text("b") + tensor() + b"ss"
    refused(checkpoint(both + b".", [("0", bytes(64))]), "both be called a.b")


# --- tensors that reach out of their storage --------------------------------------------------------------------------


def number(value: int) -> bytes:
    raw = value.to_bytes(20, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: Iterable[object]) -> bytes:
    return b"(" + b"".join(number(v) if isinstance(v, int) else b"G" + struct.pack(">d", v) for v in values) + b"t"


def storage(count: int = 16, key: str = "0", kind: bytes = FLOATS) -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    offset: int = 0,
    shape: Iterable[object] = (2, 2),
    strides: Iterable[object] = (2, 1),
    place: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    place = storage() if place is None else place
    return (
        REBUILD
        + b"("
        + place
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + ORDERED
        + b")R"
        + more
        + b"tR"
    )


def test_the_tensor_that_the_attacks_start_from_is_sound() -> None:
    (record,) = table_of(checkpoint(tensor() + b".", [("0", bytes(64))])).records
    assert (record.shape, record.start, record.size) == ((2, 2), 0, 16)


TENSORS = {
    "an offset behind the storage": tensor(offset=13),
    "a negative offset": tensor(offset=-1),
    "an offset of 2^63": tensor(offset=1 << 63),
    "an offset of 2^62": tensor(offset=1 << 62),
    "a shape that is too long": tensor(shape=(5, 4), strides=(4, 1)),
    "a negative length": tensor(shape=(-2, 2)),
    "a length that is no int": tensor(shape=(2.0, 2)),
    "a stride behind the storage": tensor(strides=(15, 1)),
    "a negative stride": tensor(strides=(-2, 1)),
    "a stride of 2^63": tensor(strides=(1 << 63, 1)),
    "a stride of 2^62": tensor(strides=(1 << 62, 1)),
    "a product that wraps to 4": tensor(shape=(1 << 33, (1 << 31) + 1), strides=(0, 0)),
    "a product of 2^64": tensor(shape=(1 << 32, 1 << 32), strides=(0, 0)),
    "a product of 2^64 and nothing": tensor(shape=(1 << 40, 1 << 40, 0), strides=(0, 0, 0)),
    "fewer strides": tensor(strides=(1,)),
    "more strides": tensor(strides=(2, 2, 1)),
    "65 dimensions": tensor(shape=[1] * 65, strides=[1] * 65),
    "a storage that is not there": tensor(place=storage(key="1")),
    "a storage by another path": tensor(place=storage(key="../data.pkl")),
    "a storage that is larger than its member": tensor(place=storage(17)),
    "a storage of negative size": tensor(place=storage(-1)),
    "a storage of 2^62 elements": tensor(place=storage(1 << 62), shape=(1 << 61, 1), strides=(1, 1)),
    "a storage without a type": tensor(place=storage(64, kind=b"ctorch.storage\nUntypedStorage\n")),
    "a number as a storage": tensor(place=b"K\x01"),
    "a conjugate": tensor(more=b"}" + text("conj") + b"\x88s"),
    "metadata that are no dict": tensor(more=b"K\x01"),
    "an argument too many": tensor(more=b"NN"),
    "a parameter of a number": b"ctorch._utils\n_rebuild_parameter\nK\x01\x88N\x87R",
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_reaches_out_of_its_storage_is_refused(name: str) -> None:
    refused(checkpoint(TENSORS[name] + b".", [("0", bytes(64))]))


def test_the_byte_order_of_a_checkpoint_is_checked() -> None:
    for order in (b"big", b"", b"little" * 1000):
        refused(zip_file([("a/data.pkl", b"N."), ("a/byteorder", order)]), "big-endian", UnsupportedError)


def test_a_program_is_refused() -> None:
    refused(zip_file([("a/data.pkl", b"N."), ("a/constants.pkl", b"N.")]), "TorchScript", UnsupportedError)


# --- zips that lie ----------------------------------------------------------------------------------------------------

SOUND = checkpoint(tensor() + b".", [("0", bytes(64))])
END = SOUND.rfind(b"PK\5\6")
CENTRAL = SOUND.index(b"PK\1\2")


def patched(at: int, new: bytes, data: bytes = SOUND) -> bytes:
    return data[:at] + new + data[at + len(new) :]


ZIPS = {
    "no end": SOUND[:END],
    "a directory of 4 GiB": patched(END + 12, b"\xfe\xff\xff\xff"),
    "a directory somewhere else": patched(END + 16, b"\xff\xff\xff\x7f"),
    "a directory that is cut short": patched(END + 12, struct.pack("<I", 50)),
    "a member behind the file": patched(CENTRAL + 42, b"\xf0\xff\xff\x7f"),
    "a member of another size": patched(CENTRAL + 24, struct.pack("<I", 10_000)),
    "a member larger than the file": patched(CENTRAL + 20, struct.pack("<II", 1 << 30, 1 << 30)),
    "an encrypted member": patched(CENTRAL + 8, b"\1"),
    "an unknown method": patched(CENTRAL + 10, b"\x0c"),
    "another name in the member": patched(30, b"b"),
    "another magic in the member": patched(2, b"\5\5", b"PK\3\4" + SOUND),
    "a version of the far future": patched(CENTRAL + 6, b"\xff"),
    "the bytes of another pickle": patched(30 + len("a/data.pkl"), b"N."),
    "nothing but an end": b"PK\3\4" + b"PK\5\6" + bytes(18),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_that_lies_is_refused(name: str) -> None:
    refused(ZIPS[name])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused() -> None:
    refused(zip_file([("a/data.pkl", b"N."), ("a/data/0", b"x"), ("a/data/0", b"y")]), "two members of one name")


def test_a_directory_of_more_than_16_mib_is_not_read() -> None:
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 20 << 20, 4, 0)
    refused(b"PK\3\4" + bytes(20 << 20) + end, "16 MiB")


def test_a_storage_that_has_moved_is_refused_when_it_is_loaded() -> None:
    at = SOUND.index(b"PK\3\4", 4)
    (record,) = table_of(SOUND).records
    assert record.member is not None
    assert record.member.header == at
    for data in (
        patched(at, b"PK\3\5"),
        patched(at + 26, b"\xff\xff"),
        patched(at + 28, b"\xff\xff"),
        patched(at + 30, b"b"),
        SOUND[: at + 9],
    ):
        with pytest.raises(DumontError, match="member|shorter"):
            locate(io.BytesIO(data), record)


def test_a_zip_bomb_inflates_to_what_was_asked_for() -> None:
    data = zip_file([("a/data.pkl", tensor() + b"."), ("a/data/0", bytes(50_000_000))], method=zipfile.ZIP_DEFLATED)
    (record,) = table_of(data).records
    assert record.member is not None
    tracemalloc.start()
    assert inflate(io.BytesIO(data), record.member, 100) == bytes(100)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_member_that_inflates_to_something_else_is_refused() -> None:
    data = zip_file([("a/data.pkl", tensor() + b"."), ("a/data/0", bytes(64))], method=zipfile.ZIP_DEFLATED)
    (record,) = table_of(data).records
    member = record.member
    assert member is not None
    start = member.header + 30 + len(member.name)
    for raw in (
        b"\0" * member.packed,
        b"\xff" * member.packed,
        zlib.compress(b"x" * 64)[2:-4].ljust(member.packed, b"\0"),
    ):
        with pytest.raises(DumontError, match="inflate|CRC"):
            inflate(io.BytesIO(patched(start, raw[: member.packed], data)), member, member.size)
    with pytest.raises(DumontError, match="not 65"):
        inflate(io.BytesIO(data), member, 65)


def test_a_size_that_nothing_inflates_to_is_refused() -> None:
    data = zip_file([("a/data.pkl", b"N."), ("a/data/0", bytes(1000))], method=zipfile.ZIP_DEFLATED)
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    refused(patched(entry + 24, struct.pack("<I", 0x7FFFFFFF), data), "cannot be of the size")


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(begin: object = 0, end: object = 4, shape: object = (1,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FOUR = bytes(4)
HEADERS = {
    "a header that is cut short": struct.pack("<Q", 100) + b"{}",
    "no JSON": safetensors(b"{abc}"),
    "JSON of another encoding": safetensors("{}".encode("utf-16")[2:].replace(b"{\0", b"{ ")),
    "half a character": safetensors(b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', FOUR),
    "half a character in metadata": safetensors(b'{"__metadata__": {"a": "\\udfff"}}'),
    "brackets": safetensors(b'{"a":' + b"[" * 1_000_000),
    "objects": safetensors(b'{"a":' * 100_000),
    "a number without end": safetensors(
        b'{"a": {"dtype": "F32", "shape": [' + b"1" * 1_000_000 + b'], "data_offsets": [0, 4]}}', FOUR
    ),
    "a name that is there twice": safetensors(
        b'{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}',
        FOUR,
    ),
    "a key that is there twice": safetensors(
        b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', FOUR
    ),
    "metadata that are no text": safetensors({"__metadata__": {"a": 1}}),
    "metadata that are a list": safetensors({"__metadata__": []}),
    "a list": safetensors({"a": []}),
    "no type": safetensors({"a": {"shape": [1], "data_offsets": [0, 4]}}, FOUR),
    "a type that is a number": safetensors({"a": entry(dtype=32)}, FOUR),
    "NumPy's name of a type": safetensors({"a": entry(dtype="<f4")}, FOUR),
    "no shape": safetensors({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR),
    "a negative length": safetensors({"a": entry(shape=[-1])}, FOUR),
    "a length that is true": safetensors({"a": entry(shape=[True])}, FOUR),
    "a length that is no int": safetensors({"a": entry(shape=[1.0])}, FOUR),
    "a product of 2^64": safetensors({"a": entry(0, 0, [1 << 32, 1 << 32])}),
    "65 dimensions": safetensors({"a": entry(shape=[1] * 65)}, FOUR),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [1]}}, FOUR),
    "one offset": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, FOUR),
    "negative offsets": safetensors({"a": entry(-4, 0)}, FOUR),
    "offsets the wrong way round": safetensors({"a": entry(4, 0)}, FOUR),
    "offsets outside the file": safetensors({"a": entry(0, 8, [2])}, FOUR),
    "offsets of another size": safetensors({"a": entry(0, 4, [2])}, FOUR),
    "bytes behind the tensors": safetensors({"a": entry()}, FOUR + b"x"),
    "a hole": safetensors({"a": entry(), "b": entry(8, 12)}, bytes(12)),
    "bytes before the first": safetensors({"a": entry(4, 8)}, bytes(8)),
    "an overlap": safetensors({"a": entry(0, 8, [2]), "b": entry(4, 8)}, bytes(8)),
    "the same bytes twice": safetensors({"a": entry(), "b": entry()}, FOUR),
    "half a byte": safetensors({"a": entry(0, 4, [7], "F4")}, FOUR),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_breaks_a_rule_is_refused(name: str) -> None:
    refused(HEADERS[name])


@pytest.mark.parametrize("name", HEADERS)
def test_the_library_refuses_it_too(name: str) -> None:
    """No rule here is stricter than the library's, but that NumPy and PyTorch have 64 dimensions."""
    library = pytest.importorskip("safetensors")
    if name == "65 dimensions":
        library.deserialize(HEADERS[name])
    else:
        with pytest.raises(library.SafetensorError):
            library.deserialize(HEADERS[name])


# --- NumPy ------------------------------------------------------------------------------------------------------------


def npy(header: str, data: bytes = bytes(64), version: int = 1, size: int | None = None) -> bytes:
    raw = header.encode()
    width = 2 if version == 1 else 4
    return (
        b"\x93NUMPY" + bytes([version, 0]) + (len(raw) if size is None else size).to_bytes(width, "little") + raw + data
    )


def fields(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 2)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


ARRAYS = {
    "a version of the future": npy(fields(), version=4),
    "nothing but the magic": b"\x93NUMPY",
    "a header that is cut short": npy(fields(), b"", size=500),
    "a header of 4 GiB": npy(fields(), version=2, size=0xFFFFFFFF),
    "a header of 60,000 bytes": npy(fields() + " " * 60_000),
    "brackets": npy("(" * 9_000),
    "minus signs": npy("-" * 9_000 + "1"),
    "sums": npy("1" + "+1j" * 3_000),
    "a call": npy("__import__('os').system('touch ran')"),
    "a set of a list": npy("{[]}"),
    "a NUL": npy("{'descr': '\0'}"),
    "a list": npy("[1]"),
    "another key": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}"),
    "an order that is a number": npy(fields(order="0")),
    "a shape that is a number": npy(fields(shape="4")),
    "a negative length": npy(fields(shape="(-1,)")),
    "a length that is true": npy(fields(shape="(True,)")),
    "a product of 2^64": npy(fields(shape="(4294967296, 4294967296)")),
    "a product of 2^64 and nothing": npy(fields(shape="(4294967296, 4294967296, 0)")),
    "a shape longer than the file": npy(fields(shape="(17,)")),
    "65 dimensions": npy(fields(shape="(" + "1," * 65 + ")")),
    "pickled objects": npy(fields("'|O'")),
    "pickled objects within": npy(fields("[('a', '<f4'), ('b', [('c', '|O')])]")),
    "a type that is not NumPy's": npy(fields("'<f3'")),
    "a type of letters": npy(fields("'<q8'")),
    "a type that is a number": npy(fields("4")),
    "a type with digits of another script": npy(fields("'<U٣'")),
    "a unit that is none": npy(fields("'<M8[xx]'")),
    "an element of 4 GiB": npy(fields("'<U1073741824'", shape="(0,)")),
    "a structure without types": npy(fields("[('a',)]")),
    "a structure of one name": npy(fields("[('a', '<f4'), ('a', '<f4')]")),
    "a structure with a number as a name": npy(fields("[(1, '<f4')]")),
    "structures in structures": npy(fields("[('a', " * 40 + "'<f4'" + ")]" * 40)),
    "a structure of 2^64 elements": npy(fields("[('a', '<f4', (4294967296, 4294967296))]", shape="(0,)")),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_file_that_lies_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(ARRAYS[name])
    assert list(tmp_path.iterdir()) == []


def test_pickled_objects_do_not_hide_the_other_arrays_of_an_npz_file() -> None:
    out = io.BytesIO()
    np.savez(out, a=np.arange(3), b=np.array([{}], dtype=object))
    first, second = table_of(out.getvalue()).records
    assert (first.dtype, second.dtype, second.item_size) == ("I64", "object", 0)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_npz_member_that_lies_is_refused(name: str, method: int) -> None:
    if not name.startswith("pickled objects"):
        refused(zip_file([("x.npy", ARRAYS[name])], method=method), "member x.npy")


# --- damage -----------------------------------------------------------------------------------------------------------


def victims() -> dict[str, bytes]:
    out = io.BytesIO()
    np.savez(out, a=np.arange(6.0).reshape(2, 3), b=np.asfortranarray(np.ones((3, 2))))
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.arange(6.0), s=np.zeros(2, [("x", "<f4"), ("y", ">i2", (2,))]))
    files = {path.name: path.read_bytes() for path in sorted([*GOLDEN.glob("*.pt"), *GOLDEN.glob("*.safetensors")])}
    return files | {"arrays.npz": out.getvalue(), "packed.npz": packed.getvalue(), "array.npy": npy(fields())}


VICTIMS = victims()


def survives(data: bytes) -> None:
    """Reads a table and every byte that it points to: all of it works, or ends with an error of one line."""
    try:
        for record in table_of(data).records:
            found = locate(io.BytesIO(data), record)
            if found.member is not None:
                inflate(io.BytesIO(data), found.member, found.start + found.span)
            else:
                assert 0 <= found.start <= found.start + found.span <= len(data)
    except DumontError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("name", [name for name, data in VICTIMS.items() if len(data) < 4000])
def test_a_file_that_is_cut_short_anywhere_is_survived(name: str) -> None:
    data = VICTIMS[name]
    for size in range(len(data)):
        survives(data[:size])


@pytest.mark.parametrize("name", VICTIMS)
def test_flipped_bits_are_survived(name: str) -> None:
    source = random.Random(name)
    begin = time.monotonic()
    for _ in range(3000):
        data = bytearray(VICTIMS[name])
        for _ in range(source.choice((1, 1, 2, 8))):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        survives(bytes(data))
    assert time.monotonic() - begin < 50


@pytest.mark.parametrize("name", [name for name in VICTIMS if name.endswith(".pt") and name != "no-crc.pt"])
def test_bent_pickles_are_survived(name: str) -> None:
    """The same for the pickle alone, in a zip whose checksum is right."""
    with zipfile.ZipFile(io.BytesIO(VICTIMS[name])) as archive:
        inside = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    script = inside.pop("data.pkl")
    storages = [(key.removeprefix("data/"), content) for key, content in inside.items() if key.startswith("data/")]
    source = random.Random(name)
    for _ in range(2000):
        data = bytearray(script)
        for _ in range(source.choice((1, 1, 2, 8))):
            data[source.randrange(len(data))] = source.choice(
                (source.randrange(256), *b"(.)]}0RQb\x81\x85\x86\x93\xff\x00")
            )
        if source.random() < 0.2:
            at = source.randrange(len(data))
            del data[at : at + source.randrange(1, 9)]
        survives(checkpoint(bytes(data), storages))


@pytest.mark.parametrize("error", [TimeoutError, NetworkError])
@pytest.mark.parametrize("name", ["every-type.safetensors", "bare.pt", "packed.npz", "array.npy"])
def test_errors_of_the_file_itself_are_passed_on(name: str, error: type[Exception]) -> None:
    class Broken(io.BytesIO):
        reads = 0

        def read(self, count: int | None = -1, /) -> bytes:
            self.reads -= 1
            if self.reads < 0:
                raise error("the link")
            return super().read(count)

    for reads in range(20):
        file = Broken(VICTIMS[name])
        file.reads = reads
        try:
            read_table(file, len(VICTIMS[name]), "file")
        except error as caught:
            assert str(caught) == "the link"
        else:
            assert reads > 1  # enough of them for the whole table
            return
    pytest.fail("a table takes more than 20 reads")


def test_a_safetensors_header_of_very_many_values_is_not_parsed() -> None:
    with pytest.raises(DumontError, match="more than 4000000 values"):
        parse(b'{"a":[' + b"[]," * 2_000_001 + b"[]]}")
