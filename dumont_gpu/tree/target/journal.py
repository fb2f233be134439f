"""The journal of a restore: a small file in the target's root, from before the first entry until all is complete.

It says which snapshot and selection the target is being filled with, so that the same command goes on and any other is
refused. It does not say which chunks are done: the manifest has a digest of every extent, so the next run reads the
files that are there and knows (`dumont_gpu.jobs.resume`). Compared with a record of finished chunks, this needs no
write and no sync per chunk, cannot be ahead of the data after a power loss, and finds what another program changed
meanwhile. It costs one read of what is there, which a disk does faster than a link.

It lies inside the target, because the parent may be read-only or another file system (a mounted /workspace), and is
reached through the root's descriptor, without following links. What else stands under its name, in the target or in the
snapshot, stays as it is: the next of NAMES is taken. A journal is known by the mode of unfinished files
(`tree.unfinished`), which no file of a snapshot gets unless --preserve-special asks for it. Where a mount keeps no
modes, its name and form have to do: there no restore writes an entry of such a name.
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
_MAX_SIZE: Final = 4 * MiB  # a bit for each of the 2^24 entries of the largest snapshot, in base64, and more
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo put there must not block
_OPEN: Final = _LOOK | os.O_RDWR
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Journal:
    """What a restore set out to do."""

    snapshot_id: str
    selection: str  # digest of the options that decide which entries are written, and how
    overwrite: str = "refuse"  # what to do with what was there; "refuse": nothing was
    kept: frozenset[int] = frozenset()  # which of the selected entries were there and stay as they are

    def to_bytes(self) -> bytes:
        """Returns the journal's only form: a line that names it, and one of JSON."""
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
        """Returns the journal, or None if it is torn or no journal at all: nothing of it is believed then."""
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
    """An open journal, locked as long as this process has it."""

    journal: Journal
    name: str
    fd: int

    def remove(self, root_fd: int) -> None:
        """The restore is complete, or another one begins."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=root_fd)

    def close(self) -> None:
        os.close(self.fd)


def find_journal(root_fd: int, taken: Container[str], *, read_only: bool = False) -> JournalFile | None:
    """Opens the journal that an unfinished restore left in this directory; removes one that was never written.

    Args:
        root_fd: the target.
        taken: names that are entries of the snapshot, and no journals.
        read_only: changes nothing; a mount that keeps no modes seems to have no journal then.

    Raises:
        DumontError: another process is at work.
    """
    for name, fd in _open_candidates(root_fd, taken, read_only):
        journal = None
        try:
            _lock(fd, name)
            if _stands_under(root_fd, name, fd):
                data = _read(fd)
                journal = Journal.parse(data)
                if (
                    journal is None and _is_torn(data) and not read_only
                ):  # killed while beginning: no entry was written yet
                    os.unlink(name, dir_fd=root_fd)
        finally:
            if journal is None:
                os.close(fd)
        if journal is not None:
            return JournalFile(journal, name, fd)
    return None


def begin_journal(root_fd: int, taken: Container[str], journal: Journal, *, durable: bool) -> JournalFile:
    """Writes the journal of a new restore, under the first name that is free; `durable`: it outlives a power loss.

    Raises:
        DumontError: no name is free, or another process begins here, too.
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
        if not _stands_under(root_fd, name, fd):  # taken for a torn one before it was locked
            raise _at_work(name)
        data = journal.to_bytes()
        while data:
            data = data[os.write(fd, data) :]
        if durable:
            os.fsync(fd)
            os.fsync(root_fd)
    except BaseException:  # after a kill, a torn one stays: the next run removes it
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
        except OSError as error:  # nothing there, a link, a directory, or not for us: no journal of ours
            if is_shortage(error.errno):
                raise
            continue
        status = os.fstat(fd)
        if is_unfinished(status) or (not read_only and _is_unmarked_journal(root_fd, fd, status)):
            yield name, fd
        else:
            os.close(fd)


def _is_unmarked_journal(root_fd: int, fd: int, status: os.stat_result) -> bool:
    """Whether it reads like a journal, and the file system is one where none could have its mark."""
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
        if error.errno not in _NO_LOCKS:  # some network file systems have none
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
