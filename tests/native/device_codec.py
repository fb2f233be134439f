"""The device's ZipNN encoder on the PTX machine, for the scripts beside this file."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path


class DeviceCodec:
    def __init__(self, machine: Path, cpu: Path) -> None:
        self._machine = ctypes.CDLL(str(machine))
        self._machine.machine_launch.argtypes = (ctypes.c_char_p, *3 * (ctypes.c_uint,), ctypes.c_void_p)
        self._machine.machine_error.restype = ctypes.c_char_p
        self._cpu = ctypes.CDLL(str(cpu))
        u32, u64 = ctypes.c_uint32, ctypes.c_uint64
        self._cpu.dumont_zipnn_encode_job.restype = ctypes.c_int64
        self._cpu.dumont_zipnn_encode_job.argtypes = (u32, u64, u32, u64, u64, u64, ctypes.c_void_p)
        self._cpu.dumont_zipnn_header.restype = ctypes.c_int64
        self._cpu.dumont_zipnn_header.argtypes = (u32, u64, u32, u64, ctypes.c_void_p)
        self._cpu.dumont_layout.restype = u64
        self._cpu.dumont_layout.argtypes = (ctypes.c_char_p,)

    def set_order(self, seed: int) -> None:
        self._machine.machine_set_order(ctypes.c_uint(seed))

    def encode(self, dtype: int, planes: int, data: bytes, block_log2: int) -> bytes:
        blocks = -(-len(data) >> block_log2)
        with (
            _Memory(len(data)) as source,
            _Memory(self._layout("kHeaderSize") + 9 * planes * blocks + len(data)) as out,
            _Memory(planes * blocks * self._layout("PlanePlan")) as plans,
            _Memory(self._layout("EncodeJob")) as job,
            _Memory(8) as result,
        ):
            source.bytes[: len(data)] = data
            entries = self._cpu.dumont_zipnn_encode_job(
                dtype, len(data), block_log2, source.address, out.address, plans.address, job.address
            )
            if entries != planes * blocks:
                raise ValueError(f"encode_job returned {entries}")
            self._launch("zipnn_plan", blocks, planes * self._layout("kPlanMemory"), job.address)
            self._launch("zipnn_layout", 1, 0, job.address, result.address)
            self._launch("zipnn_write", entries, 0, job.address)
            size = int.from_bytes(result.bytes[:8], "little")
            self._cpu.dumont_zipnn_header(dtype, len(data), block_log2, size, out.address)
            return out.bytes[:size]

    def _layout(self, name: str) -> int:
        return int(self._cpu.dumont_layout(name.encode()))

    def _launch(self, kernel: str, grid: int, shared: int, *arguments: int) -> None:
        threads = self._layout("kEncodeThreads")
        values = [ctypes.c_uint64(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        if self._machine.machine_launch(kernel.encode(), grid, threads, shared, addresses):
            raise ValueError(f"{kernel}: {self._machine.machine_error().decode()}")


class _Memory:
    """Page-aligned, and zero."""

    def __init__(self, size: int) -> None:
        self.bytes = mmap.mmap(-1, size)

    def __enter__(self) -> _Memory:
        self._view = ctypes.c_char.from_buffer(self.bytes)
        self.address = ctypes.addressof(self._view)
        return self

    def __exit__(self, *_: object) -> None:
        del self._view
        self.bytes.close()
