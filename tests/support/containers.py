"""The same tensors in the files that frameworks write: safetensors, .pt, .npz, .npy, GGUF, ONNX. Without the frameworks."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Final

Tensors = Mapping[str, bytes]  # fp32


def safetensors(tensors: Tensors, dtype: str = "F32") -> bytes:
    header, at = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": dtype, "shape": [len(data) // 4], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def zip_file(members: Iterable[tuple[str, bytes]], *, align: int = 1, method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip file; `align` pads each local header by an extra field, as PyTorch does."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if align > 1:
                pad = -(out.tell() + 30 + len(name) + 4) % align
                info.extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
            archive.writestr(info, data)
    return out.getvalue()


def checkpoint(tensors: Tensors) -> bytes:
    """A PyTorch checkpoint; its pickle is none, because nobody may load it."""
    storages = [(f"archive/data/{number}", data) for number, data in enumerate(tensors.values())]
    return zip_file([("archive/data.pkl", b"no pickle: nobody loads this"), *storages], align=64)


def npy(data: bytes, version: int = 1) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(data) // 4},), }}"
    width = 2 if version == 1 else 4
    text = header.ljust(127 - 8 - width) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text.encode() + data


def npz(tensors: Tensors) -> bytes:
    return zip_file((f"{name}.npy", npy(data)) for name, data in tensors.items())


def gguf(tensors: Tensors, *, version: int = 3, kind: int = 0, alignment: int = 32) -> bytes:
    """A GGUF file with a vocabulary, scores and an alignment before the tensors, of ggml's type `kind`."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return string(key) + struct.pack("<I", kind) + value

    words = [string(f"word-{number}") for number in range(5_000)]
    pairs = [
        pair("general.architecture", 8, string("llama")),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(words)) + b"".join(words)),
        pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, len(words)) + bytes(4 * len(words))),
        pair("tokenizer.add_bos", 7, b"\1"),
        pair("general.alignment", 4, struct.pack("<I", alignment)),
    ]
    infos, body = [], b""
    for name, data in tensors.items():
        infos.append(string(name) + struct.pack("<IQQIQ", 2, len(data) // 4, 1, kind, len(body)))
        body += data + bytes(-len(data) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(pairs + infos)
    return head + bytes(-len(head) % alignment) + body


def varint(value: int) -> bytes:
    low = []
    while value >= 0x80:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name: str, data: bytes, kind: int = 1, data_field: int = 9) -> bytes:
    return field(1, len(data) // 4) + field(2, kind) + field(8, name.encode()) + field(data_field, data)


def onnx(tensors: Tensors) -> bytes:
    """An ONNX model: half of the tensors are initializers, a constant is in a node, the others in a subgraph of a branch."""
    names = list(tensors)
    half = len(names) // 2
    initializers = b"".join(field(5, onnx_tensor(name, tensors[name])) for name in names[:half])
    constant = field(
        1, field(1, b"x") + field(5, field(1, b"value") + field(5, onnx_tensor("c", tensors[names[half]])))
    )
    inner = b"".join(field(5, onnx_tensor(name, tensors[name], data_field=4)) for name in names[half + 1 :])
    branch = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, inner) + field(20, 5)))
    graph = field(2, b"graph") + constant + branch + initializers + field(11, b"input")
    return field(1, 9) + field(2, b"pytorch") + field(7, graph) + field(8, field(2, 17))


CONTAINERS: Final[dict[str, Callable[[Tensors], bytes]]] = {
    "safetensors": safetensors,
    "pt": checkpoint,
    "npz": npz,
    "gguf": gguf,
    "onnx": onnx,
}
