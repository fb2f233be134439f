"""The tensors of a snapshot's files, by name: the interface of `safetensors.safe_open`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from dumont_gpu.errors import UsageError
from dumont_gpu.format.paths import printable, shown
from dumont_gpu.loading.chunk_loader import ChunkLoader
from dumont_gpu.loading.file_object import SnapshotFile
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.prefetch import Prefetch
from dumont_gpu.loading.slices import narrowed
from dumont_gpu.loading.tensor_load import Loader, Located, TensorLoads
from dumont_gpu.sizes import MiB, one_line
from dumont_gpu.tensors.record import TensorTable
from dumont_gpu.tensors.table import read_table

_NAMED: Final = 5  # names in a message
AHEAD: Final = 512 * MiB  # of tensors that a prefetch holds


class TensorMeta(NamedTuple):
    """What a file says of a tensor."""

    dtype: str  # as safetensors names element types: "F32", "BF16", …; or NumPy's description of another type
    shape: tuple[int, ...]


class Unmatched(NamedTuple):
    """Names that only one side has, as of `torch.nn.Module.load_state_dict`."""

    missing: list[str]  # targets without a tensor in the files
    unexpected: list[str]  # tensors without a target


class TensorFiles:
    """The tensors of one file of a snapshot, or of several, such as the shards of a model.

    Nothing but the files' own tables is read before a tensor is asked for; then only the chunks that hold it. Chunks
    are checked against their digests before they are decoded. May be used from several threads, which take turns.

    Args:
        opened: the snapshot; closed by `close`.
        paths: of files in it, or patterns.
        loads: makes a loader's tensors into arrays.
        new_loader: returns a loader for a prefetch.
        reader: loads tables.
    """

    def __init__(
        self,
        opened: OpenedSnapshot,
        paths: str | Sequence[str],
        loads: TensorLoads[Any, Any],
        new_loader: Callable[[], Loader[Any]],
        reader: ChunkLoader,
    ) -> None:
        self._opened, self._loads, self._new_loader, self._reader = opened, loads, new_loader, reader
        self._prefetches: weakref.WeakSet[Prefetch[Any, Any]] = weakref.WeakSet()
        self._tables: dict[str, TensorTable] = {}
        self._tensors: dict[str, Located] = {}
        for file in opened.files(paths):
            content = SnapshotFile(file, opened, reader).buffered()
            table = self._tables[file.path] = read_table(content, file.size, file.path)
            for record in table.records:
                other = self._tensors.get(record.name)
                if other is not None:
                    raise UsageError(
                        f"{shown(record.name)}: is in {printable(other.file.path)} and in {printable(file.path)}: open "
                        "one of them"
                    )
                self._tensors[record.name] = Located(file, content, record)

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the snapshot, and what prefetches it; arrays that were loaded stay."""
        prefetches = list(self._prefetches)
        for prefetch in prefetches:
            prefetch.end()
        self._opened.close()
        for prefetch in prefetches:
            prefetch.close()
        self._reader.close()  # once nobody reads any more

    @property
    def loader(self) -> Any:
        """What loads the tensors: a benchmark asks it where chunks were decoded."""
        return self._loads.loader

    def keys(self) -> list[str]:
        """Returns the names of the tensors, in the order of the files' tables. Nested names are joined by dots."""
        return list(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def metadata(self) -> dict[str, str]:
        """Returns what the files say besides, such as `__metadata__` of safetensors."""
        return {key: value for table in self._tables.values() for key, value in table.metadata.items()}

    def get_tensor_meta(self, name: str) -> TensorMeta:
        """Returns element type and shape of a tensor. Raises UsageError if there is none of that name."""
        record = self._located(name).record
        return TensorMeta(record.dtype, record.shape)

    def get_tensor(self, name: str) -> Any:
        """Returns a tensor as an array of its own.

        Raises:
            UsageError: there is none of that name.
            DamagedError: bytes do not match their digest.
            UnsupportedError: the framework has no such element type.
            DumontError: the snapshot cannot be read, or there is no memory.
        """
        return self.get_tensors([name])[name]

    def get_tensors(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns tensors by name; all of them, if no names are given. Tensors that share their bytes share memory.

        Raises: as `get_tensor`.
        """
        self._opened.check_open()
        names = self.keys() if names is None else list(names)
        arrays = self._loads.arrays([self._located(name) for name in names])
        return dict(zip(names, arrays, strict=True))

    def get_slice(self, name: str) -> TensorSlice:
        """Returns a tensor of which an index loads a part: `get_slice(name)[0:4096]`. Raises as `get_tensor_meta`."""
        return TensorSlice(self._opened, self._loads, self._located(name))

    def prefetch(
        self, plan: Mapping[str, Any] | Sequence[str] | None = None, *, limit: int = AHEAD
    ) -> Prefetch[Any, Any]:
        """Begins to load tensors in the order in which they lie in the snapshot, ahead of the caller.

        >>> with files.prefetch({"embed.weight": None, "head.weight": slice(0, 4096)}) as ready:
        ...     for name in ready.names():
        ...         part = ready.take(name)

        Args:
            plan: name -> the index of the part that is wanted, None for all of the tensor; or names; None: all tensors.
            limit: bytes that tensors on their way, and those that nobody has taken, may take.

        Raises:
            UsageError: there is no tensor of such a name.
        """
        self._opened.check_open()
        wanted = plan if isinstance(plan, Mapping) else dict.fromkeys(self.keys() if plan is None else plan)
        tensors, rests = {}, {}
        for name, index in wanted.items():
            tensor = self._located(name)
            record, rests[name] = (tensor.record, ()) if index is None else narrowed(tensor.record, index)
            tensors[name] = tensor._replace(record=record)
        prefetch = Prefetch(
            self._loads, self._new_loader(), tensors, lambda name, array: applied(name, array, rests[name]), limit
        )
        self._prefetches.add(prefetch)
        return prefetch

    def load_into(self, targets: Mapping[str, Any], *, strict: bool = True) -> Unmatched:
        """Loads tensors into a caller's tensors of the same names, shapes and element types: no second copy is made.

        After an error while tensors are loaded, what the targets hold is worthless.

        Args:
            targets: name -> a NumPy array or a PyTorch tensor.
            strict: whether every target must have a tensor in the files, and every tensor of the files a target. Of
                targets that are one memory, such as tied weights, one tensor is enough.

        Returns the names that only one side has.

        Raises:
            UsageError: strict, and a name is on one side only; or a target has another shape or element type. Nothing
                is loaded then.
            DamagedError, DumontError: as `get_tensor`.
        """
        self._opened.check_open()
        found = {name: self._tensors[name] for name in targets if name in self._tensors}
        filled = {memory_of(targets[name]) for name in found}
        missing = [name for name in targets if name not in self._tensors and memory_of(targets[name]) not in filled]
        unexpected = [name for name in self._tensors if name not in targets]
        if strict and (missing or unexpected):
            raise UsageError(
                "; ".join(filter(None, (_listed("no tensor for", missing), _listed("no target for", unexpected))))
            )
        self._loads.fill(found, targets)
        return Unmatched(missing, unexpected)

    def structures(self) -> Iterator[object]:
        """Yields, for each file, the containers that a checkpoint has its tensors in; None for other files."""
        return (table.structure for table in self._tables.values())

    def _located(self, name: str) -> Located:
        if name not in self._tensors:
            raise UsageError(f"{shown(name)}: no tensor of {', '.join(map(printable, list(self._tables)[:3]))}")
        return self._tensors[name]


class TensorSlice:
    """A tensor of which an index loads a part."""

    def __init__(self, opened: OpenedSnapshot, loads: TensorLoads[Any, Any], tensor: Located) -> None:
        self._opened, self._loads, self._tensor = opened, loads, tensor

    def get_shape(self) -> list[int]:
        return list(self._tensor.record.shape)

    def get_dtype(self) -> str:
        return self._tensor.record.dtype

    def __getitem__(self, index: Any) -> Any:
        """Returns a part as an array of its own; only the chunks that hold its rows are fetched.

        Raises: as `TensorFiles.get_tensor`; UsageError for an index that the tensor does not have.
        """
        self._opened.check_open()
        record, rest = narrowed(self._tensor.record, index)
        (array,) = self._loads.arrays([self._tensor._replace(record=record)])
        return applied(record.name, array, rest)


def memory_of(target: Any) -> object:
    """Returns the same for targets that are one memory, and nothing that others have."""
    if hasattr(target, "data_ptr"):  # of PyTorch
        place = str(target.device), target.data_ptr(), tuple(target.shape), tuple(target.stride())
        return place if target.numel() else id(target)
    interface = getattr(target, "__array_interface__", None) or getattr(target, "__cuda_array_interface__", None)
    if interface is None or 0 in interface["shape"]:
        return id(target)
    return interface["data"][0], interface["shape"], interface.get("strides")


def applied(name: str, array: Any, index: tuple[Any, ...]) -> Any:
    """Returns the part of an array, in memory of its own.

    Raises:
        UsageError: the array does not take the index.
    """
    if all(isinstance(each, slice) and each == slice(None, None, 1) for each in index):
        return array
    try:
        part = array[index]
    except (IndexError, TypeError, ValueError) as error:  # of PyTorch, where a step is negative
        raise UsageError(f"{shown(name)}: {one_line(str(error))}") from None
    copy: Callable[[], Any] | None = getattr(part, "clone", None) or getattr(part, "copy", None)
    return part if copy is None or _is_immutable(part) else copy()


def _listed(words: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{words} {', '.join(map(shown, names[:_NAMED]))}{more}" if names else ""


def _is_immutable(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] in ("jax", "jaxlib")
