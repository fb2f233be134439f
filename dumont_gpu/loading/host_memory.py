"""Memory of the host for tensors, as flat arrays of NumPy's bytes: what is made of them owns them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from dumont_gpu.errors import DumontError, UnsupportedError, UsageError
from dumont_gpu.format.paths import shown
from dumont_gpu.loading.frameworks import NumPy, Torch, numpy_dtype
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from dumont_gpu.tensors.record import TensorRecord

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

_ALIGNMENT: Final = 64  # a cache line; JAX takes memory as it is only from here on


class HostMemory:
    """Arrays of the host."""

    def allocate(self, size: int, lead: int, *, zeros: bool) -> Bytes:
        """Returns `size` bytes; the byte at `lead` is aligned to 64.

        Args:
            zeros: whether they are zero, and take no memory before they are touched.

        Raises:
            DumontError: there is not so much memory.
        """
        import numpy as np

        try:
            block = (np.zeros if zeros else np.empty)(size + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise DumontError(f"there is no memory for {size:,} bytes") from None
        shift = -(block.ctypes.data + lead) % _ALIGNMENT
        return block[shift : shift + size]

    def place(self, memory: Bytes) -> memoryview:
        """Returns the memory as a loader takes it."""
        return memory.data

    def lead(self, memory: Bytes, size: int) -> bytes:
        """Returns the first bytes."""
        return memory[:size].tobytes()

    def take(self, memory: Bytes, start: int) -> Bytes:
        """Returns the memory from the byte `start` on."""
        return memory[start:]

    def given(self, content: bytes) -> Bytes:
        """Returns memory with this content."""
        memory = self.allocate(len(content), 0, zeros=False)
        memory[:] = bytearray(content)
        return memory

    def of_target(self, target: Any, record: TensorRecord) -> Bytes | None:
        """Returns the memory of a caller's tensor, as flat bytes; None if its elements do not lie in a row.

        Raises:
            UsageError: it has another shape or element type than the record, or cannot be written to.
            UnsupportedError: it is no array of the host that is known here.
        """
        package = type(target).__module__.partition(".")[0]
        if package == "numpy":
            return _of_numpy(target, record)
        if package == "torch" or hasattr(target, "untyped_storage"):
            return _of_torch(target, record)
        raise UnsupportedError(f"{shown(record.name)}: cannot be loaded into a {shown(type(target).__name__)}")

    def fill_target(self, target: Any, memory: Bytes, record: TensorRecord) -> None:
        """Copies a tensor that is in `memory` into a caller's tensor, which `of_target` has seen."""
        if hasattr(target, "untyped_storage"):
            target.detach().copy_(Torch().array(memory, record))
        else:
            target[...] = NumPy().array(memory, record).view(target.dtype)  # raw words are no numbers to convert


def check_target(record: TensorRecord, shape: tuple[int, ...], dtype: str) -> None:
    """Raises UsageError unless a caller's tensor has the shape and the element type of a record."""
    if shape != record.shape:
        raise UsageError(f"{shown(record.name)}: has shape {record.shape}, and the target {shape}")
    if dtype != record.dtype:
        raise UsageError(f"{shown(record.name)}: has element type {record.dtype}, and the target {shown(dtype)}")


def _of_numpy(target: Any, record: TensorRecord) -> Bytes | None:
    import numpy as np

    known = ELEMENT_TYPES.get(record.dtype)
    same = target.dtype == numpy_dtype(record.dtype) or (
        known is not None and known.numpy is None and target.dtype == known.words
    )
    check_target(record, target.shape, record.dtype if same else target.dtype.str)
    if not target.flags.writeable:
        raise UsageError(f"{shown(record.name)}: the target is read-only")
    if not target.flags.c_contiguous or not target.itemsize:
        return None
    return np.asarray(target).reshape(-1).view(np.uint8)  # of subclasses, such as masked arrays, the elements alone


def _of_torch(target: Any, record: TensorRecord) -> Bytes | None:
    torch = sys.modules["torch"]
    names = {known.torch: name for name, known in ELEMENT_TYPES.items()}
    dtype = str(target.dtype).removeprefix("torch.")
    check_target(record, tuple(target.shape), names.get(dtype, dtype))
    if target.device.type != "cpu":
        raise UsageError(f"{shown(record.name)}: the target is on {target.device}: name that device")
    flat: Bytes | None = None
    if target.is_contiguous() and not target.is_conj() and not target.is_neg():
        row = target.detach().as_strided((target.numel(),), (1,))  # a single element may have any stride
        flat = row.view(torch.uint8).numpy()
    return flat
