"""The compiled CPU kernels behind ctypes: the one place that knows their C ABI (kernels/cpu/dumont_cpu.h).

ctypes releases the GIL for every call, and one library serves all Python versions.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from dumont_gpu.errors import DamagedError, DumontError, UnsupportedError
from dumont_gpu.shortages import shortage

_ABI_VERSION: Final = 3
_DAMAGED: Final = -1
_UNSUPPORTED: Final = -2
_NO_MEMORY: Final = -4


class Dtype(enum.IntEnum):
    """Element types of the float codec, numbered as in a ZipNN stream header."""

    FP32 = 1
    FP16 = 4
    BF16 = 6
    FP8_E4M3 = 29
    FP8_E5M2 = 30

    @property
    def size(self) -> int:
        """Bytes in one element."""
        return {Dtype.FP32: 4, Dtype.FP16: 2, Dtype.BF16: 2}.get(self, 1)


# What `probe` estimates, in the order of dumont_probe's results: element type, and where in the sample the first whole
# element starts.
PROBE_CANDIDATES: Final = (
    *((Dtype.FP32, phase) for phase in range(4)),
    *((Dtype.BF16, phase) for phase in range(2)),
    *((Dtype.FP16, phase) for phase in range(2)),
    (Dtype.FP8_E4M3, 0),
)


@functools.cache
def _library() -> ctypes.CDLL:
    import dumont_gpu

    places = [Path(folder) / "libdumont_cpu.so" for folder in dumont_gpu.__path__]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise DumontError("the compiled CPU kernels are missing: install dumont-gpu with `pip install .`")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:  # no error of whichever file happens to be read first
        short = shortage(ImportError(str(error)))
        raise DumontError(short or f"the compiled CPU kernels do not load: {error}") from None
    u8, u32, u64, i64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
    library.dumont_abi_version.restype = u32
    if library.dumont_abi_version() != _ABI_VERSION:
        raise DumontError(f"{path} belongs to another dumont-gpu: install again")
    library.dumont_cpu_path.restype = ctypes.c_char_p
    library.dumont_select_cpu_path.argtypes = [ctypes.c_char_p]
    library.dumont_zipnn_encode.argtypes = [u8, u64, u8, u64, u32, u32]
    library.dumont_zipnn_decode.argtypes = [u8, u64, u8, u64]
    library.dumont_probe.argtypes = [u8, u64, ctypes.POINTER(ctypes.c_float)]
    for call in ("select_cpu_path", "zipnn_encode", "zipnn_decode", "probe"):
        getattr(library, f"dumont_{call}").restype = i64
    library.dumont_zipnn_device_blocks.argtypes = [u8, u64, u64, u64, u64, u8, u64, u8]
    library.dumont_zipnn_device_blocks.restype = i64
    library.dumont_lz4_device_blocks.argtypes = [u8, u64, u64, u64, u64, ctypes.POINTER(_Lz4Blocks)]
    library.dumont_lz4_device_blocks.restype = i64
    library.dumont_zipnn_encode_job.argtypes = [u32, u64, u32, u64, u64, u64, u8]
    library.dumont_zipnn_encode_job.restype = i64
    library.dumont_zipnn_header.argtypes = [u32, u64, u32, u64, u8]
    library.dumont_zipnn_header.restype = i64
    i32 = ctypes.c_int32
    library.dumont_create_files.argtypes = [i32, ctypes.c_char_p, u8, u64, u8, u64, ctypes.POINTER(i32)]
    library.dumont_create_files.restype = u64
    library.dumont_finish_directories.argtypes = [i32, ctypes.c_char_p, u8, u64, ctypes.POINTER(i32)]
    library.dumont_finish_directories.restype = u64
    library.dumont_read_files.argtypes = [i32, ctypes.c_char_p, u8, u64, ctypes.c_char_p, u64, u8]
    library.dumont_read_files.restype = None
    return library


class _Lz4Blocks(ctypes.Structure):
    _fields_ = (
        ("capacity", ctypes.c_uint64), ("compressed_count", ctypes.c_uint64), ("copy_count", ctypes.c_uint64),
        ("from_", ctypes.c_void_p), ("from_bytes", ctypes.c_void_p), ("to", ctypes.c_void_p),
        ("to_bytes", ctypes.c_void_p), ("copies", ctypes.c_void_p),
    )  # fmt: skip


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


@contextmanager
def _address(view: memoryview, *, writable: bool = False) -> Iterator[int]:
    """The address of a contiguous buffer, which stays exported meanwhile (ctypes itself only takes writable ones)."""
    flags = 1 if writable else 0  # PyBUF_WRITABLE, PyBUF_SIMPLE
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), flags)
    try:
        yield buffer.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def address_of(view: memoryview) -> int:
    """Returns the address of a buffer's first byte, for looking at its alignment."""
    with _address(view) as address:
        return address


