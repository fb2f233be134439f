"""The table of a zip that `torch.save` has written: a pickle, and a member for each storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dumont_gpu.format.paths import shown
from dumont_gpu.sizes import MiB, align_up
from dumont_gpu.tensors import checkpoint, pickle_data
from dumont_gpu.tensors.faults import MalformedError, RefusedError
from dumont_gpu.tensors.file_bytes import FileBytes
from dumont_gpu.tensors.record import Member, TensorRecord, TensorTable
from dumont_gpu.tensors.torch_objects import NAMES, View, storage_of
from dumont_gpu.tensors.zip_members import inflate

_PICKLE: Final = "data.pkl"
_PROGRAM: Final = "constants.pkl"  # beside the pickle, in what `torch.jit.save` writes
_MAX_PICKLE: Final = 64 * MiB
# PyTorch never compresses it, a zip packed again may: a small file must not become much work.
_MAX_DEFLATED_PICKLE: Final = 4 * MiB
_STORAGE_ALIGNMENT: Final = 64
_LOCAL_HEADER: Final = 30  # bytes of a zip's local header before the name
_PADDING_HEAD: Final = 4  # bytes of a field in a zip's extra field before its content
_WIDE: Final = 0xFFFF_FFFF  # sizes and offsets from here on take a zip64 field


def folder(members: Mapping[str, Member]) -> str | None:
    """Returns what the names of a checkpoint's members begin with, "archive/"; None if a zip is no checkpoint."""
    found = [name for name in members if name.rpartition("/")[2] == _PICKLE and name.count("/") <= 1]
    return found[0].removesuffix(_PICKLE) if len(found) == 1 else None


def table(data: FileBytes, members: Mapping[str, Member], prefix: str) -> TensorTable:
    """Returns the tensors of a checkpoint whose members' names begin with `prefix`, and its structure.

    Reads the pickle alone: where a storage lies is found out when it is loaded.

    Raises:
        MalformedError: the checkpoint is not sound.
        RefusedError: it holds more than tensors and plain data, or has big-endian bytes.
    """
    if prefix + _PROGRAM in members:
        raise RefusedError("holds a TorchScript program, and dumont-gpu runs nothing from a file")
    _check_byte_order(data, members.get(prefix + "byteorder"))
    pickle = members[prefix + _PICKLE]
    if pickle.size > (_MAX_DEFLATED_PICKLE if pickle.deflated else _MAX_PICKLE):
        raise RefusedError(f"holds a pickle of {pickle.size} bytes")
    root = pickle_data.load(inflate(data.file, pickle, pickle.size), NAMES, storage_of)

    def record(name: str, view: View) -> TensorRecord:
        return _record(name, view, members.get(f"{prefix}data/{view.storage.key}"))

    return checkpoint.table(root, record)


def _check_byte_order(data: FileBytes, member: Member | None) -> None:
    """Refuses what a big-endian machine has written; before PyTorch 2.1 nothing said so, and nobody had one."""
    if member is not None and (member.size > 6 or inflate(data.file, member, member.size) != b"little"):
        raise RefusedError("has big-endian numbers")


def _record(name: str, view: View, member: Member | None) -> TensorRecord:
    """Returns a view as a tensor in the member that is its storage."""
    if member is None or member.size < view.storage.size:
        raise MalformedError(f"tensor {shown(name)} has a storage that is not in the zip")
    return TensorRecord(name, view.dtype, view.item_size, view.shape, view.start, view.strides, member)


def expected_start(member: Member) -> int:
    """Returns the offset in the file where `torch.save` puts a storage's bytes: only its local header says for sure.

    PyTorch pads the extra field of the header so that the bytes begin at a multiple of 64: `getPadding` in
    caffe2/serialize/inline_container.cc.
    """
    size = _LOCAL_HEADER + len(member.name.encode()) + _PADDING_HEAD
    wide_size, wide_header = member.size >= _WIDE, member.header >= _WIDE
    if wide_size or wide_header:
        size += _PADDING_HEAD + 16 * wide_size + 8 * wide_header
    return align_up(member.header + size, _STORAGE_ALIGNMENT)
