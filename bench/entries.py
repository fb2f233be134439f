"""Measures `ls` and `info` of a snapshot of many entries: seconds, and peak memory of the process.

`python bench/entries.py [COUNT]`, a million by default. The snapshot is made without a tree on disk: packages of 480
entries, each file with a digest of its own, a symlink in 50 and a hard link in 97. It cannot be restored.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from dumont_gpu import native
from dumont_gpu.codecs import Raw
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.digests import digest_function
from dumont_gpu.sizes import MiB
from dumont_gpu.snapshot.writer import SnapshotWriter
from dumont_gpu.storage import open_sink

MTIME = 1_700_000_000_123_456_789
FOLDER = 477  # files and links of a package, which has three directories
CHUNK = 4096  # bytes of the only chunk
RUNS = 3


def table_of(count: int) -> EntryTable:
    table = EntryTable()
    for package in range(count // (FOLDER + 3)):
        folder = f"package{package:05}/lib/module_{package % 7}"
        for depth in (1, 2, 3):
            _add(table, "/".join(folder.split("/")[:depth]), native.DIR)
        for number in range(FOLDER):
            path = f"{folder}/file_{number:04}.py"
            if number % 50 == 49:
                _add(table, path, native.SYMLINK, target=f"file_{number - 1:04}.py")
            elif number % 97 == 96:
                _add(table, path, native.HARDLINK, target=f"{folder}/file_0000.py")
            else:
                _add_file(table, path, package, number)
    table.sort()
    return table


def _add_file(table: EntryTable, path: str, package: int, number: int) -> None:
    columns = table.columns
    extent, piece = len(columns.extents) // native.EXTENT.size, len(columns.pieces) // native.PIECE.size
    size = 15 + (package * FOLDER + number) % 146
    columns.extents += native.EXTENT.pack(0, piece, 0)
    at = (package * 31 + number) % (CHUNK - size)
    columns.pieces += native.PIECE.pack(0, at, size, hashlib.sha256(path.encode()).digest())
    _add(table, path, native.FILE, size, extent)


def _add(table: EntryTable, path: str, kind: int, size: int = 0, first: int = 0, target: str = "") -> None:
    columns = table.columns
    at = len(columns.names)
    columns.names += path.encode() + b"\0"
    if target:
        first = len(columns.names)
        columns.names += target.encode() + b"\0"
    mtime = MTIME + zlib.crc32(path.encode()) % 10**9  # without a pattern
    columns.entries += native.ENTRY.pack(mtime, size, at, first, int(kind == native.FILE), 0o644, kind, 0)


def write(table: EntryTable, path: Path) -> tuple[int, int]:
    """Writes a snapshot; returns the bytes of the snapshot and of its manifest."""
    content = os.urandom(CHUNK)
    sink = open_sink(str(path), None, force=True)
    writer = SnapshotWriter(sink, 1, "blake3", 64 * MiB, columns=True)
    writer.write_chunk(0, memoryview(content), CHUNK, Raw(), digest_function("blake3")(memoryview(content)))
    header, size = writer.finish(table, None, "none")
    sink.commit(size)
    return size, header.manifest_size


def measured(*command: str | Path) -> tuple[float, int]:
    """Runs a command of the program; returns seconds, and bytes of memory."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dumont_gpu", *command], stdout=subprocess.DEVNULL, cwd="/")
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def make(count: int, path: Path) -> None:
    table = table_of(count)
    size, manifest_size = write(table, path)
    each = manifest_size / len(table)
    print(f"{len(table):,} entries: {size:,} bytes, {each:.1f} of the manifest for each entry")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 2:
        make(count, Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "entries.dumont"
        # In another process: wait4 counts the memory that this process has when it forks.
        subprocess.run([sys.executable, __file__, str(count), snapshot], check=True)
        for command in ("ls", "info"):
            runs = [measured(command, snapshot) for _ in range(RUNS)]
            seconds, memory = min(second for second, _ in runs), max(memory for _, memory in runs)
            print(f"{command:5} {seconds:.2f} s, {memory / MiB:.0f} MiB")


if __name__ == "__main__":
    main()
