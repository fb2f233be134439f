"""Loads tensors of every kind into device memory in every way, and compares them with their file, byte by byte."""

from __future__ import annotations

import functools
import importlib
import json
import random
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import dumont_gpu
from dumont_gpu.bench.corpora.weights import weights
from dumont_gpu.errors import DamagedError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source

METHODS: Final = ("hybrid_v3", "hybrid_v2")
CHECK_CHUNK: Final = 1 * MiB  # the least that a snapshot may have: tensors lie across chunks, chunks across tensors
LARGE_TENSOR: Final = 1536 * KiB  # bytes of a large tensor: neither whole chunks nor one
PREFETCH_LIMIT: Final = 1 * MiB  # of a prefetch: less than a tensor
ROW: Final = 1024  # bytes
NAME: Final = "kinds.safetensors"
_OF_WEIGHTS: Final = {"bf16": "BF16", "fp32": "F32", "fp16": "F16", "fp8 e4m3": "F8_E4M3"}


class WrongLoadError(Exception):
    """A tensor on the device is not what the file holds."""


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str  # as safetensors has it
    item_size: int  # bytes
    content: bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of ROW bytes, if it has whole ones."""
        rows, rest = divmod(len(self.content), ROW)
        return (rows, ROW // self.item_size) if rows and not rest else (len(self.content) // self.item_size,)


@dataclass(frozen=True, slots=True)
class LoadCheck:
    """What one way of loading gave.

    Args:
        problem: empty if every byte was right.
        on_device: raw bytes of chunks that the device decoded; None: not known of this way.
    """

    method: str
    framework: str
    way: str
    tensors: int
    problem: str
    on_device: int | None

    def row(self) -> dict[str, Any]:
        return asdict(self)


@functools.cache
def has_torch() -> bool:
    """Whether PyTorch is installed, for CUDA."""
    if "torch" not in sys.modules and find_spec("torch") is None:
        return False
    torch: Any = importlib.import_module("torch")
    return bool(torch.cuda.is_available())


def frameworks() -> list[str]:
    """Returns the frameworks with arrays on a device that are installed: CuPy, which our kernels need, comes first."""
    return ["cupy", *(["pt"] if has_torch() else [])]


def tensors_of_every_kind() -> dict[str, Tensor]:
    """In this order in the file: odd sizes shift what follows; small ones share chunks; noise is stored as it is."""
    draw = random.Random(31)
    found = {
        kind.replace(" ", "_"): Tensor(_OF_WEIGHTS[kind], dtype.size, bytes(content))
        for kind, dtype, content in weights(LARGE_TENSOR)
        if kind in _OF_WEIGHTS
    }
    found["odd"] = Tensor("U8", 1, b"odd")
    found["int64"] = Tensor("I64", 8, struct.pack("<50000q", *(draw.randrange(32_000) for _ in range(50_000))))
    found["int8"] = Tensor("I8", 1, bytes(draw.choices(range(20), k=100_001)))
    found["noise"] = Tensor("U8", 1, draw.randbytes(LARGE_TENSOR))
    small = found["bf16"].content
    for number in range(1, 100):
        found[f"small.{number}"] = Tensor("BF16", 2, small[64 * number : 64 * number + 74 * number])
    found["zeros"] = Tensor("F32", 4, bytes(LARGE_TENSOR))
    found["empty"] = Tensor("F32", 4, b"")
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + len(tensor.content)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(tensor.content for tensor in tensors.values())


def check_loads(folder: Path, number: int) -> Iterator[LoadCheck]:
    """Packs a small file into `folder`, and yields what each way of loading it to CUDA device `number` gave.

    Raises:
        DumontError, OSError: the file cannot be packed.
    """
    tensors = tensors_of_every_kind()
    source = folder / "kinds"
    source.mkdir()
    write_tensors(source / NAME, tensors)
    for method in METHODS:
        snapshot = folder / f"kinds-{method}.dumont"
        pack([str(source)], str(snapshot), PackOptions(method=method, chunk_size=CHECK_CHUNK))
        for framework in frameworks():
            for way, check in _WAYS.items():
                yield _outcome(method, framework, way, check, _Case(snapshot, tensors, framework, number))


@dataclass(frozen=True, slots=True)
class _Case:
    snapshot: Path
    tensors: Mapping[str, Tensor]
    framework: str
    number: int

    def open(self, **options: Any) -> Any:
        return dumont_gpu.open(str(self.snapshot), NAME, framework=self.framework, device=self.number, **options)


def _outcome(method: str, framework: str, way: str, check: Callable[[_Case], int | None], case: _Case) -> LoadCheck:
    problem, on_device = "", None
    try:
        on_device = check(case)
    except Exception as error:  # of any kind: the report names it, and the next way is tried
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return LoadCheck(method, framework, way, len(case.tensors), problem, on_device)


# --- the ways ---------------------------------------------------------------------------------------------------------


def _whole(case: _Case, **options: Any) -> int:
    with case.open(**options) as files:
        _compare(case, files.get_tensors())
        tally = files.loader.tally
    if tally.repeated:
        raise WrongLoadError(f"the device called {tally.repeated} good chunks damaged")
    if not tally.on_device:
        raise WrongLoadError("the device decoded nothing")
    return int(tally.on_device)


def _verified(case: _Case) -> int:
    return _whole(case, verify=True)


def _sliced(case: _Case) -> None:
    with case.open() as files:
        for name, tensor in case.tensors.items():
            if len(tensor.shape) == 2:
                rows = tensor.shape[0]
                first, end = rows // 3, rows - 1
                part = files.get_slice(name)[first:end]
                _same(name, part, tensor.content[first * ROW : end * ROW])
                column = files.get_slice(name)[first, 3:5]
                begin = first * ROW + 3 * tensor.item_size
                _same(name, column, tensor.content[begin : begin + 2 * tensor.item_size])


def _prefetched(case: _Case) -> None:
    with case.open() as files, files.prefetch(limit=PREFETCH_LIMIT) as ready:
        found = set()
        for name in ready.names():
            _same(name, ready.take(name), case.tensors[name].content)
            found.add(name)
    if found != set(case.tensors):
        raise WrongLoadError(f"{len(case.tensors) - len(found)} tensors never came")


def _into(case: _Case) -> None:
    with case.open() as files:
        targets = files.get_tensors()
        for target in targets.values():
            _clear(target)
        files.load_into(targets)
        _compare(case, targets)


def _damaged(case: _Case) -> None:
    """A flipped bit in a chunk that the device decodes: an error, and tensors of other chunks are right."""
    copy = case.snapshot.with_name("damaged.dumont")
    data = bytearray(case.snapshot.read_bytes())
    data[_middle_of_the_largest(case.snapshot)] ^= 4
    copy.write_bytes(data)
    damaged = 0
    with _Case(copy, case.tensors, case.framework, case.number).open() as files:
        for name in (name for name, tensor in case.tensors.items() if len(tensor.content) >= ROW):
            try:
                _same(name, files.get_tensor(name), case.tensors[name].content)
            except DamagedError:
                damaged += 1
    if not damaged:
        raise WrongLoadError("a flipped bit is no error")


def _middle_of_the_largest(snapshot: Path) -> int:
    """Returns the offset of a byte amid a chunk of bf16 weights: of those that shrink, the one that shrinks least."""
    source = open_source(str(snapshot))
    try:
        chunks = [chunk for chunk in read_snapshot(source).chunks if chunk.size_compressed < chunk.size_original]
        largest = max(chunks, key=lambda chunk: chunk.size_compressed)
        return int(largest.offset + largest.size_compressed // 2)
    finally:
        source.close()


_WAYS: Final[dict[str, Callable[[_Case], int | None]]] = {
    "whole": _whole,
    "whole, verified": _verified,
    "slices": _sliced,
    "prefetch": _prefetched,
    "load_into": _into,
    "a flipped bit": _damaged,
}


def _compare(case: _Case, arrays: Mapping[str, Any]) -> None:
    if set(arrays) != set(case.tensors):
        raise WrongLoadError("other tensors came")
    for name, tensor in case.tensors.items():
        if tuple(arrays[name].shape) != tensor.shape:
            raise WrongLoadError(f"{name}: its shape is {tuple(arrays[name].shape)}")
        _same(name, arrays[name], tensor.content)


def _same(name: str, array: Any, content: bytes) -> None:
    found = content_of(array)
    if found != content:
        pairs = enumerate(zip(found, content, strict=False))
        at = next((n for n, (one, other) in pairs if one != other), len(found))
        raise WrongLoadError(f"{name}: differs from byte {at} of {len(content)} on, {len(found)} came")


def _clear(array: Any) -> None:
    if hasattr(array, "zero_"):  # PyTorch's: of every element type
        array.zero_()
    else:
        array.fill(0)


def content_of(array: Any) -> bytes:
    """Returns the bytes of an array that is on a device, row by row."""
    if hasattr(array, "get"):  # CuPy's
        return bytes(array.get().tobytes())
    torch = sys.modules["torch"]
    return bytes(array.reshape(-1).view(torch.uint8).cpu().numpy().tobytes())
