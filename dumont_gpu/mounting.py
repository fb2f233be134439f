"""Mounts a snapshot read-only, by FUSE: the kernel asks for entries and bytes, and keeps what it got.

A snapshot never changes, so the kernel may keep names, times and bytes for as long as it has room for them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import importlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from dumont_gpu.columns.links import other_names
from dumont_gpu.errors import DumontError, UnsupportedError, UsageError
from dumont_gpu.format.entries import EntryType
from dumont_gpu.format.paths import MAX_NAME, printable
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.read_ahead import FollowedFile, ReadAhead
from dumont_gpu.loading.tree import FORMATS, ROOT_ROW, Node
from dumont_gpu.sizes import KiB, MiB, one_line

DEVICE: Final = "/dev/fuse"
_LIBRARIES: Final = ("fuse3", "fuse")  # the newer one first
_UNMOUNTERS: Final = ("fusermount3", "fusermount")
_FOREVER: Final = 1 << 30  # seconds: what the kernel knows of a snapshot stays true
_FIRST_INODE: Final = 1  # the root's; rows follow
_SECTOR: Final = 512  # bytes, in which st_blocks counts
_BLOCK: Final = 4 * KiB  # of statfs
_READ: Final = 1 * MiB  # bytes that programs should ask for at once
_MNT_DETACH: Final = 2  # of umount2: programs that are still inside lose nothing but new opens
_END: Final = 2.0  # seconds; the thread of a mount that programs are still in may not end
_SIGNAL_POLL: Final = 0.2  # seconds; a signal that another thread receives does not wake the main thread


class SnapshotOperations:
    """What the kernel asks, for `mfusepy.FUSE`: paths begin with a slash.

    Args:
        files: the snapshot.
        tell: called with a line for each failure, once.
        ready: called when the kernel begins to ask.
    """

    use_ns = True

    def __init__(self, files: SnapshotFiles, tell: Callable[[str], None], ready: Callable[[], None]) -> None:
        self._files, self._tell, self._ready = files, tell, ready
        self._names = other_names(files.table)
        self._open: dict[int, FollowedFile] = {}
        self._ahead = ReadAhead(files)
        self._handles = itertools.count(1)
        self._told: set[str] = set()
        self._owner = os.getuid(), os.getgid()  # of entries whose owner nobody recorded

    def init(self, path: str) -> None:
        self._ready()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        node = self._node(path)
        entry = node.entry
        uid, gid = entry.owner or self._owner
        return {
            "st_mode": FORMATS[entry.type] | entry.mode,
            "st_ino": _inode(node),
            "st_nlink": 1 + self._names[node.row],
            "st_size": entry.size or len(os.fsencode(entry.target)),
            "st_blocks": -(-entry.size // _SECTOR),
            "st_blksize": _READ,
            "st_uid": uid,
            "st_gid": gid,
            "st_atime": entry.mtime_ns,
            "st_mtime": entry.mtime_ns,
            "st_ctime": entry.mtime_ns,
        }

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        for name, folder in ((".", path), ("..", path.rpartition("/")[0] or "/")):
            yield name, {"st_mode": FORMATS[EntryType.DIR], "st_ino": _inode(self._node(folder))}, 0
        for node in self._files.tree.children(path[1:]):
            attributes = {"st_mode": FORMATS[node.entry.type], "st_ino": _inode(node)}
            yield node.entry.path.rpartition("/")[2], attributes, 0

    def readlink(self, path: str) -> str:
        return self._node(path).entry.target

    def open(self, path: str, flags: int) -> int:
        node = self._node(path)
        handle = next(self._handles)
        self._open[handle] = FollowedFile(self._files.table[node.row], self._files)
        return handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        file = self._open[fh]
        out = bytearray(max(0, min(size, file.size - offset)))
        if out:
            try:
                file.read_at(offset, memoryview(out))
                self._ahead.follow(file, len(self._open))
            except Exception as error:
                self._fail(path, error)
        return bytes(out)

    def release(self, path: str, fh: int) -> int:
        del self._open[fh]
        return 0

    def destroy(self, path: str) -> None:
        self._ahead.close()

    def statfs(self, path: str) -> dict[str, int]:
        table = self._files.table
        return {
            "f_bsize": _BLOCK,
            "f_frsize": _BLOCK,
            "f_blocks": -(-table.total_size() // _BLOCK),
            "f_files": len(table) + 1,
            "f_namemax": MAX_NAME,
        }

    def _node(self, path: str) -> Node:
        node = self._files.tree.node(path[1:])
        if node is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node

    def _fail(self, path: str, error: Exception) -> None:
        """Says once why a file cannot be read; whoever reads it gets EIO, and never a wrong byte."""
        line = f"{printable(path[1:])}: {one_line(str(error) or type(error).__name__)}"
        if line not in self._told:
            self._told.add(line)
            self._tell(line)
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None


class Mount:
    """A mounted snapshot, in a context: leaving it unmounts.

    Args:
        files: the snapshot, which stays open meanwhile.
        folder: an empty directory.
        tell: called, from any thread, with a line for each file that cannot be read.

    Raises:
        UsageError: `folder` is no empty directory.
        UnsupportedError: this machine has no FUSE, or the package for it is not installed.
        DumontError: it cannot be mounted; the message has libfuse's reason.
    """

    def __init__(self, files: SnapshotFiles, folder: str, tell: Callable[[str], None]) -> None:
        check_mountable(folder)
        self._fuse = importlib.import_module("mfusepy")
        self.folder = os.path.abspath(folder)
        self._files, self._tell = files, tell
        self._asked = threading.Event()  # by the kernel: the mount is there; or it ended before that
        self._ended = threading.Event()  # Thread.is_alive is wrong after a join that a signal interrupted
        self._mounted, self._error = False, ""
        self._thread = threading.Thread(target=self._serve, name="dumont-mount", daemon=True)

    def __enter__(self) -> Mount:
        words: list[str] = []
        with _kept_words(words):
            self._thread.start()
            self._asked.wait()
        if not self._mounted:
            raise DumontError(f"{printable(self.folder)}: cannot be mounted: {'; '.join(words) or self._error}")
        return self

    def wait(self) -> None:
        """Returns when somebody has unmounted it."""
        while not self._ended.wait(_SIGNAL_POLL):
            pass

    def __exit__(self, *_: object) -> None:
        if not self._ended.is_set():
            unmount(self.folder)
            self._ended.wait(_END)

    def _serve(self) -> None:
        """Answers the kernel until the end of the mount; libfuse runs threads of its own for that."""
        operations = SnapshotOperations(self._files, self._tell, self._ready)
        try:
            self._fuse.FUSE(
                operations,
                self.folder,
                foreground=True,
                encoding=sys.getfilesystemencoding(),
                ro=True,
                nodev=True,
                nosuid=True,
                default_permissions=True,
                use_ino=True,
                kernel_cache=True,
                entry_timeout=_FOREVER,
                negative_timeout=_FOREVER,
                attr_timeout=_FOREVER,
                subtype="dumont",
                fsname=re.sub(r"[^\w./:@+-]", "_", self._files.location),  # a comma would begin another option
            )
        except RuntimeError as error:  # as mfusepy says that libfuse returned something else than 0
            self._error = f"libfuse gave up ({error})"
        finally:
            self._ended.set()
            self._asked.set()

    def _ready(self) -> None:
        self._mounted = True
        self._asked.set()


def _inode(node: Node) -> int:
    return _FIRST_INODE + node.row - ROOT_ROW


def check_mountable(folder: str) -> None:
    """Raises the error of `Mount` that can be known before the snapshot is opened."""
    try:
        with os.scandir(folder) as found:
            empty = next(found, None) is None
    except FileNotFoundError:
        raise UsageError(f"{printable(folder)}: no such directory: make it first") from None
    except NotADirectoryError:
        raise UsageError(f"{printable(folder)}: not a directory") from None
    except OSError as error:
        raise DumontError(f"{printable(folder)}: {error.strerror}") from None
    if not empty:
        raise UsageError(f"{printable(folder)}: is not empty: the mount would hide what is there")
    if missing := missing_for_mount():
        raise UnsupportedError(missing)


def missing_for_mount() -> str:
    """Returns what this machine lacks for a mount, and the remedy; "": nothing."""
    if not os.access(DEVICE, os.F_OK):
        return f"no {DEVICE}: a container needs --device {DEVICE} --cap-add SYS_ADMIN"
    name = next(filter(ctypes.util.find_library, _LIBRARIES), None)
    if name is None:
        return "no libfuse: install the package fuse3 of this system"
    os.environ.setdefault("FUSE_LIBRARY_NAME", name)  # mfusepy itself would take the older one
    if importlib.util.find_spec("mfusepy") is None:
        return 'no mfusepy: pip install "dumont-gpu[mount]"'
    return ""


def unmount(folder: str) -> None:
    """Takes a mount away, at once for everybody who comes; whoever is inside keeps what is open."""
    if not ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH):
        return
    program = next(filter(None, map(shutil.which, _UNMOUNTERS)), None)  # who is not root needs one that is
    if program is not None:
        subprocess.run([program, "-u", "-z", "--", folder], stderr=subprocess.DEVNULL, check=False)


@contextmanager
def _kept_words(words: list[str]) -> Iterator[None]:
    """Keeps back the lines that C code writes to stderr meanwhile, and puts them into `words`."""
    with ExitStack() as held:
        before, kept = os.dup(2), os.memfd_create("stderr")
        held.callback(os.close, before)
        held.callback(os.close, kept)
        os.dup2(kept, 2)
        held.callback(lambda: words.extend(os.pread(kept, 64 * KiB, 0).decode(errors="replace").splitlines()))
        held.callback(os.dup2, before, 2)
        yield
