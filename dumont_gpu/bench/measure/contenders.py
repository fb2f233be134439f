"""The commands that the job benchmark compares, as a user would type them.

SOURCE, ARCHIVE and TARGET stand for paths. A pack runs in SOURCE, a restore in TARGET, an empty directory.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dumont_gpu.errors import DumontError


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to pack or to restore; its time is that of all `commands`, one after the other."""

    name: str
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()  # executables
    prepare: tuple[str, ...] = ()  # before a pack, not timed
    reads: str = ""  # a restore: the pack whose archive it reads; empty: SOURCE
    minor: bool = False  # may run less often than the others, and not at all with --quick

    @property
    def is_ours(self) -> bool:
        return self.commands[0].startswith("dumont-gpu ")

    def missing(self) -> list[str]:
        """Returns the executables that are not on this machine."""
        return [tool for tool in self.needs if not shutil.which(tool)]


@dataclass(frozen=True, slots=True)
class Case:
    """A source tree, and the contenders that pack and restore it."""

    name: str
    packs: tuple[Contender, ...]
    restores: tuple[Contender, ...]


DUMONT_PACK = Contender("dumont-gpu", ("dumont-gpu pack SOURCE -o ARCHIVE",))
DUMONT_SHA256_PACK = Contender("dumont-gpu, sha256", ("dumont-gpu pack SOURCE -o ARCHIVE --digest sha256",))
DUMONT_V2_PACK = Contender("dumont-gpu, hybrid_v2", ("dumont-gpu pack SOURCE -o ARCHIVE --method hybrid_v2",))
DUMONT_RESTORE = Contender("dumont-gpu", ("dumont-gpu restore ARCHIVE TARGET",), reads="dumont-gpu")
DUMONT_NO_SYNC = Contender("dumont-gpu --no-sync", ("dumont-gpu restore ARCHIVE TARGET --no-sync",), reads="dumont-gpu")
DUMONT_SHA256_RESTORE = Contender(
    "sha256, --no-sync", ("dumont-gpu restore ARCHIVE TARGET --no-sync",), reads="dumont-gpu, sha256"
)
DUMONT_V2_RESTORE = Contender(
    "hybrid_v2, --no-sync", ("dumont-gpu restore ARCHIVE TARGET --no-sync",), reads="dumont-gpu, hybrid_v2"
)

DUMONT_V2_PACK = Contender("dumont-gpu, hybrid_v2", ("dumont-gpu pack SOURCE -o ARCHIVE --method hybrid_v2",))
DUMONT_V2_RESTORE = Contender(
    "hybrid_v2, --no-sync", ("dumont-gpu restore ARCHIVE TARGET --no-sync",), reads="dumont-gpu, hybrid_v2"
)

TAR_ZSTD_PACK = Contender("tar, zstd -3", ("tar -cSf ARCHIVE -I 'zstd -3 -T0' .",), ("tar", "zstd"))
TAR_LZ4_PACK = Contender("tar, lz4", ("tar -cSf ARCHIVE -I lz4 .",), ("tar", "lz4"))
TAR_PACK = Contender("tar", ("tar -cf ARCHIVE .",), ("tar",))
RESTIC_PACK = Contender(
    "restic", ("restic -q -r ARCHIVE backup .",), ("restic",), ("restic -q init -r ARCHIVE",), minor=True
)
BORG_PACK = Contender(
    "borg, zstd 3", ("borg create -C zstd,3 ARCHIVE::all .",), ("borg",), ("borg init -e none ARCHIVE",), minor=True
)
SQUASHFS_PACK = Contender(
    "squashfs, zstd", ("mksquashfs . ARCHIVE -comp zstd -no-progress -quiet",), ("mksquashfs",), minor=True
)

