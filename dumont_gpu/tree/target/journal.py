"""The journal of a restore: a small file in the target's root, there from before the first write until the end.

The journal records the snapshot and the selection: the same command continues, any other is refused. Finished chunks
are not recorded: the manifest has a digest of every extent, and the next run checks the files that are there
(`dumont_gpu.jobs.resume`). Compared with a record of finished chunks, this needs no write and no sync per chunk,
cannot be ahead of the data after a power loss, and detects changes by other programs. The price is a read of those
files, which a disk does faster than a link.

The journal lies inside the target, because the parent may be read-only or another file system (a mounted /workspace),
and is opened through the root's descriptor, without following symlinks. If another file has the journal's name, in the
target or in the snapshot, the journal takes the next of NAMES. The mode of unfinished files (`tree.unfinished`) marks a
journal; no file of a snapshot gets that mode without --preserve-special. Where a mount keeps no modes, name and form
have to do, and no restore writes an entry of such a name there.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Final

from dumont_gpu.errors import DumontError
from dumont_gpu.shortages import is_shortage
from dumont_gpu.sizes import MiB
from dumont_gpu.tree.target.traits import keeps_modes
from dumont_gpu.tree.unfinished import UNFINISHED_MODE, is_unfinished

NAMES: Final = (".dumont-restore", *(f".dumont-restore-{number}" for number in range(1, 10)))
MAGIC: Final = b"dumont-gpu restore 1\n"
_MAX_SIZE: Final = 4 * MiB  # more than a bit for each of the 2^24 entries of the largest snapshot, in base64
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in its place must not block
_OPEN: Final = _LOOK | os.O_RDWR
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Journal:
    """The identity of a restore, and the entries that it keeps."""

    snapshot_id: str
    selection: str  # digest of the options that decide which entries are written, and how
    overwrite: str = "refuse"  # policy for existing files; "refuse": the target was empty
    kept: frozenset[int] = frozenset()  # indices of the selected entries that existed and stay as they are

    def to_bytes(self) -> bytes:
        """Returns the journal's bytes: the line MAGIC, and a line of JSON."""
        bits = bytearray(max(self.kept, default=-1) // 8 + 1)
        for index in self.kept:
            bits[index // 8] |= 1 << index % 8
        fields = {
            "snapshot": self.snapshot_id,
            "selection": self.selection,
            "overwrite": self.overwrite,
            "kept": base64.b64encode(bits).decode(),
        }
        return MAGIC + json.dumps(fields).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Journal | None:
        """Returns the journal; None if `data` is a torn journal or no journal: neither is trusted."""
        if not data.startswith(MAGIC):
            return None
        try:
            fields = json.loads(data[len(MAGIC) :])
            texts = [fields[name] for name in ("snapshot", "selection", "overwrite", "kept")]
            if (
                not data.endswith(b"\n")
                or len(fields) != len(texts)
                or not all(isinstance(text, str) for text in texts)
            ):
                return None
            bits = base64.b64decode(texts[3], validate=True)
        except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
            return None
        kept = (8 * place + bit for place, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1)
        return cls(texts[0], texts[1], texts[2], frozenset(kept))


@dataclass(frozen=True, slots=True)
class JournalFile:
    """An open journal, locked until this process closes it."""

    journal: Journal
    name: str
    fd: int

    def remove(self, root_fd: int) -> None:
        """Deletes the journal: its restore is complete, or another restore replaces it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=root_fd)

    def close(self) -> None:
        os.close(self.fd)


def find_journal(root_fd: int, taken: Container[str], *, read_only: bool = False) -> JournalFile | None:
    """Opens the journal that an unfinished restore left in the target; removes torn journals.

    Args:
        root_fd: descriptor of the target.
        taken: names that are entries of the snapshot, and so no journals.
        read_only: changes nothing; no journal is found on a mount that keeps no modes.

    Raises:
        DumontError: another process is restoring into the target.
    """
    for name, fd in _open_candidates(root_fd, taken, read_only):
        journal = None
        try:
            _lock(fd, name)
            if _stands_under(root_fd, name, fd):
                data = _read(fd)
                journal = Journal.parse(data)
                if journal is None and _is_torn(data) and not read_only:
                    os.unlink(name, dir_fd=root_fd)  # its run was killed at the start, before writing any entry
        finally:
            if journal is None:
                os.close(fd)
        if journal is not None:
            return JournalFile(journal, name, fd)
    return None


def begin_journal(root_fd: int, taken: Container[str], journal: Journal, *, durable: bool) -> JournalFile:
    """Writes the journal of a new restore under the first free name.

    Args:
        root_fd: descriptor of the target.
        taken: names that are entries of the snapshot.
        durable: whether the journal must survive a power loss.

    Raises:
        DumontError: no name is free, or another process is restoring into the target.
    """
    name = next((name for name in NAMES if name not in taken and not _exists(root_fd, name)), None)
    if name is None:
        raise DumontError(f"the names from {NAMES[0]} to {NAMES[-1]} are taken; move one of them away")
    try:
        fd = os.open(name, _CREATE, UNFINISHED_MODE, dir_fd=root_fd)
    except FileExistsError:
        raise _at_work(name) from None
    try:
        _lock(fd, name)
        if not _stands_under(root_fd, name, fd):  # another process took it for torn before the lock, and deleted it
            raise _at_work(name)
        data = journal.to_bytes()
        while data:
            data = data[os.write(fd, data) :]
        if durable:
            os.fsync(fd)
            os.fsync(root_fd)
    except BaseException:  # a kill leaves a torn journal, which the next run removes
        with contextlib.suppress(OSError):
            if _stands_under(root_fd, name, fd):
                os.unlink(name, dir_fd=root_fd)
        os.close(fd)
        raise
    return JournalFile(journal, name, fd)


def _open_candidates(root_fd: int, taken: Container[str], read_only: bool) -> Iterator[tuple[str, int]]:
    for name in NAMES:
        if name in taken:
            continue
        try:
            fd = os.open(name, _LOOK if read_only else _OPEN, dir_fd=root_fd)
        except OSError as error:  # no file, a symlink, a directory, or another user's file: no journal of this user
            if is_shortage(error.errno):
                raise
            continue
        status = os.fstat(fd)
        if is_unfinished(status) or (not read_only and _is_unmarked_journal(root_fd, fd, status)):
            yield name, fd
        else:
            os.close(fd)


def _is_unmarked_journal(root_fd: int, fd: int, status: os.stat_result) -> bool:
    """Whether the file reads like a journal, on a file system where no journal could have its mark."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return False
    data = _read(fd)
    return (Journal.parse(data) is not None or _is_torn(data)) and not keeps_modes(root_fd)


def _read(fd: int) -> bytes:
    pieces = []
    size = 0
    while size < _MAX_SIZE and (piece := os.pread(fd, _MAX_SIZE - size, size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _is_torn(data: bytes) -> bool:
    return data.startswith(MAGIC[: len(data)]) and data.count(b"\n") < 2


def _lock(fd: int, name: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _at_work(name) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # some network file systems have no locks
            raise


def _at_work(name: str) -> DumontError:
    return DumontError(f"another dumont-gpu is restoring into it ({name} is locked)")


def _stands_under(root_fd: int, name: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=root_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _exists(root_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
