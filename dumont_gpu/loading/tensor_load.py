"""A tensor on its way into memory, and the loading of several: each span of a file once, whatever shares it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, NamedTuple, Protocol, TypeVar

from dumont_gpu.forks import tell_in_children
from dumont_gpu.format.entries import FileEntry
from dumont_gpu.loading.frameworks import Framework
from dumont_gpu.loading.spans import Span, certain_span, holds, likely_span
from dumont_gpu.loading.wants import ChunkPieces, Want, cut
from dumont_gpu.tensors.dtypes import is_numpy, item_size
from dumont_gpu.tensors.record import TensorRecord
from dumont_gpu.tensors.zip_members import inflate

P = TypeVar("P")  # what a loader fills
M = TypeVar("M")  # what an array is made of
P_co = TypeVar("P_co", covariant=True)


class Memory(Protocol[P_co, M]):
    """Where tensors are loaded to: the host or a device."""

    def allocate(self, size: int, lead: int, *, zeros: bool) -> M:
        """Returns `size` bytes of which the one at `lead` is aligned; zeros, if asked for."""

    def place(self, memory: M) -> P_co:
        """Returns the memory as a loader takes it."""

    def lead(self, memory: M, size: int) -> bytes:
        """Returns the first bytes."""

    def of_target(self, target: Any, record: TensorRecord) -> M | None:
        """Returns the memory of a caller's tensor; None if its elements do not lie in a row."""

    def fill_target(self, target: Any, memory: M, record: TensorRecord) -> None:
        """Copies a tensor that is in `memory` into a caller's tensor, which `of_target` has seen."""

    def take(self, memory: M, start: int) -> M:
        """Returns the memory from the byte `start` on."""

    def given(self, content: bytes) -> M:
        """Returns memory with this content."""


class Loader(Protocol[P]):
    """Fills the places of wants."""

    def load(self, wants: Sequence[Want[P]]) -> None:
        """Fills the places of the wants."""

    def run(self, chunks: Iterable[ChunkPieces[P]], done: Callable[[Want[P]], None]) -> None:
        """Loads chunks; tells `done` of each want that is complete. See `ChunkLoader`."""

    def close(self) -> None:
        """Gives its memory back."""


class Located(NamedTuple):
    """A tensor and its file."""

    file: FileEntry
    content: BinaryIO  # of the file
    record: TensorRecord


@dataclass(slots=True, eq=False)
class TensorLoad(Generic[P, M]):
    """The bytes of one tensor, or of several that share them.

    Args:
        span: of the file.
        want: of these bytes.
        memory: that the want's place is; None: not allocated yet.
    """

    span: Span
    want: Want[P]
    memory: M | None = None


class TensorLoads(Generic[P, M]):
    """Loads tensors into memory of one kind, as arrays of one framework."""

    def __init__(self, loader: Loader[P], memory: Memory[P, M], framework: Framework) -> None:
        self._loader, self._memory, self._framework = loader, memory, framework
        self.forked()
        tell_in_children(self)

    def forked(self) -> None:
        self._reading = threading.Lock()  # held while the content of a file is read, which has one position

    @property
    def loader(self) -> Loader[P]:
        """What loads the tensors: a benchmark asks it where chunks were decoded."""
        return self._loader

    def arrays(self, tensors: Sequence[Located]) -> Iterator[Any]:
        """Yields the tensors as arrays, in their order, once all are loaded. Raises as the loader and `span_of`."""
        for tensor, memory in zip(tensors, self._memories(tensors), strict=True):
            yield self._framework.array(memory, tensor.record)

    def _memories(self, tensors: Sequence[Located]) -> Iterator[M]:
        """Yields the memory that holds each tensor, once all are loaded."""
        loads: dict[Span, TensorLoad[P, M]] = {}
        spans = []
        for tensor in tensors:
            span = self.span_of(tensor)
            spans.append(span)
            if span is not None and span not in loads:
                loads[span] = self.begun(span)
        for load in loads.values():
            self.provide(load)
        self._loader.run(cut(load.want for load in loads.values()), lambda want: None)
        for tensor, span in zip(tensors, spans, strict=True):
            yield self._loaded(tensor, loads[span] if span is not None else None)

    def span_of(self, tensor: Located) -> Span | None:
        """Returns the bytes that a tensor takes; None if its zip's member must be inflated.

        Raises:
            UnsupportedError: the tensor's element type is not known.
            MalformedError: the zip is not sound.
        """
        record = tensor.record
        _check_known(record)
        if _is_deflated(record):
            return None
        with self._reading:
            return likely_span(tensor.file, record, tensor.content)

    def fill(self, tensors: Mapping[str, Located], targets: Mapping[str, Any]) -> None:
        """Loads tensors into a caller's tensors: where both are in rows, without a copy. Raises as `arrays`.

        Raises:
            UsageError: a target has another shape or element type; nothing is loaded then.
        """
        wants, copied = [], {}
        for name, tensor in tensors.items():
            memory = self._memory.of_target(targets[name], tensor.record)
            span = self._certain_span(tensor) if memory is not None and tensor.record.strides is None else None
            if span is None or memory is None:
                copied[name] = tensor
            elif span.size:
                wants.append(Want(span.file, span.start, span.size, self._memory.place(memory)))
        self._loader.load(wants)
        for (name, tensor), memory in zip(copied.items(), self._memories(list(copied.values())), strict=True):
            self._memory.fill_target(targets[name], memory, tensor.record)

    def _certain_span(self, tensor: Located) -> Span | None:
        if _is_deflated(tensor.record):
            return None
        _check_known(tensor.record)
        with self._reading:
            return certain_span(tensor.file, tensor.record, tensor.content)

    def begun(self, span: Span) -> TensorLoad[P, M]:
        return TensorLoad(span, Want(span.file, span.start, span.whole))

    def provide(self, load: TensorLoad[P, M]) -> None:
        """Allocates the memory of a load."""
        has_holes = any(True for _ in load.want.holes())
        load.memory = self._memory.allocate(load.span.whole, load.span.lead, zeros=has_holes)
        load.want.place = self._memory.place(load.memory)

    def array(self, tensor: Located, load: TensorLoad[P, M] | None) -> Any:
        """Returns a loaded tensor as an array; loads it again from where it really is, if that is another place.

        Args:
            load: None for a tensor of a member that must be inflated.
        """
        return self._framework.array(self._loaded(tensor, load), tensor.record)

    def _loaded(self, tensor: Located, load: TensorLoad[P, M] | None) -> M:
        return self._inflated(tensor) if load is None else self._certain(tensor, load)

    def _certain(self, tensor: Located, load: TensorLoad[P, M]) -> M:
        assert load.memory is not None
        if holds(load.span, tensor.record, self._memory.lead(load.memory, load.span.lead)):
            return self._memory.take(load.memory, load.span.lead)
        with self._reading:
            again = self.begun(certain_span(tensor.file, tensor.record, tensor.content))
        self.provide(again)
        self._loader.run(cut([again.want]), lambda want: None)
        assert again.memory is not None
        return again.memory

    def _inflated(self, tensor: Located) -> M:
        record, member = tensor.record, tensor.record.member
        assert member is not None
        with self._reading:
            content = inflate(tensor.content, member, record.start + record.span)
        return self._memory.given(content[record.start :])


def _is_deflated(record: TensorRecord) -> bool:
    return record.member is not None and record.member.deflated


def _check_known(record: TensorRecord) -> None:
    if not is_numpy(record.dtype):
        item_size(record.dtype)
