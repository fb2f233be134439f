"""Describes a chunk to a CUDA device: tables of blocks, and descriptions of the work.

The host checks headers and tables on the CPU and lists the blocks; the device looks inside the blocks.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from dumont_gpu.native.library import I64, POINTER, TEXT, U32, U64, Function
from dumont_gpu.native.memory import address
from dumont_gpu.native.zipnn import Dtype

_layout = Function("dumont_layout", U64, TEXT)


@functools.cache
def layout(name: str) -> int:
    """Returns the size of a struct in bytes, or a constant, of kernels/shared, as compiled into the library.

    Args:
        name: as in the header: "DeviceBlock", "kLz4BlockSize".

    Raises:
        KeyError: the library does not export the name (see kernels/cpu/device_tables.cpp).
    """
    value: int = _layout(name.encode())
    if not value:
        raise KeyError(name)
    return value


_zipnn_device_blocks = Function("dumont_zipnn_device_blocks", I64, POINTER, U64, U64, U64, U64, POINTER, U64, POINTER)


def zipnn_device_blocks(
    encoded: memoryview, size: int, table: memoryview, encoded_at: int = 0, out_at: int = 0
) -> list[int] | None:
    """Lists the blocks of a ZipNN chunk of `size` raw bytes in `table`, a DeviceBlock each.

    Args:
        encoded_at: where the chunk's encoded bytes start in the kernel's source memory; a multiple of 16.
        out_at: where the chunk's raw bytes start in the kernel's output memory.

    Returns:
        How many blocks have 0, 1, 2, 3 and 4 coded planes; the table has them in this order. None if this chunk is not
        for a device: the chunk is damaged, or has a shape that only the CPU decodes.
    """
    counts = (ctypes.c_uint64 * 5)()
    capacity = len(table) // layout("DeviceBlock")
    with address(encoded) as start, address(table, writable=True) as blocks:
        status = _zipnn_device_blocks(start, len(encoded), size, encoded_at, out_at, blocks, capacity, counts)
    return None if status else counts[:]


_zipnn_encode_job = Function("dumont_zipnn_encode_job", I64, U32, U64, U32, U64, U64, U64, POINTER)


def zipnn_encode_job(
    dtype: Dtype, size: int, block_log2: int, source: int, out: int, plans: int, job: memoryview
) -> int:
    """Describes to a device the encoding of `size` bytes, whole elements, as one ZipNN stream.

    Args:
        source, out, plans: device addresses; `plans` has a PlanePlan for each plane of each block.
        job: receives the description, an EncodeJob.

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


@dataclass(frozen=True, slots=True)
class Lz4Listing:
    """The blocks of an LZ4 frame in a table with room for `capacity`: five arrays."""

    compressed: int  # blocks
    copies: int  # blocks that the frame holds raw
    capacity: int

    @staticmethod
    def size(capacity: int) -> int:
        """Returns the bytes of a table."""
        return capacity * (4 * 8 + layout("StoredCopy"))

    @property
    def arrays(self) -> tuple[int, int, int, int]:
        """Offsets of u64 arrays: addresses of compressed blocks, their sizes, addresses of raw bytes, raw sizes."""
        step = 8 * self.capacity
        return 0, step, 2 * step, 3 * step

    @property
    def copies_at(self) -> int:
        """Offset of the StoredCopy records."""
        return 4 * 8 * self.capacity


def lz4_device_blocks(
    encoded: memoryview, size: int, device_encoded: int, device_out: int, table: memoryview
) -> Lz4Listing | None:
    """Lists the blocks of an LZ4 frame of `size` raw bytes for a device; None if the frame is not for a device.

    Args:
        device_encoded: device address of the encoded bytes.
        device_out: device address of the raw bytes.
        table: receives the list; all of it is used.
    """
    capacity = len(table) // Lz4Listing.size(1)
    listing = Lz4Listing(0, 0, capacity)
    with address(encoded) as start, address(table, writable=True) as base:
        arrays = [base + at for at in (*listing.arrays, listing.copies_at)]
        blocks = _Lz4Blocks(capacity, 0, 0, *arrays)
        status = _lz4_device_blocks(start, len(encoded), size, device_encoded, device_out, ctypes.byref(blocks))
    return None if status else Lz4Listing(blocks.compressed_count, blocks.copy_count, capacity)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The table of an LZ4 frame of `blocks` blocks that a device makes: a FrameJob and arrays; see lz4_blocks.h."""

    blocks: int

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return layout("FrameJob") + 8 * self.blocks * layout("kFrameArrays")

    @property
    def uploaded(self) -> int:
        """Bytes that the host writes: all before the first array that a device writes."""
        return self.arrays[3]

    @property
    def arrays(self) -> list[int]:
        """Offsets: addresses of blocks, sizes, addresses for compressed blocks; offsets, sizes, statuses of those."""
        return [layout("FrameJob") + 8 * self.blocks * number for number in range(layout("kFrameArrays"))]


_lz4_frame_job = Function("dumont_lz4_frame_job", U64, U64, U64, U64, U64, U64, POINTER)


def lz4_frame_job(size: int, source: int, compressed: int, out: int, table_at: int, table: memoryview) -> None:
    """Describes to a device the making of an LZ4 frame of `size` raw bytes; fills what the host writes of a FrameTable.

    Args:
        source, compressed, out: device addresses; `compressed` has kLz4BlockRoom bytes for each block.
        table_at: device address to which the table will be copied.
        table: receives the table.
    """
    with address(table, writable=True) as start:
        _lz4_frame_job(size, source, compressed, out, table_at, start)
