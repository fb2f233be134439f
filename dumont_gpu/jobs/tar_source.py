"""Unpacks a tar, whoever made it, into a temporary folder that a pack then takes: forward, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple

from dumont_gpu.errors import NO_ROOM, DamagedError, DumontError, NoSpaceError, UsageError
from dumont_gpu.format.entries import clamp_mtime
from dumont_gpu.format.names import from_utf8
from dumont_gpu.format.paths import MAX_PATH, check_path, printable, shown
from dumont_gpu.jobs.tar_stream import BAD_STREAMS, MOST_OF_HEADERS, PIECE, ForwardTar, decompressed, opened_tar
from dumont_gpu.shortages import is_shortage
from dumont_gpu.storage import STANDARD_STREAM

_SECOND: Final = 10**9
_VOLUME_LABEL: Final = b"V"
_LATEST: Final = Decimal(10**10)  # seconds; more than a snapshot can say


@contextlib.contextmanager
def unpacked_tar(location: str, *, owner: bool = False) -> Iterator[str]:
    """Unpacks a tar (plain, gzip, bzip2 or xz) and yields the folder, which is deleted afterwards.

    The folder is in TMPDIR, and takes there what the files take. Symlinks are made when everything else is: no entry is
    written through one.

    Args:
        location: path of the tar; "-": standard input.
        owner: give entries the user and group of the tar, for which one must be root.

    Raises:
        SnapshotNotFoundError: nothing is at `location`.
        DamagedError: the tar is cut short or malformed, or an entry leads out of it.
        NoSpaceError: TMPDIR is full.
        DumontError: the tar cannot be read, or not unpacked.
    """
    name = "standard input" if location == STANDARD_STREAM else location
    if owner and os.geteuid():
        raise UsageError("--owner takes the owners of a tar from the files that it unpacks: only root can do that")
    with _private_folder() as folder, opened_tar(location, name) as raw:
        try:
            _unpack(ForwardTar(decompressed(raw)), folder, owner=owner)
        except DumontError as error:
            raise type(error)(f"{name}: {error}") from None
        except BAD_STREAMS as error:
            raise DamagedError(f"{name}: not a whole tar: {error}") from None
        except OSError as error:
            if error.errno is None:  # as bz2 says that its bytes make no sense
                raise DamagedError(f"{name}: not a whole tar: {error}") from None
            if is_shortage(error.errno):
                raise
            kind = NoSpaceError if error.errno in NO_ROOM else DumontError
            raise kind(f"{name}: cannot be unpacked in {tempfile.gettempdir()}: {error.strerror or error}") from None
        yield folder


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """Yields an empty folder that no other user can enter, whatever mode it gets, and deletes it afterwards."""
    with tempfile.TemporaryDirectory(prefix="dumont-tar-") as private:
        folder = Path(private) / "tree"
        folder.mkdir()
        try:
            yield str(folder)
        finally:
            _remove(folder)


def _remove(tree: Path) -> None:
    """Removes a tree, however deep it is: what Python has for that calls itself for each level."""
    folders = [os.fspath(tree)]
    for folder in folders:
        os.chmod(folder, 0o700)  # noqa: PTH101 - no Path for each of many
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108
    for folder in reversed(folders):
        os.rmdir(folder)  # noqa: PTH106


class _Metadata(NamedTuple):
    """What an entry gets besides its content. The tar's own record may have megabytes of comments."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int


@dataclass(slots=True)
class _Later:
    """What is done once every file is written, so that nothing is written through a link, or changes a time."""

    links: dict[str, tuple[str, _Metadata]] = field(default_factory=dict)  # path -> target, and the rest
    folders: dict[str, _Metadata | None] = field(default_factory=dict)  # None: the tar does not have it
    newest: int = 0


