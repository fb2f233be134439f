"""Device memory for tensors, of the framework that makes arrays of it: what is made of it owns it."""

from __future__ import annotations

from typing import Any, Final

from dumont_gpu.backends.device import DeviceRegion
from dumont_gpu.errors import DeviceError, UnsupportedError
from dumont_gpu.format.paths import shown
from dumont_gpu.loading.frameworks import CuPy, Torch
from dumont_gpu.loading.host_memory import check_target
from dumont_gpu.tensors.dtypes import BY_TORCH_NAME, ELEMENT_TYPES
from dumont_gpu.tensors.record import TensorRecord

_ALIGNMENT: Final = 256  # as CUDA's own allocations


class TorchMemory:
    """Flat tensors of bytes of PyTorch on one CUDA device.

    PyTorch gives memory out whose last use may still be queued on its current stream: so that stream is waited for
    before a loader's own streams write. On the way to a caller, whose current stream may be another, a tensor is noted
    as used there: PyTorch then gives its memory out again only after that use.
    """

    def __init__(self, torch: Any, number: int) -> None:
        self._torch, self._device = torch, torch.device("cuda", number)

    def allocate(self, size: int, lead: int, *, zeros: bool) -> Any:
        torch = self._torch
        try:
            block = (torch.zeros if zeros else torch.empty)(size + _ALIGNMENT, dtype=torch.uint8, device=self._device)
        except RuntimeError as error:  # OutOfMemoryError is one
            raise DeviceError(f"{self._device}: no memory for {size:,} bytes: {_line(error)}") from None
        torch.cuda.current_stream(self._device).synchronize()
        shift = -(block.data_ptr() + lead) % _ALIGNMENT
        return block[shift : shift + size]

    def place(self, memory: Any) -> DeviceRegion:
        return DeviceRegion(memory.data_ptr(), memory.numel())

    def lead(self, memory: Any, size: int) -> bytes:
        return bytes(memory[:size].cpu().numpy())

    def take(self, memory: Any, start: int) -> Any:
        memory.record_stream(self._torch.cuda.current_stream(self._device))
        return memory[start:]

    def given(self, content: bytes) -> Any:
        memory = self.allocate(len(content), 0, zeros=False)
        if content:
            memory.copy_(self._torch.frombuffer(bytearray(content), dtype=self._torch.uint8))
        return memory

    def of_target(self, target: Any, record: TensorRecord) -> Any:
        torch = self._torch
        if not isinstance(target, torch.Tensor) or target.device != self._device:
            raise UnsupportedError(f"{shown(record.name)}: the target is no tensor on {self._device}")
        dtype = str(target.dtype).removeprefix("torch.")
        check_target(record, tuple(target.shape), BY_TORCH_NAME.get(dtype, dtype))
        torch.cuda.synchronize(self._device)  # what users of the target have queued, on whatever stream
        if not target.is_contiguous() or target.is_conj() or target.is_neg():
            return None
        return target.detach().as_strided((target.numel(),), (1,)).view(torch.uint8)

    def fill_target(self, target: Any, memory: Any, record: TensorRecord) -> None:
        target.detach().copy_(Torch().array(memory, record))


class CupyMemory:
    """Flat arrays of bytes of CuPy on one CUDA device; JAX takes them, too.

    Memory that CuPy gives out may still be in use on any stream: a prefetch allocates in a thread of its own, and what
    it allocated is used on a caller's. So the whole device is waited for before a loader's own streams write.
    """

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy, self._number = cupy, number

    def allocate(self, size: int, lead: int, *, zeros: bool) -> Any:
        cupy = self._cupy
        with cupy.cuda.Device(self._number):
            try:
                block = (cupy.zeros if zeros else cupy.empty)(size + _ALIGNMENT, cupy.uint8)
            except cupy.cuda.memory.OutOfMemoryError as error:
                raise DeviceError(f"cuda:{self._number}: no memory for {size:,} bytes: {_line(error)}") from None
            cupy.cuda.runtime.deviceSynchronize()
        shift = -(block.data.ptr + lead) % _ALIGNMENT
        return block[shift : shift + size]

    def place(self, memory: Any) -> DeviceRegion:
        return DeviceRegion(memory.data.ptr, memory.size)

    def lead(self, memory: Any, size: int) -> bytes:
        return bytes(memory[:size].get())

    def take(self, memory: Any, start: int) -> Any:
        return memory[start:]

    def given(self, content: bytes) -> Any:
        with self._cupy.cuda.Device(self._number):
            return self._cupy.frombuffer(bytearray(content), dtype=self._cupy.uint8)

    def of_target(self, target: Any, record: TensorRecord) -> Any:
        cupy = self._cupy
        if not isinstance(target, cupy.ndarray) or target.device.id != self._number:
            raise UnsupportedError(f"{shown(record.name)}: the target is no array on cuda:{self._number}")
        known = ELEMENT_TYPES.get(record.dtype)
        wanted = (known.numpy or known.words) if known is not None else record.dtype
        check_target(record, target.shape, record.dtype if target.dtype == wanted else target.dtype.name)
        with cupy.cuda.Device(self._number):
            cupy.cuda.runtime.deviceSynchronize()  # what users of the target have queued, on whatever stream
        return target.reshape(-1).view(cupy.uint8) if target.flags.c_contiguous else None

    def fill_target(self, target: Any, memory: Any, record: TensorRecord) -> None:
        target[...] = CuPy().array(memory, record).view(target.dtype)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
