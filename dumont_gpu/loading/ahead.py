"""Loads the tensors of a plan before they are asked for, in bounded memory: what a prefetch's thread works on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.forks import tell_in_children
from dumont_gpu.format.paths import shown
from dumont_gpu.loading.tensor_load import Loader, Located, TensorLoad, TensorLoads
from dumont_gpu.loading.wants import ChunkPieces, Want, cut
from dumont_gpu.pipeline import wait_until

P = TypeVar("P")
M = TypeVar("M")


class _OverError(DumontError):
    """The caller wants no more tensors."""


class LoadingAhead(Generic[P, M]):
    """The tensors of a plan: not ready, ready, taken. Knows nothing of the `Prefetch` that it works for.

    Args:
        loads: makes arrays.
        loader: nobody else uses it; is closed when everything is loaded.
        plan: name -> the tensor.
        limit: bytes of tensors that are ready or on their way.
    """

    def __init__(self, loads: TensorLoads[P, M], loader: Loader[P], plan: Mapping[str, Located], limit: int) -> None:
        self._loads, self._loader, self._limit = loads, loader, limit
        self._changed = threading.Condition()
        tell_in_children(self)
        self._load_of: dict[str, TensorLoad[P, M] | None] = {}  # None: is inflated when it is taken
        self._names: dict[Want[P], list[str]] = {}  # several where tensors share their bytes
        self._load_of_want: dict[Want[P], TensorLoad[P, M]] = {}
        self._ready: deque[str] = deque()  # in the order in which they became ready
        self._not_ready = set(plan)
        self._not_taken = set(plan)
        self._not_named = set(plan)  # by `next_name`; names that were taken need not be
        self._held = 0  # bytes of tensors that are ready or on their way
        self._waiting = 0  # threads of the caller that wait for a tensor
        self._over = False
        self._error: BaseException | None = None
        self._begin(plan)

    def forked(self) -> None:
        """A child has no thread that loads: nothing more can be taken there."""
        self._changed = threading.Condition()
        self._over = True

    # --- for the caller -----------------------------------------------------------------------------------------------

    def next_name(self) -> str | None:
        """Waits for a tensor that is ready and was neither named nor taken yet; None if there are no more."""
        with self._changed:
            self._wait_for(lambda: self._find_ready() or not self._not_named)
            if not self._not_named:
                return None
            name = self._ready.popleft()
            self._not_named.discard(name)
            return name

    def take(self, name: str) -> TensorLoad[P, M] | None:
        """Waits for a tensor; returns it for `give_up`. After an error, the tensor can be asked for once more."""
        with self._changed:
            if name not in self._not_taken:
                raise UsageError(f"{shown(name)}: is not in the plan, or was taken already")
            self._not_taken.discard(name)
            try:
                self._wait_for(lambda: name not in self._not_ready)
            except BaseException:
                self._not_taken.add(name)
                raise
            self._not_named.discard(name)
            self._changed.notify_all()  # it may have been the last for `next_name`
            return self._load_of.pop(name)

    def give_up(self, name: str, load: TensorLoad[P, M]) -> None:
        """Makes room: the bytes of a tensor that was taken are the caller's."""
        with self._changed:
            names = self._names[load.want]
            names.remove(name)
            if not names:
                self._held -= load.span.whole
                load.memory = None
                self._changed.notify_all()

    def end(self) -> None:
        """Ends the loading soon."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _find_ready(self) -> bool:
        while self._ready and self._ready[0] not in self._not_named:
            self._ready.popleft()
        return bool(self._ready)

    def _wait_for(self, is_there: Callable[[], object]) -> None:
        """Waits, with the lock held; raises the error of the loading if what is waited for will never be there."""
        self._waiting += 1
        self._changed.notify_all()
        try:
            wait_until(self._changed, lambda: self._over or is_there() or self._error is not None)
        finally:
            self._waiting -= 1
        if self._over:
            raise UsageError("the prefetch was closed")
        if not is_there():
            assert self._error is not None
            raise self._error

    # --- for the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Loads everything, or until `end`; keeps an error for the caller, who waits in another thread."""
        try:
            self._loader.run(self._chunks(), self._note_loaded)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._loader.close()

    def _begin(self, plan: Mapping[str, Located]) -> None:
        """Makes the loads of the plan; tensors that need no chunk are ready."""
        loads: dict[object, TensorLoad[P, M]] = {}
        for name, tensor in plan.items():
            span = self._loads.span_of(tensor)
            if span is None:
                self._load_of[name] = None
                self._note_ready(name)
                continue
            load = loads.get(span) or loads.setdefault(span, self._loads.begun(span))
            self._load_of[name] = self._load_of_want[load.want] = load
            self._names.setdefault(load.want, []).append(name)

    def _chunks(self) -> Iterator[ChunkPieces[P]]:
        """Yields the chunks; before each, waits for room for the tensors that begin in it."""
        chunks = cut(self._load_of_want)
        for want in [want for want in self._load_of_want if not want.left]:  # empty ones, and holes
            self._provide(want)
            self._note_loaded(want)
        for chunk in chunks:
            for piece in chunk.pieces:
                if piece.want.place is None:
                    self._provide(piece.want)
            yield chunk

    def _provide(self, want: Want[P]) -> None:
        load = self._load_of_want[want]
        with self._changed:
            size = load.span.whole
            wait_until(
                self._changed,
                lambda: self._is_over() or self._waiting or self._held + size <= self._limit,
            )
            if self._is_over():
                raise _OverError("the prefetch was closed")
            self._held += size
        self._loads.provide(load)

    def _is_over(self) -> bool:
        """A program that ends without `end` would wait for this thread's pipeline for ever."""
        return self._over or not threading.main_thread().is_alive()

    def _note_loaded(self, want: Want[P]) -> None:
        want.place = None  # chunks know their wants until the end: only the load keeps the memory from here on
        with self._changed:
            for name in self._names[want]:
                self._note_ready(name)
            self._changed.notify_all()

    def _note_ready(self, name: str) -> None:
        self._not_ready.discard(name)
        self._ready.append(name)
