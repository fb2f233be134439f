"""Which file an output may replace: never one that somebody wants to keep.

An output replaces a snapshot or an empty file: nothing is lost with either (`mktemp` makes an empty file). Every other
file stays unless the user says otherwise; devices, pipes and the sources of a pack stay whatever the user says. As
compressors do, an output follows a symlink: the same rule holds for the link's target, and the link stays.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.errors import DumontError, UsageError
from dumont_gpu.format.header import MAGIC
from dumont_gpu.shortages import is_shortage

UNFINISHED: Final = b"dumont-gpu: an unfinished snapshot\n"  # its first bytes until the header is written
HEAD_SIZE: Final = 512  # bytes at the start of a file that tell its kind
_MAX_NAME: Final = 200  # characters of the output's name in the name of its unfinished file
_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_STREAMS: Final = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # names of open files
_KINDS: Final = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Output:
    """A path at which a file may be written."""

    path: Path  # with symlinks followed
    replaced: os.stat_result | None = None  # of the file that is there now
    expendable: bool = True  # whether the program may replace that file unasked

    @property
    def identities(self) -> frozenset[Identity]:
        """The identity of the file that will be replaced; empty if there is none."""
        return frozenset() if self.replaced is None else frozenset([identity(self.replaced)])

    def stands_at(self, parent: int, name: str, status: os.stat_result) -> bool:
        """Whether `name` in the directory `parent` is the file that will be replaced, and not a hard link to it."""
        if self.replaced is None or identity(status) != identity(self.replaced):
            return False
        if status.st_nlink == 1:
            return True
        return name == self.path.name and os.path.samestat(os.fstat(parent), os.stat(self.path.parent))


def check_output(
    location: str,
    *,
    force: bool = False,
    sources: Sequence[str] = (),
    expendable: Callable[[bytes], bool] | None = None,
    kind: str = "snapshot",
    way_out: str = ", or say --force",
) -> Output:
    """Returns the path at which a file may be written, and the file that it will replace.

    Args:
        location: the path that the user named.
        force: replace any regular file.
        sources: the paths that are being packed; no output ever replaces one of them.
        expendable: tells by a file's first bytes whether the file may be replaced unasked; snapshots if None.
        kind: the name of such files in messages.
        way_out: text that messages add to the advice to name another file.

    Raises:
        UsageError: no file may be written there; the message says why.
        DumontError: the path cannot be looked at.
    """
    if not location:
        raise UsageError("an output without a name: name a file, such as workspace.dumont")
    if location == "-" or os.path.abspath(location).startswith(_STREAMS):
        raise UsageError(f"{location}: {_a(kind)} is not streamed: name a file")
    path = Path(location)
    try:
        if path.is_symlink():
            _check_link(path)
            path = Path(os.path.realpath(location))
        status = _status(path)
    except OSError as error:
        raise DumontError(f"{location}: cannot be written: {error.strerror}") from None
    if status is None:
        folder = path if location.endswith("/") else path.parent
        if not folder.is_dir():
            raise UsageError(f"{location}: there is no folder {folder}")
        return Output(path)
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{location}: is a directory; name a file, such as workspace.dumont")
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{location}: is {kind_of(status)}: {_a(kind)} is a file")
    if any(_is_same(source, status) for source in sources):
        raise UsageError(f"{location}: is what is to be packed, and would be replaced: name another output")
    try:
        known = _is_expendable(path, status, expendable)
    except OSError as error:  # a file that cannot be read may be of any kind
        if is_shortage(error.errno):
            raise
        if not force:
            there = f"{location}: is there already, and cannot be read ({error.strerror})"
            raise DumontError(f"{there}: name another file{way_out}") from None
        known = False
    if not known and not force:
        raise UsageError(f"{location}: {in_the_way(kind, way_out)}")
    return Output(path, status, known)


def in_the_way(kind: str = "snapshot", way_out: str = ", or say --force") -> str:
    """Says that a file is in the way which is not replaced unasked."""
    return f"is there already, and is no {kind}: name another file{way_out}"


def identity(status: os.stat_result) -> Identity:
    """Returns device and inode, which all names of one file share."""
    return status.st_dev, status.st_ino


def kind_of(status: os.stat_result) -> str:
    """Returns the noun for an entry that is neither a regular file nor a directory."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")


def is_expendable(head: bytes, known: Callable[[bytes], bool] | None = None) -> bool:
    """Whether a file with these first bytes is replaced unasked: if empty, or if `known` says so; snapshots if None."""
    return not head or (known or is_snapshot)(head)


def is_snapshot(head: bytes) -> bool:
    """Whether a file with these first bytes is a snapshot, of any version."""
    return head[:6] == MAGIC[:6] and head[6:8].isdigit()


def is_unfinished(head: bytes) -> bool:
    """Whether a file with these first bytes is an unfinished snapshot: begun by a pack, or complete but not renamed."""
    return head.startswith(UNFINISHED) or is_snapshot(head)


def unfinished_name(name: str) -> str:
    """Returns the name under which a snapshot is written before it gets its own.

    The name is fixed and the file locked: a run replaces what a killed run left behind, and never disturbs another run.
    """
    return f".{name[:_MAX_NAME]}.partial"


def read_head(name: str | Path, parent: int | None = None) -> bytes:
    """Returns a file's first bytes, enough to tell its kind. Does not follow links.

    Raises:
        OSError: the file cannot be read.
    """
    fd = os.open(name, _OPEN, dir_fd=parent)
    try:
        return os.pread(fd, HEAD_SIZE, 0)
    finally:
        os.close(fd)


def _check_link(path: Path) -> None:
    """Raises UsageError for a link that another user may have put into a shared folder such as /tmp.

    With fs.protected_symlinks, Linux does not follow such links either.
    """
    link, folder = path.lstat(), os.stat(path.parent)
    for_all = stat.S_ISVTX | stat.S_IWOTH
    if folder.st_mode & for_all == for_all and link.st_uid not in (os.geteuid(), folder.st_uid):
        raise UsageError(f"{path}: is a link of another user in a folder for all: name another output")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _is_same(source: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(source), status)
    except OSError:  # the scan reports the source
        return False


def _is_expendable(path: Path, status: os.stat_result, known: Callable[[bytes], bool] | None) -> bool:
    return not status.st_size or is_expendable(read_head(path), known)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