def cpu_path() -> str:
    """Returns the instruction set in use: portable, avx2, avx512 or neon."""
    name: bytes = _library().dumont_cpu_path()
    return name.decode()


def select_cpu_path(name: str) -> bool:
    """Switches to another instruction set, for tests and benchmarks; False if this machine or build lacks it."""
    return bool(_library().dumont_select_cpu_path(name.encode()) == 0)


def zipnn_encode(source: memoryview, out: memoryview, dtype: Dtype, block_log2: int) -> int:
    """Writes `source` (whole elements) as one ZipNN stream; returns its size, or 0 if it does not fit in `out`."""
    with _address(source) as start, _address(out, writable=True) as target:
        size: int = _library().dumont_zipnn_encode(start, len(source), target, len(out), dtype, block_log2)
    if size == _NO_MEMORY:
        raise MemoryError
    if size < 0:
        raise ValueError(f"{len(source)} bytes of {dtype.name} in blocks of 2^{block_log2} cannot be encoded")
    return size


def zipnn_decode(stream: memoryview, out: memoryview) -> None:
    """Decodes a ZipNN stream, or a sequence of them, into exactly `len(out)` bytes.

    Raises:
        DamagedError: a malformed stream, or one of another original length.
        UnsupportedError: a ZipNN feature outside FORMAT.md.
    """
    with _address(stream) as start, _address(out, writable=True) as target:
        status: int = _library().dumont_zipnn_decode(start, len(stream), target, len(out))
    if status == _NO_MEMORY:
        raise MemoryError
    if status == _UNSUPPORTED:
        raise UnsupportedError("a ZipNN stream with a feature this version does not have")
    if status < 0:
        raise DamagedError("malformed ZipNN stream")


def probe(sample: memoryview) -> list[float]:
    """Estimates which fraction of its size the float codec would store `sample` in, per PROBE_CANDIDATES."""
    fractions = (ctypes.c_float * len(PROBE_CANDIDATES))()
    with _address(sample) as start:
        _library().dumont_probe(start, len(sample), fractions)
    return list(fractions)


ZIPNN_BLOCK: Final = 56  # bytes of a DeviceBlock, see kernels/shared/zipnn_blocks.h
LZ4_BLOCK: Final = 32  # bytes that one compressed block takes in the four arrays of a table
STORED_COPY: Final = 24  # bytes of a StoredCopy, see kernels/shared/lz4_blocks.h


def zipnn_device_blocks(
    stored: memoryview, size: int, table: memoryview, stored_at: int = 0, out_at: int = 0
) -> list[int] | None:
    """Lists the blocks of a ZipNN chunk of `size` original bytes in `table`, ZIPNN_BLOCK bytes each.

    Args:
        stored_at: where the chunk's stored bytes start in the kernel's source memory; a multiple of 16.
        out_at: where its original bytes start in the kernel's output memory.

    Returns:
        How many blocks have 0, 1, 2, 3 and 4 coded planes; the table has them in this order. None if this chunk is not
        for a device: it is damaged, or of a shape that only the CPU decodes.
    """
    counts = (ctypes.c_uint64 * 5)()
    capacity = len(table) // ZIPNN_BLOCK
    with _address(stored) as start, _address(table, writable=True) as blocks:
        status = _library().dumont_zipnn_device_blocks(
            start, len(stored), size, stored_at, out_at, blocks, capacity, counts
        )
    return None if status else counts[:]


ENCODE_JOB: Final = 48  # bytes of an EncodeJob, see kernels/shared/zipnn_job.h
PLANE_PLAN: Final = 1192  # bytes of a PlanePlan, see kernels/shared/zipnn_job.h


def zipnn_encode_job(
    dtype: Dtype, size: int, block_log2: int, source: int, out: int, plans: int, job: memoryview
) -> int:
    """Describes to a device the encoding of `size` bytes, whole elements, as one ZipNN stream.

    Args:
        source, out, plans: addresses there; `plans` has PLANE_PLAN bytes for each plane of each block.
        job: gets the description, ENCODE_JOB bytes.

    Returns:
        How many planes of blocks there are.
    """
    with _address(job, writable=True) as start:
        entries: int = _library().dumont_zipnn_encode_job(dtype, size, block_log2, source, out, plans, start)
    if entries < 0:
        raise ValueError(f"{size} bytes of {dtype.name} in blocks of 2^{block_log2} cannot be encoded")
    return entries


def zipnn_header(dtype: Dtype, size: int, block_log2: int, stream_size: int, out: memoryview) -> None:
    """Writes the header of a stream whose other bytes a device has written."""
    with _address(out, writable=True) as start:
        _library().dumont_zipnn_header(dtype, size, block_log2, stream_size, start)