TAR_ZSTD_RESTORE = Contender("tar, zstd -3", ("tar -xf ARCHIVE -I zstd",), ("tar", "zstd"), reads="tar, zstd -3")
TAR_LZ4_RESTORE = Contender("tar, lz4", ("tar -xf ARCHIVE -I lz4",), ("tar", "lz4"), reads="tar, lz4")
TAR_RESTORE = Contender("tar", ("tar -xf ARCHIVE",), ("tar",), reads="tar")
COPY = Contender("cp -a", ("cp -a SOURCE/. TARGET",), ("cp",))
COPY_SYNC = Contender("cp -a, sync -f", ("cp -a SOURCE/. TARGET", "sync -f TARGET"), ("cp", "sync"))
RESTIC_RESTORE = Contender(
    "restic", ("restic -q -r ARCHIVE restore latest --target TARGET",), ("restic",), reads="restic", minor=True
)
BORG_RESTORE = Contender(
    "borg, zstd 3", ("borg extract --sparse ARCHIVE::all",), ("borg",), reads="borg, zstd 3", minor=True
)
SQUASHFS_RESTORE = Contender(
    "squashfs, zstd", ("unsquashfs -f -no-progress -quiet -d TARGET ARCHIVE",), ("unsquashfs",),
    reads="squashfs, zstd", minor=True,
)  # fmt: skip

WORKSPACE = Case(
    "workspace",
    (DUMONT_PACK, DUMONT_V2_PACK, DUMONT_SHA256_PACK, TAR_ZSTD_PACK, TAR_LZ4_PACK,
     RESTIC_PACK, BORG_PACK, SQUASHFS_PACK),
    (DUMONT_RESTORE, DUMONT_NO_SYNC, DUMONT_V2_RESTORE, DUMONT_SHA256_RESTORE, TAR_ZSTD_RESTORE, TAR_LZ4_RESTORE,
     COPY, COPY_SYNC, RESTIC_RESTORE, BORG_RESTORE, SQUASHFS_RESTORE),
)  # fmt: skip
SMALL_FILES = Case(
    "small files",
    (DUMONT_PACK, TAR_ZSTD_PACK, TAR_PACK),
    (DUMONT_RESTORE, DUMONT_NO_SYNC, TAR_ZSTD_RESTORE, TAR_RESTORE, COPY, COPY_SYNC),
)
OWN_TREE = Case(
    "own tree",
    (DUMONT_PACK, DUMONT_V2_PACK, TAR_ZSTD_PACK),
    (DUMONT_RESTORE, DUMONT_NO_SYNC, DUMONT_V2_RESTORE, TAR_ZSTD_RESTORE),
)

# What `dumont-gpu bench --path` runs over a user's folder: the peers that are installed.
OWN_FOLDER = Case(
    "own folder",
    (DUMONT_PACK, TAR_ZSTD_PACK, TAR_LZ4_PACK, RESTIC_PACK, BORG_PACK, SQUASHFS_PACK),
    (DUMONT_RESTORE, TAR_ZSTD_RESTORE, TAR_LZ4_RESTORE, RESTIC_RESTORE, BORG_RESTORE, SQUASHFS_RESTORE),
)

# `dumont-gpu bench` takes less time.
COMMAND = Case(
    "corpus",
    (DUMONT_PACK, DUMONT_V2_PACK, TAR_ZSTD_PACK, TAR_LZ4_PACK, RESTIC_PACK, BORG_PACK, SQUASHFS_PACK),
    (DUMONT_RESTORE, DUMONT_NO_SYNC, DUMONT_V2_RESTORE, TAR_ZSTD_RESTORE, TAR_LZ4_RESTORE, COPY,
     RESTIC_RESTORE, BORG_RESTORE, SQUASHFS_RESTORE),
)  # fmt: skip


def tools(*cases: Case) -> set[str]:
    """Returns the executables of all peers."""
    return {tool for case in cases for contender in (*case.packs, *case.restores) for tool in contender.needs}


def command_line(command: str, paths: Mapping[str, Path]) -> list[str]:
    """Splits `command` and puts `paths` in; `dumont-gpu` is the command beside the running Python."""
    pattern = re.compile("|".join(paths))
    words = [pattern.sub(lambda match: str(paths[match[0]]), word) for word in shlex.split(command)]
    return [dumont_program(), *words[1:]] if words[0] == "dumont-gpu" else words


def dumont_program() -> str:
    beside = Path(sys.executable).parent / "dumont-gpu"
    found = str(beside) if beside.exists() else shutil.which("dumont-gpu")
    if not found:
        raise DumontError("there is no dumont-gpu command beside this Python: pip install dumont-gpu")
    return found