def _unpack(stream: ForwardTar, folder: str, *, owner: bool) -> None:
    later = _Later()
    root = Path(folder)
    with tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[arg-type]
        while (member := _next(tar)) is not None:
            stream.allowed = sys.maxsize  # for its content
            _take(tar, member, root, later, owner=owner)
            tar.members.clear()  # type: ignore[attr-defined]  # all of them would take memory without bound
            stream.allowed = MOST_OF_HEADERS
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise DamagedError("not a whole tar: it has no end")
    stream.read_rest()
    for path, (target, metadata) in later.links.items():
        _make_way(root / path)
        (root / path).symlink_to(target)
        _set_metadata(root / path, metadata, owner=owner)
    for path in sorted(later.folders, key=os.fsencode, reverse=True):
        of_folder = later.folders[path]
        if of_folder is not None:
            _set_metadata(root / path, of_folder, owner=owner)
    if "" not in later.folders:
        root.chmod(0o755)
        os.utime(root, ns=(later.newest, later.newest))


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        member = tar.next()
        # Headers for all entries behind them: tarfile keeps each key that ever came.
        if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > MOST_OF_HEADERS:
            raise DamagedError(f"more than {MOST_OF_HEADERS} bytes of headers for all entries")
        return member
    except (DumontError, OSError, MemoryError, *BAD_STREAMS):
        raise
    except Exception as error:  # tarfile trusts headers, and fails where they make no sense
        raise DamagedError(f"not a whole tar: {error}") from None


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, later: _Later, *, owner: bool) -> None:
    if member.type == _VOLUME_LABEL:
        return
    path = _path_of(member.name, is_folder=member.isdir())
    metadata = _Metadata(member.mode & 0o7777, (member.uid, member.gid), _mtime_ns(member))
    later.newest = max(later.newest, metadata.mtime_ns)
    if not path:
        later.folders[""] = metadata
        return
    _make_folders(root, path.rpartition("/")[0], later)
    place = root / path
    if member.isdir():
        if later.links.pop(path, None) or not place.is_dir():
            _make_way(place)
            place.mkdir()
        later.folders[path] = metadata
        return
    if member.issym():
        target = from_utf8(member.linkname)
        if not target or "\0" in target or len(os.fsencode(target)) > MAX_PATH:
            raise DamagedError(f"{shown(path)}: a symlink without a usable target")
        _make_way(place)
        later.links[path] = target, metadata
        return
    later.links.pop(path, None)
    if member.islnk():
        _link(root, _path_of(member.linkname), path, later)
    elif member.isfile():
        _make_way(place)
        _write(tar, member, place)
        _set_metadata(place, metadata, owner=owner)
    elif member.isfifo() or member.ischr() or member.isblk():
        _make_way(place)
        os.mkfifo(place)  # is not packed, but counted, as a device or a pipe of a folder would be
    else:
        raise DumontError(f"{shown(path)}: an entry of a type that is not known here: {member.type!r}")


def _path_of(name: str, *, is_folder: bool = False) -> str:
    """Returns a name of the tar as a path of the tree; the root is "".

    Raises:
        DamagedError: it leads out of the tree, or no snapshot can hold it.
    """
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    path = name.rstrip("/")
    if path in ("", ".") and is_folder and not name.startswith("/"):
        return ""
    path = from_utf8(path)
    check_path(os.fsencode(path))
    return path


def _make_folders(root: Path, path: str, later: _Later) -> None:
    """Makes the folders above an entry, which a tar need not have."""
    missing = []
    while path and path not in later.folders:
        missing.append(path)
        path = path.rpartition("/")[0]
    for folder in reversed(missing):
        if folder in later.links or (root / folder).exists():
            raise DamagedError(f"{shown(folder)}: is no folder, and an entry lies in it")
        (root / folder).mkdir()
        later.folders[folder] = None


def _make_way(place: Path) -> None:
    """Removes what an earlier entry of the same path left: in a tar, the last one counts."""
    if place.is_dir():
        raise DamagedError(f"{shown(place.name)}: is a folder, and something else later in the tar")
    place.unlink(missing_ok=True)


def _link(root: Path, target: str, path: str, later: _Later) -> None:
    if target in later.links:
        later.links[path] = later.links[target]
        return
    if (root / target).is_fifo():
        return
    if not (root / target).is_file():
        raise DamagedError(f"{shown(path)}: a hard link to something that is no earlier file of the tar")
    if path != target:
        _make_way(root / path)
        os.link(root / target, root / path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = tar.extractfile(member)
    holes: Any = getattr(member, "sparse", None)  # the parts that are none
    parts: list[tuple[int, int]] = holes or [(0, member.size)]
    with place.open("xb") as file:
        for start, size in parts if source is not None else ():
            source.seek(start)  # type: ignore[union-attr]
            file.seek(start)
            left = size
            while left:
                data = source.read(min(PIECE, left))  # type: ignore[union-attr]
                if not data:
                    raise DamagedError(f"{printable(place.name)}: the tar ends within it")
                if any(data):
                    file.write(data)
                else:
                    file.seek(len(data), os.SEEK_CUR)  # a hole: some programs write their zeros
                left -= len(data)
        file.truncate(member.size)


def _set_metadata(place: Path, metadata: _Metadata, *, owner: bool) -> None:
    if owner:
        os.lchown(place, *metadata.owner)
    if not place.is_symlink():
        place.chmod(metadata.mode)
    os.utime(place, ns=(metadata.mtime_ns, metadata.mtime_ns), follow_symlinks=False)


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Returns the time of an entry, to the nanosecond where a pax header has it."""
    try:
        seconds = Decimal(member.pax_headers.get("mtime", str(member.mtime)))
        return clamp_mtime(int(max(-_LATEST, min(seconds, _LATEST)) * _SECOND))
    except (InvalidOperation, ValueError, OverflowError):
        raise DamagedError(f"{shown(member.name)}: its time is no number") from None
