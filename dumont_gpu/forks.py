"""Tells objects that they live on in a forked child: of its parent's threads, none is there but the one that forked."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """An object with locks, threads or connections."""

    def forked(self) -> None:
        """Makes new locks, and leaves threads and connections to the parent; called in the child, before all else."""


_watching: Final[WeakSet[Inherited]] = WeakSet()


def tell_in_children(thing: Inherited) -> None:
    """Makes `thing.forked` be called in every child that this process forks."""
    _watching.add(thing)


def _tell() -> None:
    for thing in list(_watching):
        thing.forked()


os.register_at_fork(after_in_child=_tell)
