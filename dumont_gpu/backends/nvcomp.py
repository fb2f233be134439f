"""LZ4 through nvCOMP's C library: the only module that knows nvCOMP.

nvCOMP's Python binding decodes lists of arrays, an object for each block of 64 KiB. The batched C functions take the
tables that the host makes anyway.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from pathlib import Path
from typing import Any, Final

from dumont_gpu.backends.device import Lz4Batch
from dumont_gpu.backends.requirements import NVCOMP

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


@functools.cache
def load_nvcomp() -> ctypes.CDLL | None:
    """Returns nvCOMP with its functions declared; None if no installed nvCOMP decodes LZ4 blocks at any address."""
    path = nvcomp_path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        decode, encode = library.nvcompBatchedLZ4DecompressAsync, library.nvcompBatchedLZ4CompressAsync
        alignments = library.nvcompBatchedLZ4DecompressGetRequiredAlignments
        scratch = _scratch_query(library)
    except (OSError, AttributeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    decode.argtypes = [*4 * [pointer], size, pointer, size, pointer, _DecodeOptions, pointer, pointer]
    encode.argtypes = [pointer, pointer, size, size, pointer, size, pointer, pointer, _EncodeOptions, pointer, pointer]
    scratch.argtypes = [size, size, _EncodeOptions, pointer, size, pointer]
    alignments.argtypes = [_DecodeOptions, pointer]
    required = (size * 3)()  # of encoded bytes, raw bytes and temporary memory, of which LZ4 needs none
    if alignments(_DecodeOptions(backend=_CUDA_BACKEND), required) or required[0] != 1:
        return None  # blocks of a frame lie at any address
    return library


def _scratch_query(library: ctypes.CDLL) -> Any:
    """Returns the query for scratch memory. nvCOMP 6 renamed it and added a stream argument, which nvCOMP 5 ignores."""
    try:
        return library.nvcompBatchedLZ4CompressGetTempSize
    except AttributeError:
        return library.nvcompBatchedLZ4CompressGetTempSizeAsync


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
