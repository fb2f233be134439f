"""Describes a chunk to a CUDA device: tables of blocks, and descriptions of the work.

The host checks headers and tables on the CPU and lists the blocks; the device looks inside the blocks.
"""

from __future__ import annotations

import ctypes
from typing import Final

from dumont_gpu.native.library import I64, POINTER, TEXT, U32, U64, Function
from dumont_gpu.native.memory import address
from dumont_gpu.native.zipnn import Dtype

ZIPNN_BLOCK: Final = 56  # bytes of a DeviceBlock: a row in the table of a ZipNN chunk's blocks
ENCODE_JOB: Final = 48  # bytes of an EncodeJob: the description of a chunk to encode
PLANE_PLAN: Final = 1192  # bytes of a PlanePlan: a device's decisions for one plane of one block
LZ4_BLOCK: Final = 4 * 8  # bytes of a compressed block in the four arrays of a table
STORED_COPY: Final = 24  # bytes of a StoredCopy: a block that a frame holds raw

_layout = Function("dumont_layout", U64, TEXT)


def layout(name: str) -> int:
    """Returns the size of a struct, or a constant, of kernels/shared, as compiled into the library.

    A test compares the constants above, and the constants of backends/, with this function.

    Args:
        name: as in the header: "DeviceBlock", "kDecodeMemory".

    Raises:
        KeyError: the library does not export the name (see kernels/cpu/device_tables.cpp).
    """
    value: int = _layout(name.encode())
    if not value:
        raise KeyError(name)
    return value


_zipnn_device_blocks = Function("dumont_zipnn_device_blocks", I64, POINTER, U64, U64, U64, U64, POINTER, U64)


def zipnn_device_blocks(
    encoded: memoryview, size: int, table: memoryview, encoded_at: int = 0, out_at: int = 0
) -> int | None:
    """Lists the blocks of a ZipNN chunk of `size` raw bytes in `table`, ZIPNN_BLOCK bytes each.

    Args:
        encoded_at: where the chunk's encoded bytes start in the kernel's source memory; a multiple of 16.
        out_at: where the chunk's raw bytes start in the kernel's output memory.

    Returns:
        How many blocks there are. None if this chunk is not for a device: the chunk is damaged, or has a shape that
        only the CPU decodes.
    """
    capacity = len(table) // ZIPNN_BLOCK
    with address(encoded) as start, address(table, writable=True) as blocks:
        count: int = _zipnn_device_blocks(start, len(encoded), size, encoded_at, out_at, blocks, capacity)
    return None if count < 0 else count


_zipnn_encode_job = Function("dumont_zipnn_encode_job", I64, U32, U64, U32, U64, U64, U64, POINTER)


def zipnn_encode_job(
    dtype: Dtype, size: int, block_log2: int, source: int, out: int, plans: int, job: memoryview
) -> int:
    """Describes to a device the encoding of `size` bytes, whole elements, as one ZipNN stream.

    Args:
        source, out, plans: device addresses; `plans` has PLANE_PLAN bytes for each plane of each block.
        job: receives the description, ENCODE_JOB bytes.

    Returns:
        How many planes all blocks have together.
    """
    with address(job, writable=True) as start:
        planes: int = _zipnn_encode_job(dtype, size, block_log2, source, out, plans, start)
    if planes < 0:
        raise ValueError(f"{size} bytes of {dtype.name} in blocks of 2^{block_log2} cannot be encoded")
    return planes


_zipnn_header = Function("dumont_zipnn_header", I64, U32, U64, U32, U64, POINTER)


def zipnn_header(dtype: Dtype, size: int, block_log2: int, stream_size: int, out: memoryview) -> None:
    """Writes the header of a stream whose other bytes a device has written."""
    with address(out, writable=True) as start:
        _zipnn_header(dtype, size, block_log2, stream_size, start)


class _Lz4Blocks(ctypes.Structure):
    """DumontLz4Blocks of kernels/cpu/device_tables.h."""

    _fields_ = (
        ("capacity", ctypes.c_uint64), ("compressed_count", ctypes.c_uint64), ("copy_count", ctypes.c_uint64),
        ("from_", ctypes.c_void_p), ("from_bytes", ctypes.c_void_p), ("to", ctypes.c_void_p),
        ("to_bytes", ctypes.c_void_p), ("copies", ctypes.c_void_p),
    )  # fmt: skip


_lz4_device_blocks = Function("dumont_lz4_device_blocks", I64, POINTER, U64, U64, U64, U64, POINTER)


def lz4_device_blocks(
    encoded: memoryview, size: int, device_encoded: int, device_out: int, table: memoryview
) -> tuple[int, int] | None:
    """Lists the blocks of an LZ4 frame of `size` raw bytes for a device.

    Args:
        device_encoded: device address of the encoded bytes.
        device_out: device address of the raw bytes.
        table: has room for n = len(table) // (LZ4_BLOCK + STORED_COPY) blocks: four arrays of n u64 (addresses of
            compressed blocks, their sizes, addresses of their raw bytes, their raw sizes), then n StoredCopy records.

    Returns:
        How many blocks are compressed, and how many are copies; None if the frame is not for a device.
    """
    capacity = len(table) // (LZ4_BLOCK + STORED_COPY)
    with address(encoded) as start, address(table, writable=True) as base:
        arrays = [base + 8 * capacity * number for number in range(5)]
        blocks = _Lz4Blocks(capacity, 0, 0, *arrays)
        status = _lz4_device_blocks(start, len(encoded), size, device_encoded, device_out, ctypes.byref(blocks))
    return None if status else (blocks.compressed_count, blocks.copy_count)
