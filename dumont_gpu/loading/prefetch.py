"""Loads tensors ahead of a caller who takes them one by one, in bounded memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from dumont_gpu.loading.ahead import LoadingAhead
from dumont_gpu.loading.tensor_load import Loader, Located, TensorLoads

P = TypeVar("P")
M = TypeVar("M")


class Prefetch(Generic[P, M]):
    """The tensors of a plan, in the order in which they become ready: as their chunks lie in the snapshot.

    Loads in a thread of its own while the caller works. Tensors that are ready or on their way take no more than
    `limit` bytes; more only while the caller waits for one that is not ready. May be used from several threads.

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
        self._loads, self._plan, self._finish = loads, plan, finish
        self._ahead = LoadingAhead(loads, loader, plan, limit)
        weakref.finalize(self, self._ahead.end)  # whoever forgets to close it leaves no thread behind
        self._thread = threading.Thread(target=self._ahead.run, name="dumont-prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[P, M]:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Exception):
            self.close()
        else:
            self.end()  # who interrupts a program does not wait for a network

    def end(self) -> None:
        """Ends the loading soon; does not wait for the chunks on their way."""
        self._ahead.end()

    def close(self) -> None:
        """Ends the loading; what was not taken is given up."""
        self.end()
        self._thread.join()

    def names(self) -> Iterator[str]:
        """Yields each name of the plan once its tensor is ready, unless it was taken before. Raises as `take`."""
        while (name := self._ahead.next_name()) is not None:
            yield name

    def take(self, name: str) -> Any:
        """Returns a tensor, which is the caller's from then on; waits until it is ready.

        Raises:
            UsageError: the plan has no such tensor, or it was taken; or the prefetch was closed.
            DamagedError: bytes do not match their digest. Tensors that are ready can be taken all the same.
            DumontError: the snapshot cannot be read.
        """
        load = self._ahead.take(name)
        try:
            return self._finish(name, self._loads.array(self._plan[name], load))
        finally:
            if load is not None:
                self._ahead.give_up(name, load)
