"""LZ4 through nvCOMP's C library: the only module of the product that knows nvCOMP.

The package is nvCOMP's Python binding, which brings the library. Chunks go past the binding: it takes and makes an
object for each block, a thousand for a chunk, where the batched C functions take the tables that the host makes anyway.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from pathlib import Path
from typing import Any, Final

from dumont_gpu import native
from dumont_gpu.backends.device import Lz4Batch
from dumont_gpu.backends.requirements import NVCOMP
from dumont_gpu.sizes import KiB

_VERSIONS: Final = range(5100, 7000)  # 1000 x major + 100 x minor: those whose structs are declared below
_MOST_SCRATCH: Final = 32 * KiB  # for each block that is encoded
_BLOCKS: Final = 1024  # of a chunk of 64 MiB
_CUDA_BACKEND: Final = 2  # NVCOMP_DECOMPRESS_BACKEND_CUDA: Blackwell's engine reports success even for damaged blocks


class _EncodeOptions(ctypes.Structure):
    """nvcompBatchedLZ4CompressOpts_t: plain bytes, so all zero."""

    _fields_ = (("data_type", ctypes.c_int), ("bitshuffle_mode", ctypes.c_int), ("reserved", ctypes.c_char * 56))


class _DecodeOptions(ctypes.Structure):
    """nvcompBatchedLZ4DecompressOpts_t of nvCOMP 5.1 to 6; fields that 5.1 lacks are reserved there, and 0 here."""

    _fields_ = (
        ("backend", ctypes.c_int), ("sort_before_hw_decompress", ctypes.c_int), ("data_type", ctypes.c_int),
        ("bitshuffle_mode", ctypes.c_int), ("reserved", ctypes.c_char * 48),
    )  # fmt: skip


def decode_lz4(library: ctypes.CDLL, batch: Lz4Batch, stream: int) -> int:
    """Queues the decoding of a batch on a CUDA stream; returns nvCOMP's status, 0 if the batch is queued."""
    status: int = library.nvcompBatchedLZ4DecompressAsync(
        batch.inputs, batch.input_sizes, batch.output_rooms, batch.output_sizes, batch.count, None, 0,
        batch.outputs, _DecodeOptions(backend=_CUDA_BACKEND), batch.statuses, stream,
    )  # fmt: skip
    return status


def encode_lz4(
    library: ctypes.CDLL, batch: Lz4Batch, block_size: int, scratch: int, scratch_size: int, stream: int
) -> int:
    """Queues the encoding of a batch on a CUDA stream; returns nvCOMP's status, 0 if the batch is queued."""
    status: int = library.nvcompBatchedLZ4CompressAsync(
        batch.inputs, batch.input_sizes, block_size, batch.count, scratch, scratch_size, batch.outputs,
        batch.output_sizes, _EncodeOptions(), batch.statuses, stream,
    )  # fmt: skip
    return status


def lz4_encode_scratch(library: ctypes.CDLL, blocks: int, block_size: int) -> int | None:
    """Returns the bytes of scratch memory that encoding a batch takes; None if nvCOMP refuses to tell."""
    size = ctypes.c_size_t()
    query = _scratch_query(library)
    failed = query(blocks, block_size, _EncodeOptions(), ctypes.byref(size), blocks * block_size, None)
    return None if failed else size.value


def load_nvcomp() -> ctypes.CDLL | None:
    """Returns nvCOMP with its functions declared; None if there is none that slots can use: see `nvcomp_refusal`."""
    return _load()[0]


