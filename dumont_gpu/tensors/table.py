"""Finds the tensors of a file, whatever kind of file it is: reads the file's own table, never the tensors."""

from __future__ import annotations

from typing import BinaryIO, Final

from dumont_gpu.format.paths import printable
from dumont_gpu.tensors import numpy_files, safetensors, torch_zip, zip_members
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.file_bytes import FileBytes
from dumont_gpu.tensors.record import TensorTable

_HEAD: Final = 16  # bytes that tell the kinds apart
_KNOWN: Final = "safetensors, PyTorch's zip, npy and npz"
# Other files that hold tensors, by their first bytes.
_OTHERS: Final = (
    (b"GGUF", "is a GGUF file"),
    (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19",
        "is a PyTorch checkpoint in the form before version 1.6, without a zip",
    ),
    (b"\x80", "is a pickle without a zip"),
    (b"\x08", "may be an ONNX model"),
)


def read_table(file: BinaryIO, size: int, name: str) -> TensorTable:
    """Returns the tensors of a seekable file of `size` bytes.

    What kind of file it is, its first bytes say. Little is read: of safetensors and npy the header; of a checkpoint
    of PyTorch the zip's directory, at the file's end, and the pickle; of npz the directory and a header per array.

    Args:
        file: is read and moved; reads may raise what they like, which is passed on.
        size: bytes of the file.
        name: of the file, for errors alone.

    Raises:
        MalformedError: a DumontError: the file is not what its first bytes promise.
        RefusedError: an UnsupportedError: the file holds no tensors that are known, or other things than data.
    """
    try:
        return _table(FileBytes(file, size))
    except (MalformedError, RefusedError) as error:
        raise type(error)(f"{printable(name)}: {error}") from error


def _table(data: FileBytes) -> TensorTable:
    head = data.head(0, _HEAD)
    if safetensors.begins(head):
        return safetensors.table(data)
    if head.startswith(numpy_files.MAGIC):
        return numpy_files.npy_table(data)
    if head.startswith(zip_members.MAGICS):
        return _zip_table(data)
    kind = next((words for magic, words in _OTHERS if head.startswith(magic)), "")
    raise _unknown(kind)


def _zip_table(data: FileBytes) -> TensorTable:
    members = zip_members.members(data)
    prefix = torch_zip.folder(members)
    if prefix is not None:
        return torch_zip.table(data, members, prefix)
    if not members or any(name.endswith(numpy_files.SUFFIX) for name in members):
        return numpy_files.npz_table(data, members)
    raise _unknown("is a zip of other things")


def _unknown(kind: str) -> RefusedError:
    words = f"holds no tensors that are known ({_KNOWN}); read its bytes instead"
    return RefusedError(f"{kind} and {words}" if kind else words)
