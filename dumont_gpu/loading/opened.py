"""A snapshot that stays open: its files by path or pattern."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NoReturn

from dumont_gpu.columns.table import EntryTable, as_table
from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.forks import tell_in_children
from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.format.paths import printable
from dumont_gpu.jobs.options import ReadOptions
from dumont_gpu.pipeline import wait_until
from dumont_gpu.snapshot.inside import entry_at_path, normal_path, opened_snapshot
from dumont_gpu.snapshot.reader import Snapshot
from dumont_gpu.tree.globs import Patterns

_WILDCARDS: Final = re.compile(r"[*?\[]")
_MOST_LINKS: Final = 40  # as many as Linux follows on one path


class OpenedSnapshot:
    """A snapshot, or the part of one that `SNAP:path` names, open until `close`.

    Raises:
        SnapshotNotFoundError: nothing is at the location, or the snapshot holds no such path.
        DamagedError, UnsupportedError, UsageError, DumontError: the snapshot cannot be read.
    """

    def __init__(self, location: str, options: ReadOptions) -> None:
        self.options = options
        with ExitStack() as held:
            self.snapshot: Snapshot = held.enter_context(opened_snapshot(location, options.network, options.expect))
            self.table: EntryTable = as_table(self.snapshot.manifest.entries)
            self._held = held.pop_all()
        self._close_held = weakref.finalize(self, self._held.close)  # also for who forgets to close it
        self._close_held.atexit = False
        self._open = True
        self.forked()
        tell_in_children(self)

    @property
    def location(self) -> str:
        """The snapshot, as messages name it."""
        return self.snapshot.source.location

    def check_open(self) -> None:
        """Raises DumontError if `close` was called."""
        if not self._open:
            raise DumontError(f"{self.location}: is closed")

    def at_close(self, call: Callable[[], None]) -> None:
        """Has something closed before the snapshot."""
        self._held.callback(call)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keeps the snapshot open while a block reads it. Raises DumontError if it is closed."""
        with self._changed:
            self.check_open()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def forked(self) -> None:
        """Begins with no reader: those of a parent are not in the child."""
        self._changed = threading.Condition()
        self._readers = 0

    def close(self) -> None:
        """Closes the snapshot, once nobody reads any more: reads that wait for a network fail soon."""
        with self._changed:
            if not self._open:
                return
            self._open = False
            if self._readers:
                self.snapshot.source.cancel()
                wait_until(self._changed, lambda: not self._readers)
        self._close_held()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self.location}: an open snapshot cannot be pickled: open it in each process that reads")

    def __enter__(self) -> OpenedSnapshot:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def entry(self, path: str) -> FileEntry:
        """Returns the entry at a path, as it stands there. Raises SnapshotNotFoundError if there is none."""
        self.check_open()
        return entry_at_path(self.snapshot, self.table, normal_path(path))

    def file(self, path: str) -> FileEntry:
        """Returns the file at a path, through links that stay within the snapshot.

        Raises:
            SnapshotNotFoundError: there is none, or a link leads to nothing.
            UsageError: a directory is there, or a link that leads out of the snapshot or in a circle.
        """
        self.check_open()
        if not path and self.snapshot.inside and self.snapshot.manifest.root is None:
            path = self.table.path(0)  # the part that the location names is a file
        entry = self.followed(path)
        if entry is None or entry.type is not EntryType.FILE:
            raise UsageError(f"{printable(path) or 'the root'}: is a directory of the snapshot: name a file")
        return entry

    def files(self, paths: str | Sequence[str]) -> list[FileEntry]:
        """Returns the files that paths name; a path that is no entry's may be a pattern, as `models/*.safetensors`.

        Raises:
            SnapshotNotFoundError: a path or a pattern names no file.
            UsageError: as `file` does.
        """
        self.check_open()
        found: dict[str, FileEntry] = {}
        for path in (paths,) if isinstance(paths, str) else paths:
            if _WILDCARDS.search(path) and self.table.find(normal_path(path)) is None:
                named = self._matching(path)
            else:
                named = [self.file(path)]
            found.update((entry.path, entry) for entry in named)
        if not found:
            raise UsageError("name a file of the snapshot")
        return list(found.values())

    def _matching(self, pattern: str) -> list[FileEntry]:
        patterns = Patterns(["/" + normal_path(pattern)])
        rows = [row for row in range(len(self.table)) if patterns.excludes(self.table.path(row))]
        found = [self.table[row] for row in rows]
        files = [self.file(entry.path) for entry in found if entry.type is not EntryType.DIR]
        if not files:
            raise SnapshotNotFoundError(f"{self.location}: holds no file {printable(pattern)}")
        return files

    def followed(self, path: str) -> FileEntry | None:
        """Returns the file or directory that a path leads to, through links that stay within the snapshot.

        Returns:
            The entry, of a hard link the file; None: the root.

        Raises:
            SnapshotNotFoundError: there is none, or a link leads to nothing.
            UsageError: a link leads out of the snapshot, or in a circle.
        """
        self.check_open()
        names: list[str] = []
        rest, links = normal_path(path).split("/"), 0
        while rest:
            name = rest.pop(0)
            if name in ("", "."):
                continue
            if name == ".." and not names:
                raise UsageError(f"{printable(path)}: leads out of the snapshot")
            if name == "..":
                names.pop()
                continue
            entry = entry_at_path(self.snapshot, self.table, "/".join([*names, name]))
            if entry.type is not EntryType.SYMLINK:
                names.append(name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise UsageError(f"{printable(path)}: links in a circle")
            rest = [
                *([".."] * (len(names) + 1) if entry.target.startswith("/") else []),
                *entry.target.split("/"),
                *rest,
            ]
        if not names:
            return None
        entry = entry_at_path(self.snapshot, self.table, "/".join(names))
        return entry_at_path(self.snapshot, self.table, entry.target) if entry.type is EntryType.HARDLINK else entry