def nvcomp_refusal() -> str:
    """Says why `load_nvcomp` returns None; empty if it returns the library."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    path = nvcomp_path()
    if path is None:
        return None, "there is none"
    try:
        library = ctypes.CDLL(str(path))
        refusal = broken_rule(library)
    except (OSError, AttributeError) as error:  # AttributeError: a function that is not there
        return None, f"{path.name} does not load: {' '.join(str(error).split())[:300]}"
    return (None, f"{path.name}: {refusal}") if refusal else (library, "")


def broken_rule(library: Any) -> str:
    """Declares the functions of `library`; names something that it wants and slots do not give; empty if there is none.

    Raises:
        AttributeError: the library lacks a function.
    """
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.nvcompBatchedLZ4DecompressAsync.argtypes = [
        *4 * [pointer], size, pointer, size, pointer, _DecodeOptions, pointer, pointer,
    ]  # fmt: skip
    library.nvcompBatchedLZ4CompressAsync.argtypes = [
        pointer, pointer, size, size, pointer, size, pointer, pointer, _EncodeOptions, pointer, pointer,
    ]  # fmt: skip
    encode_scratch, decode_scratch = _scratch_query(library), _scratch_query(library, "Decompress")
    encode_scratch.argtypes = [size, size, _EncodeOptions, pointer, size, pointer]
    decode_scratch.argtypes = [size, size, _DecodeOptions, pointer, size, pointer]
    library.nvcompBatchedLZ4CompressGetRequiredAlignments.argtypes = [_EncodeOptions, pointer]
    library.nvcompBatchedLZ4DecompressGetRequiredAlignments.argtypes = [_DecodeOptions, pointer]
    library.nvcompBatchedLZ4CompressGetMaxOutputChunkSize.argtypes = [size, _EncodeOptions, pointer]
    version = (ctypes.c_uint32 * 16)()  # nvcompProperties_t, which begins with the version, and room for a longer one
    if library.nvcompGetProperties(version) or version[0] not in _VERSIONS:
        return f"it is version {version[0] / 1000:.1f}; supported are 5.1 to 6"
    return _broken_number(library, encode_scratch, decode_scratch)


def _broken_number(library: Any, encode_scratch: Any, decode_scratch: Any) -> str:
    block, room = native.layout("kLz4BlockSize"), native.layout("kLz4BlockRoom")
    encoding, decoding = _EncodeOptions(), _DecodeOptions(backend=_CUDA_BACKEND)
    most = {  # what it says, and the most that slots give it; blocks of frames lie at any address
        "alignments to encode": ((ctypes.c_size_t * 3)(), (1, 1, 2)),
        "alignments to decode": ((ctypes.c_size_t * 3)(), (1, 1, 1)),
        "bytes for an encoded block": ((ctypes.c_size_t * 1)(), (room,)),
        "bytes of scratch to encode": ((ctypes.c_size_t * 1)(), (_BLOCKS * _MOST_SCRATCH,)),
        "bytes of scratch to decode": ((ctypes.c_size_t * 1)(), (0,)),
    }
    said = [numbers for numbers, _ in most.values()]
    failed = (
        library.nvcompBatchedLZ4CompressGetRequiredAlignments(encoding, said[0]),
        library.nvcompBatchedLZ4DecompressGetRequiredAlignments(decoding, said[1]),
        library.nvcompBatchedLZ4CompressGetMaxOutputChunkSize(block, encoding, said[2]),
        encode_scratch(_BLOCKS, block, encoding, said[3], _BLOCKS * block, None),
        decode_scratch(_BLOCKS, block, decoding, said[4], _BLOCKS * block, None),
    )
    for status, (what, (numbers, limits)) in zip(failed, most.items(), strict=True):
        if status:
            return f"it does not tell its {what} (status {status})"
        if any(number > limit for number, limit in zip(numbers, limits, strict=True)):
            wants, gives = ("/".join(map(str, row)) for row in (numbers, limits))
            return f"it wants {wants} {what}, dumont-gpu gives {gives}"
    return ""


def _scratch_query(library: Any, work: str = "Compress") -> Any:
    """Returns the query for scratch memory. nvCOMP 6 renamed it and added a stream argument, which nvCOMP 5 ignores."""
    try:
        return getattr(library, f"nvcompBatchedLZ4{work}GetTempSize")
    except AttributeError:
        return getattr(library, f"nvcompBatchedLZ4{work}GetTempSizeAsync")


def nvcomp_path() -> Path | None:
    """Returns the path of nvCOMP's library in the wheels nvidia-libnvcomp-cu12 and -cu13; None without a wheel."""
    # Importing `nvidia` would not do: one package with an `__init__.py` there hides the folders of all other packages.
    for name in NVCOMP:
        try:
            folder = Path(str(importlib.metadata.distribution(name).locate_file("nvidia/libnvcomp")))
        except importlib.metadata.PackageNotFoundError:
            continue
        if found := max(folder.glob("lib*/libnvcomp.so.*"), default=None):
            return found
    return None
