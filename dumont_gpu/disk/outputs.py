"""What may stand where a file is to be written: the rule that an output never eats what somebody wants to keep.

What is replaced is a snapshot, or empty: nothing is lost with either (`mktemp` makes an empty file). Everything else
stays, unless the user says otherwise; devices, pipes and the sources of a pack stay whatever the user says. A symlink
is followed, as compressors do: what it points to is replaced, by the same rule, and the link stays.
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

UNFINISHED: Final = b"dumont-gpu: an unfinished snapshot\n"  # at 0 of one, until its header is written there
HEAD_SIZE: Final = 512  # bytes that tell what a file is
_MAX_NAME: Final = 200  # characters of the output's name in that of its unfinished file
_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_STREAMS: Final = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # other names of open files
_KINDS: Final = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Output:
    """A place where a file may be written."""

    path: Path  # with symlinks followed
    replaced: os.stat_result | None = None  # of the file that stands there
    expendable: bool = True  # that file is what the program may replace unasked

    @property
    def identities(self) -> frozenset[Identity]:
        """Of the file that will be replaced, if there is one."""
        return frozenset() if self.replaced is None else frozenset([identity(self.replaced)])

    def stands_at(self, parent: int, name: str, status: os.stat_result) -> bool:
        """Whether the file `name` in the directory `parent` is the one that will be replaced, not its hard link."""
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
    """Says where a file may be written, and what it will replace there.

    Args:
        location: the path that the user named.
        force: replace any regular file.
        sources: what is being packed; none of them is ever replaced.
        expendable: says by its first bytes whether a file is of the kind that is replaced unasked; snapshots if None.
        kind: what such a file is called.
        way_out: what a message adds to the advice to name another file.

    Raises:
        UsageError: nothing may be written there, and why.
        DumontError: the place cannot be looked at.
    """
    if not location:
        raise UsageError("an output without a name: name a file, such as workspace.dumont")
    if location == "-" or os.path.abspath(location).startswith(_STREAMS):
        raise UsageError(f"{location}: a {kind} is not streamed: name a file")
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
        raise UsageError(f"{location}: is {kind_of(status)}: a {kind} is a file")
    if any(_is_same(source, status) for source in sources):
        raise UsageError(f"{location}: is what is to be packed, and would be replaced: name another output")
    try:
        known = _is_expendable(path, status, expendable)
    except OSError as error:  # what cannot be read cannot be known
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
    """Says that something which is not replaced unasked stands where a file is to be written."""
    return f"is there already, and is no {kind}: name another file{way_out}"


def identity(status: os.stat_result) -> Identity:
    """Device and inode: what two names of one file have in common."""
    return status.st_dev, status.st_ino


def kind_of(status: os.stat_result) -> str:
    """What to call something that is neither a regular file nor a directory."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "no file")


def is_expendable(head: bytes, known: Callable[[bytes], bool] | None = None) -> bool:
    """Whether what begins like this is replaced unasked: it is empty, or `known` says so; snapshots if None."""
    return not head or (known or is_snapshot)(head)


def is_snapshot(head: bytes) -> bool:
    """Whether a file that begins like this is a snapshot, of any version."""
    return head[:6] == MAGIC[:6] and head[6:8].isdigit()


def is_unfinished(head: bytes) -> bool:
    """Whether the file at an unfinished snapshot's name is one: begun by a pack, or complete but not renamed yet."""
    return head.startswith(UNFINISHED) or is_snapshot(head)


def unfinished_name(name: str) -> str:
    """Under which name, beside its own, a snapshot is written.

    One fixed name, locked: what a killed run left behind is replaced, and a run in progress is not disturbed.
    """
    return f".{name[:_MAX_NAME]}.partial"


def read_head(name: str | Path, parent: int | None = None) -> bytes:
    """Returns a file's first bytes: enough to tell what it is. Links are not followed.

    Raises:
        OSError: the file cannot be read.
    """
    fd = os.open(name, _OPEN, dir_fd=parent)
    try:
        return os.pread(fd, HEAD_SIZE, 0)
    finally:
        os.close(fd)


def _check_link(path: Path) -> None:
    """Raises UsageError for a link that somebody else may have put into a folder for all, such as /tmp.

    The kernel follows none of these either, where fs.protected_symlinks is set.
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
    except OSError:  # the scan says what is wrong with the source
        return False


def _is_expendable(path: Path, status: os.stat_result, known: Callable[[bytes], bool] | None) -> bool:
    return not status.st_size or is_expendable(read_head(path), known)
