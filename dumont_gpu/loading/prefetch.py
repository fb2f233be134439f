"""Loads tensors ahead of a caller who takes them one by one, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.paths import shown
from dumont_gpu.loading.tensor_load import Loader, Located, TensorLoad, TensorLoads
from dumont_gpu.loading.wants import ChunkPieces, Want, cut

P = TypeVar("P")
M = TypeVar("M")


class _OverError(DumontError):
    """The caller wants no more tensors."""


class Prefetch(Generic[P, M]):
    """The tensors of a plan, in the order in which they become ready: as their chunks lie in the snapshot.

    Loads in a thread of its own while the caller works. Tensors that are ready or on their way take no more than
    `limit` bytes; more only while the caller waits for one that is not ready.

    Args:
        loads: makes arrays.
        loader: nobody else uses it; closed by `close`.
        plan: name -> the tensor.
        finish: name, array -> what the caller gets.
        limit: bytes.
    """

    def __init__(
        self,
        loads: TensorLoads[P, M],
        loader: Loader[P],
        plan: Mapping[str, Located],
        finish: Callable[[str, Any], Any],
        limit: int,
    ) -> None:
        self._loads, self._loader, self._plan, self._finish, self._limit = loads, loader, plan, finish, limit
        self._changed = threading.Condition()
        self._of_name: dict[str, TensorLoad[P, M] | None] = {}  # None: is inflated when it is taken
        self._ready: deque[str] = deque()  # names that `names` has not yielded
        self._not_ready = set(plan)
        self._not_taken = set(plan)
        self._held = 0  # bytes of tensors that are ready or on their way
        self._waiting = 0  # threads of the caller that wait for a tensor
        self._over = False
        self._error: BaseException | None = None
        self._of_want = self._begin()
        self._thread = threading.Thread(target=self._run, name="dumont-prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[P, M]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the loading; what was not taken is given up."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()
        self._loader.close()
        self._of_name.clear()
        self._of_want.clear()

    def names(self) -> Iterator[str]:
        """Yields each name of the plan once its tensor is ready. Raises as `take`."""
        for _ in range(len(self._plan)):
            with self._changed:
                self._wait_for(lambda: bool(self._ready))
                name = self._ready.popleft()
            yield name

    def take(self, name: str) -> Any:
        """Returns a tensor, which is the caller's from then on; waits until it is ready.

        Raises:
            UsageError: the plan has no such tensor, or it was taken.
            DamagedError: bytes do not match their digest. Tensors that are ready can be taken all the same.
            DumontError: the snapshot cannot be read, or the prefetch was closed.
        """
        with self._changed:
            if name not in self._not_taken:
                raise UsageError(f"{shown(name)}: is not in the plan, or was taken already")
            self._wait_for(lambda: name not in self._not_ready)
            self._not_taken.discard(name)
            load = self._of_name.pop(name)
        array = self._finish(name, self._loads.array(self._plan[name], load))
        with self._changed:
            if load is not None and all(other is not load for other in self._of_name.values()):
                self._held -= load.span.whole
                self._changed.notify_all()
        return array

    def _wait_for(self, is_there: Callable[[], bool]) -> None:
        """Waits, with the lock held; raises the error of the loading if what is waited for will never be there."""
        self._waiting += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: is_there() or self._error is not None or self._over)
        finally:
            self._waiting -= 1
        if not is_there():
            raise self._error or UsageError("the prefetch was closed")

    def _begin(self) -> dict[Want[P], TensorLoad[P, M]]:
        """Returns the loads of the plan by their wants; tensors that need no chunk are ready."""
        loads: dict[object, TensorLoad[P, M]] = {}
        for name, tensor in self._plan.items():
            span = self._loads.span_of(tensor)
            if span is not None and span not in loads:
                loads[span] = self._loads.begun(span)
            self._of_name[name] = None if span is None else loads[span]
            if span is None:
                self._note_ready(name)
        return {load.want: load for load in loads.values()}

    def _run(self) -> None:
        try:
            self._loader.run(self._chunks(), self._note_loaded)
        except BaseException as error:  # for the caller, who waits in another thread
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _chunks(self) -> Iterator[ChunkPieces[P]]:
        """Yields the chunks; before each, waits for room for the tensors that begin in it."""
        chunks = cut(self._of_want)
        for want in [want for want in self._of_want if not want.left]:  # empty ones, and holes
            self._provide(want)
            self._note_loaded(want)
        for chunk in chunks:
            for piece in chunk.pieces:
                if piece.want.place is None:
                    self._provide(piece.want)
            yield chunk

    def _provide(self, want: Want[P]) -> None:
        load = self._of_want[want]
        with self._changed:
            size = load.span.whole
            self._changed.wait_for(lambda: self._over or self._waiting or self._held + size <= self._limit)
            if self._over:
                raise _OverError("the prefetch was closed")
            self._held += size
        self._loads.provide(load)

    def _note_loaded(self, want: Want[P]) -> None:
        with self._changed:
            load = self._of_want[want]
            for name in [name for name, other in self._of_name.items() if other is load]:
                self._note_ready(name)
            self._changed.notify_all()

    def _note_ready(self, name: str) -> None:
        self._not_ready.discard(name)
        self._ready.append(name)