def lz4_device_blocks(
    stored: memoryview, size: int, device_stored: int, device_out: int, table: memoryview
) -> tuple[int, int] | None:
    """Lists the blocks of an LZ4 frame of `size` original bytes for a device.

    Args:
        device_stored, device_out: addresses of the stored and of the original bytes there.
        table: gets four arrays of u64, a quarter of LZ4_BLOCK / (LZ4_BLOCK + STORED_COPY) of it each (where compressed
            blocks lie, their sizes, where their bytes go, how many), then StoredCopy records.

    Returns:
        How many blocks are compressed, and how many are copies; None if the frame is not for a device.
    """
    capacity = len(table) // (LZ4_BLOCK + STORED_COPY)
    with _address(stored) as start, _address(table, writable=True) as base:
        arrays = [base + 8 * capacity * number for number in range(5)]
        blocks = _Lz4Blocks(capacity, 0, 0, *arrays)
        status = _library().dumont_lz4_device_blocks(start, len(stored), size, device_stored, device_out, blocks)
    return None if status else (blocks.compressed_count, blocks.copy_count)


class NewFile(NamedTuple):
    """A file to create from bytes `begin` to `begin + size` of a buffer."""

    name: str  # within its directory
    begin: int
    size: int
    mtime_ns: int
    mode: int


class Directory(NamedTuple):
    """A directory that is complete, and what it shall have."""

    name: str  # within its own directory
    mtime_ns: int
    mode: int


class OldFile(NamedTuple):
    """A file to read into bytes `begin` to `begin + size` of a buffer; the rest says what it must be."""

    name: str  # within its directory
    begin: int
    size: int
    mtime_ns: int
    device: int
    inode: int


_NEW_FILE: Final = struct.Struct("<QQQqQ")
_DIRECTORY: Final = struct.Struct("<QqQ")
_OLD_FILE: Final = struct.Struct("<QQQqQQ")
NOT_REGULAR: Final = -1
SHORT: Final = -2
CHANGED: Final = -3


def create_files(directory: int, files: Sequence[NewFile], content: memoryview) -> Iterator[tuple[int, int]]:
    """Creates files of one directory; yields (index, errno) of those that cannot be created, and goes on after them."""
    names, records = _records(_NEW_FILE, files)
    with _address(content) as start, _address(memoryview(records)) as table:
        yield from _each(
            len(files),
            lambda first, error: _library().dumont_create_files(
                directory, names, start, len(content), table + first * _NEW_FILE.size, len(files) - first, error
            ),
        )


def finish_directories(parent: int, directories: Sequence[Directory]) -> Iterator[tuple[int, int]]:
    """Gives directories in `parent` their times and modes; yields (index, errno) of those that cannot have them."""
    names, records = _records(_DIRECTORY, directories)
    with _address(memoryview(records)) as table:
        yield from _each(
            len(directories),
            lambda first, error: _library().dumont_finish_directories(
                parent, names, table + first * _DIRECTORY.size, len(directories) - first, error
            ),
        )


def _each(count: int, work: Callable[[int, ctypes.c_int32], int]) -> Iterator[tuple[int, int]]:
    """Calls `work`, which does items from the given one on and says how many, until it did or could not do each."""
    error = ctypes.c_int32()
    first = 0
    while first < count:
        first += work(first, error)
        if error.value:
            yield first, error.value
            first += 1


def read_files(directory: int, files: Sequence[OldFile], out: memoryview) -> Sequence[int]:
    """Reads files of one directory into `out`; returns 0, an errno, NOT_REGULAR, SHORT or CHANGED for each."""
    names, records = _records(_OLD_FILE, files)
    results = (ctypes.c_int32 * len(files))()
    with _address(out, writable=True) as start:
        _library().dumont_read_files(directory, names, start, len(out), records, len(files), results)
    return results[:]


def _records(
    layout: struct.Struct, files: Sequence[NewFile] | Sequence[OldFile] | Sequence[Directory]
) -> tuple[bytes, bytes]:
    """The names, each with a NUL, and a table of records that refer to them."""
    names, records = bytearray(), bytearray()
    for name, *numbers in files:
        records += layout.pack(len(names), *numbers)
        names += os.fsencode(name) + b"\0"
    return bytes(names), bytes(records)


def spoil(view: memoryview) -> None:
    """Overwrites every byte, without holding the GIL, so that what was there cannot pass for what is to come."""
    with _address(view, writable=True) as start:
        ctypes.memset(start, 0xA5, len(view))


def copy(to: memoryview, source: memoryview) -> None:
    """Copies `source` to the start of `to` without holding the GIL, as a slice assignment would."""
    with _address(to, writable=True) as target, _address(source) as start:
        ctypes.memmove(target, start, min(len(source), len(to)))
