"""A snapshot as a read-only file system of fsspec, `dumont://`: for pandas, pyarrow, datasets, dask and others.

fs = fsspec.filesystem("dumont", fo="s3://bucket/ws.dumont")
pandas.read_csv("dumont://data/train.csv::file:///x/ws.dumont")
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, BinaryIO, Final, NoReturn

from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.format.entries import EntryType
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import Duration, Size, StrPath
from dumont_gpu.jobs.options import DEFAULT_PATIENCE, ReadOptions
from dumont_gpu.jobs.parameters import checked
from dumont_gpu.loading.chunk_loader import HostWant
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.paths import file_at, info_of, name_below, node_at, not_found
from dumont_gpu.loading.ranges import load_ranges, want_range
from dumont_gpu.loading.shared import SharedSnapshot
from dumont_gpu.storage import scheme_name

try:
    from fsspec import AbstractFileSystem
except ImportError:
    raise ImportError('dumont:// needs a package: pip install "dumont-gpu[fs]"') from None

# fsspec's protocols of a chained address -> the scheme that the storage knows; "" is a path.
_SCHEMES: Final = {
    "file": "", "local": "", "http": "http", "https": "https", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs",
    "az": "az",
}  # fmt: skip
# What fsspec itself hands to every file system. A misspelt option must not be taken for one: it might be `expect`.
_OF_FSSPEC: Final = frozenset(
    ("asynchronous", "batch_size", "listings_expiry_time", "loop", "max_paths", "skip_instance_cache",
     "use_listings_cache")
)  # fmt: skip


class DumontFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """The files of a snapshot: every byte is checked before it is given out, and only their chunks are read.

    The snapshot is opened at the first use, once for all instances of a process with the same arguments. Paths are as
    in `dumont-gpu ls`. A symlink to a file counts as that file; one to a directory is a "link" in lists, so that no
    walk goes in circles, and can be entered by name. Links out of the snapshot, or to nothing, cannot be opened.

    Args:
        fo: path or address of the snapshot, perhaps with `:path` of a part of it.
        expect: refuse any snapshot but the one with this id, "sha256:…".
        memory: bytes for chunk buffers, or "1GiB"; 0: what the threads use, up to a quarter of what is left.
        patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
        connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
        limit_rate: bytes per second to download, at most; 0: no limit.
        target_protocol: of the address behind `::`, as fsspec's chaining passes it.
        target_options: must be empty: accounts, proxies and certificates come from the environment.

    Raises:
        UsageError: an argument does not take its value.
        FileNotFoundError: the snapshot, or a path in it, is not there. From the methods, as are the following.
        DamagedError: bytes do not match their digest.
        UnsupportedError, NetworkError, DumontError: the snapshot cannot be read.
    """

    protocol = "dumont"
    root_marker = ""

    def __init__(
        self,
        fo: StrPath = "",
        *,
        expect: str | None = None,
        memory: Size = 0,
        patience: Duration = DEFAULT_PATIENCE,
        connections: int = 0,
        limit_rate: Size = 0,
        target_protocol: str | None = None,
        target_options: Mapping[str, object] | None = None,
        **fsspec_options: object,
    ) -> None:
        super().__init__(**fsspec_options)
        if unknown := fsspec_options.keys() - _OF_FSSPEC:
            raise TypeError(f"dumont:// has no option {', '.join(sorted(unknown))}")
        if target_options:
            names = ", ".join(sorted(target_options))
            raise UsageError(
                f"dumont:// opens the snapshot itself, and takes no {names}: accounts come from the environment"
            )
        options = checked(
            ReadOptions, expect=expect, memory=memory, patience=patience, connections=connections, limit_rate=limit_rate
        )
        self._snapshot = SharedSnapshot(_location(fo, target_protocol), options)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else stripped.lstrip("/")

    @property
    def fsid(self) -> str:
        """The snapshot's id: it names the bytes, wherever they lie."""
        return f"dumont_{self._files().snapshot.id}"

    def invalidate_cache(self, path: str | None = None) -> None:
        """Opens the snapshot anew at the next use: at an address, nobody sees by itself that it was replaced."""
        self._snapshot.forget()
        super().invalidate_cache(path)

    # --- what there is ------------------------------------------------------------------------------------------------

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Returns what a path leads to, through symlinks: name, size (bytes), type, mode, mtime (seconds), uid, gid.

        A symlink has `islink` and `destination`, too; its type is "link" if it leads out of the snapshot or to nothing.
        """
        path = self._strip_protocol(path)
        files = self._files()
        return info_of(path, node_at(files, path), files, enter=True)

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        """Lists a directory; of a file, the file alone."""
        path = self._strip_protocol(path)
        files = self._files()
        with not_found(path):
            folder = files.followed(path)
        if folder is not None and folder.type is EntryType.FILE:
            return [self.info(path)] if detail else [path]
        found = ((name_below(path, node), node) for node in files.tree.children(folder.path if folder else ""))
        return [info_of(name, node, files) for name, node in found] if detail else [name for name, _ in found]

    def exists(self, path: str, **_: object) -> bool:
        """Whether a path leads to something; unlike fsspec's own, takes no broken network for an empty place."""
        return self._kind(path) not in (None, "link")

    def lexists(self, path: str, **_: object) -> bool:
        return self._kind(path) is not None

    def isdir(self, path: str) -> bool:
        return self._kind(path) == "directory"

    def isfile(self, path: str) -> bool:
        return self._kind(path) == "file"

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], tz=timezone.utc)

    def ukey(self, path: str) -> str:
        """A name for the content of a file, for caches."""
        return sha256(f"{self.fsid}/{self._strip_protocol(path)}".encode(errors="surrogateescape")).hexdigest()

    # --- its bytes ----------------------------------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", **_: object) -> BinaryIO:
        if mode != "rb":
            self._refuse(path)
        files = self._files()
        return files.open_entry(file_at(files, path)).buffered()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        """Returns the bytes of a file from `start` up to `end`; negative numbers count from its end."""
        (content,) = self.cat_ranges([path], [start], [end], on_error="raise")
        return bytes(content)

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: object,
    ) -> list[Any]:
        """Returns ranges of files; a chunk that holds several of them is read and decoded once.

        Args:
            paths: of the files.
            starts: as for `cat_file`, one for each path; or one for all of them.
            ends: as `starts`.
            max_gap: of no use here: chunks are read whole.
            on_error: "return" puts an error in the place of the bytes; "raise" raises the first.
        """
        starts, ends = (each if isinstance(each, list) else [each] * len(paths) for each in (starts, ends))
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("paths, starts and ends differ in length")
        files = self._files()
        wanted: list[HostWant | Exception] = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            try:
                wanted.append(want_range(file_at(files, self._strip_protocol(path)), start, end))
            except (DumontError, OSError) as error:
                if on_error != "return":
                    raise
                wanted.append(error)
        load_ranges(files, wanted, singly=on_error == "return")
        return [each if isinstance(each, Exception) else bytes(each.place or b"") for each in wanted]

    def _refuse(self, path: str, *_: object, **__: object) -> NoReturn:
        """Refuses a change: fsspec's own methods would do nothing, and say nothing."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    mkdir = makedirs = rmdir = rm_file = _rm = rm = cp_file = touch = pipe_file = mv = _refuse

    # --- the snapshot -------------------------------------------------------------------------------------------------

    def _files(self) -> SnapshotFiles:
        try:
            return self._snapshot.files()
        except SnapshotNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, str(error)) from None

    def _kind(self, path: str) -> str | None:
        """Returns the type of what a path leads to; None: nothing, or out of the snapshot."""
        self._files()  # its errors are not about the path
        try:
            kind: str = self.info(path)["type"]
        except (FileNotFoundError, UsageError):
            return None
        return kind


def _location(place: StrPath, protocol: str | None) -> str:
    """Returns the path or address of a snapshot as the storage takes it; fsspec took the scheme of some away."""
    if not place:
        raise UsageError(
            'name the snapshot: fsspec.filesystem("dumont", fo="ws.dumont"), or dumont://path::file:///ws.dumont'
        )
    fo = take.path("fo", place)
    if scheme_name(fo) in ("file", "local"):
        return fo.partition("://")[2]
    if protocol is None or scheme_name(fo):
        return fo
    if protocol not in _SCHEMES:
        raise UsageError(
            f"dumont:// cannot open a snapshot through {protocol}://: name a path, http(s)://, s3://, gs:// or az://"
        )
    scheme = _SCHEMES[protocol]
    return f"{scheme}://{fo}" if scheme else fo
