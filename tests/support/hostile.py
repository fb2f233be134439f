"""Builds snapshots byte by byte, right or wrong, and signs them: an attacker also writes the digests.

`Archive` holds the parts of a snapshot; whatever a test bends, `to_bytes` makes every digest fit again, so that only
the rule under test can refuse the result. Written from the format's description, without the package's own writer.
`refused` then tries every reader of snapshots, the one for any machine, too, and tells whether all of them refuse the
snapshot properly.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lz4.frame
import pytest
import zstandard

from dumont_gpu.errors import DamagedError, DumontError
from dumont_gpu.jobs.options import RestoreOptions, VerifyOptions
from dumont_gpu.jobs.restore import RestoreResult, plan_restore, restore
from dumont_gpu.jobs.verify import verify
from dumont_gpu.reader import dumont_reader
from dumont_gpu.storage import MemorySource
from dumont_gpu.tree.target.journal import NAMES

HEADER = struct.Struct("<8sIIIIQQQQQ32s32s352s")  # without its digest
CHUNK = struct.Struct("<QIIB8s")
RAW, LZ4, LZ4_HC, ZIPNN, ZSTD = range(5)  # codecs that an attack is made for, not all there are
MTIME = 1_700_000_000_123_456_789


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def aligned(offset: int) -> int:
    return -(-offset // 4096) * 4096


def lz4_frame(content: bytes, **options: Any) -> bytes:
    """An LZ4 frame that obeys the format, unless `options` for lz4.frame.compress change that."""
    settings = {"block_size": lz4.frame.BLOCKSIZE_MAX64KB, "block_linked": False, "store_size": True} | options
    return bytes(lz4.frame.compress(content, **settings))


def header_checksum(fields: bytes) -> int:
    """The last byte of an LZ4 frame's header, for the bytes between the magic and that byte."""
    return _xxh32(fields) >> 8 & 0xFF


def _xxh32(data: bytes) -> int:
    """Of fewer than 16 bytes, which is all that a frame header has."""
    mask, state = 0xFFFFFFFF, (374761393 + len(data)) & 0xFFFFFFFF
    while len(data) >= 4:
        state = (state + int.from_bytes(data[:4], "little") * 3266489917) & mask
        state = ((state << 17 | state >> 15) * 668265263) & mask
        data = data[4:]
    for byte in data:
        state = (state + byte * 374761393) & mask
        state = ((state << 11 | state >> 21) * 2654435761) & mask
    for shift, prime in ((15, 2246822519), (13, 3266489917), (16, 1)):
        state = (state ^ state >> shift) * prime & mask
    return state


def float_bytes(count: int, seed: int = 7) -> bytes:
    """bf16 numbers whose exponents shrink well: codec 3 is made for them."""
    state = seed
    out = bytearray()
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out += bytes([state >> 33 & 0xFF, 0x3D + (state >> 60) % 3])
    return bytes(out)


def zipnn_stream(content: bytes, block_log2: int = 16) -> bytes:
    """A valid ZipNN stream of bf16 numbers."""
    from dumont_gpu.native import Dtype, zipnn_encode

    out = memoryview(bytearray(2 * len(content) + 4096))
    return bytes(out[: zipnn_encode(memoryview(content), out, Dtype.BF16, block_log2)])


def zstd_frame(content: bytes, **options: Any) -> bytes:
    """A zstd frame that obeys the format, unless `options` for zstandard.ZstdCompressor change that."""
    return bytes(zstandard.ZstdCompressor(**options).compress(content))


ENCODERS: dict[int, Callable[[bytes], bytes]] = {
    RAW: bytes,
    LZ4: lz4_frame,
    LZ4_HC: partial(lz4_frame, compression_level=9),
    ZIPNN: zipnn_stream,
    ZSTD: zstd_frame,
}


def encode(codec: int, content: bytes) -> bytes:
    """The encoded bytes of a chunk; as long as the content or longer if it does not shrink."""
    return ENCODERS[codec](content)


@dataclass
class Chunk:
    """A chunk and its chunk record. Fields that are None follow from the others."""

    stored: bytes
    size_original: int
    codec: int = RAW
    offset: int | None = None
    size_compressed: int | None = None
    checksum: bytes | None = None  # of the index
    digest: str | None = None  # of the manifest


@dataclass
class Archive:
    """The parts of a snapshot. Entries are the manifest's JSON objects: bend any of them, then call `to_bytes`."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)  # fields of the manifest beside the entries
    header: dict[str, Any] = field(default_factory=dict)  # fields of the file header that shall differ
    manifest: bytes | None = None  # JSON that replaces the whole manifest
    stored_manifest: bytes | None = None  # replaces the encoded manifest
    padding: bytes = b""  # after the header and each chunk, cut or filled with zeros
    trailer: bytes = b""  # after the manifest

    # --- contents -------------------------------------------------------------------------------------------------

    def chunk(self, content: bytes, codec: int = RAW, **fields: Any) -> int:
        """Adds a chunk and returns its number."""
        self.chunks.append(Chunk(encode(codec, content), len(content), codec, **fields))
        return len(self.chunks) - 1

    def directory(self, path: str | bytes, **fields: Any) -> dict[str, Any]:
        return self.entry(path, type="dir", mode=0o755, mtime_ns=MTIME, **fields)

    def file(self, path: str | bytes, content: bytes = b"", codec: int = RAW, **fields: Any) -> dict[str, Any]:
        """A file with a chunk of its own."""
        extents = [[0, self.chunk(content, codec), 0, len(content)]] if content else []
        digests = [sha256(content).hex()] if content else []
        return self.entry(
            path,
            **{"type": "file", "mode": 0o644, "mtime_ns": MTIME, "size": len(content)}
            | {"extents": extents, "sha256": digests} | fields,
        )  # fmt: skip

    def symlink(self, path: str | bytes, target: str | bytes, **fields: Any) -> dict[str, Any]:
        named = text("target", target)
        return self.entry(path, **{"type": "symlink", "mode": 0, "mtime_ns": MTIME} | named | fields)

    def hardlink(self, path: str | bytes, target: str | bytes, **fields: Any) -> dict[str, Any]:
        return self.entry(path, **{"type": "hardlink"} | text("target", target) | fields)

    def entry(self, path: str | bytes, **fields: Any) -> dict[str, Any]:
        self.entries.append(text("path", path) | fields)
        return self.entries[-1]

    # --- bytes ----------------------------------------------------------------------------------------------------

    def manifest_json(self) -> bytes:
        head = {
            "method": "none",
            "tool": "hostile",
            "created_ns": MTIME,
            "chunks": [chunk.digest or sha256(chunk.stored).hex() for chunk in self.chunks],
        } | self.head
        opening = json.dumps(head, separators=(",", ":"))[:-1] + ',"entries":['
        return "\n".join([opening, ",\n".join(map(json.dumps, self.entries)), "]}", ""]).replace("\n\n", "\n").encode()

    def to_bytes(self) -> bytes:
        index, offset = b"", aligned(512 + 25 * len(self.chunks))
        placed: list[tuple[int, bytes]] = []
        for chunk in self.chunks:
            start = offset if chunk.offset is None else chunk.offset
            size = len(chunk.stored) if chunk.size_compressed is None else chunk.size_compressed
            checksum = sha256(chunk.stored)[:8] if chunk.checksum is None else chunk.checksum
            index += CHUNK.pack(start, size, chunk.size_original, chunk.codec, checksum)
            placed.append((start, chunk.stored))
            offset = aligned(offset + len(chunk.stored))
        manifest = self.manifest_json() if self.manifest is None else self.manifest
        stored = lz4_frame(manifest) if self.stored_manifest is None else self.stored_manifest
        body = bytearray(offset)
        for start, data in [(512, index), *placed]:
            if start <= offset:  # a snapshot with another order can only be refused
                self._put(body, start, data)
        return self._header(index, stored, offset) + bytes(body[512:offset]) + stored + self.trailer

    def _put(self, body: bytearray, start: int, data: bytes) -> None:
        body[start : start + len(data)] = data
        end = start + len(data)
        room = self.padding[: aligned(end) - end]
        body[end : end + len(room)] = room

    def _header(self, index: bytes, stored: bytes, offset: int) -> bytes:
        fields = {
            "magic": b"DUMONT02",
            "version": 2,
            "flags": 0,
            "num_chunks": len(self.chunks),
            "num_files": len(self.entries),
            "total_size_compressed": sum(
                len(chunk.stored) if chunk.size_compressed is None else chunk.size_compressed for chunk in self.chunks
            ),
            "total_size_original": sum(entry["size"] for entry in self.entries if isinstance(entry.get("size"), int))
            % (1 << 64),
            "chunk_size": 64 << 20,
            "manifest_offset": offset,
            "manifest_size": len(stored),
            "index_sha256": sha256(index),
            "manifest_sha256": sha256(stored),
            "reserved": b"",
        } | self.header
        body = HEADER.pack(*fields.values())
        return body + sha256(body)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


def text(key: str, value: str | bytes) -> dict[str, str]:
    """A path as the manifest spells it: `bytes` become base64."""
    return {key: value} if isinstance(value, str) else {f"{key}_b64": base64.b64encode(value).decode()}


def small_archive() -> Archive:
    """A little of everything: each entry type, each codec, a shared chunk, a hole."""
    archive = Archive()
    archive.directory("d")
    archive.file("d/raw", b"as it is")
    archive.file("d/text", b"again and " * 60, LZ4)
    archive.file("floats", float_bytes(512), ZIPNN)
    archive.hardlink("hard", "d/text")
    archive.file("high", b"and again " * 60, LZ4_HC)
    archive.file("sparse", b"", size=10_000, extents=[[5000, 0, 3, 5]], sha256=[sha256(b"it is").hex()])
    archive.symlink("sym", "d/raw")
    return archive


# --- outcomes ---------------------------------------------------------------------------------------------------------


def restored(archive: Archive | bytes, target: Path, **options: Any) -> RestoreResult:
    """Restores an archive on two threads, not waiting for the disk."""
    data = archive if isinstance(archive, bytes) else archive.to_bytes()
    return restore(MemorySource(data), str(target), RestoreOptions(**{"sync": False, "jobs": 1} | options))


def refused(archive: Archive | bytes, target: Path, error: type[DumontError] = DamagedError) -> str:
    """Checks that restoring, planning and verifying all refuse a table of contents; returns the message.

    Nothing may have been written by then: `target` must not even exist.
    """
    data = archive if isinstance(archive, bytes) else archive.to_bytes()
    attempts: list[Callable[[], object]] = [
        lambda: restored(data, target),
        lambda: plan_restore(MemorySource(data)),
        lambda: verify(MemorySource(data)),
    ]
    messages = {clear_error(attempt, error) for attempt in attempts}
    assert len(messages) == 1
    for name in ("ls", "verify", "restore"):
        assert read_alone(name, data, target).code == error.exit_code
    assert not target.exists()
    return messages.pop()


def undecodable(archive: Archive | bytes, target: Path, error: type[DumontError] = DamagedError) -> str:
    """Checks that a snapshot whose table of contents is sound fails when its chunks are decoded; returns the message."""
    data = archive if isinstance(archive, bytes) else archive.to_bytes()
    verify(MemorySource(data))  # every encoded byte matches its digest: the writer made the digests
    clear_error(lambda: verify(MemorySource(data), VerifyOptions(content=True, jobs=1)), error)
    assert read_alone("verify", data, target).code == error.exit_code
    return clear_error(lambda: restored(data, target), error)


def read_alone(name: str, data: bytes, target: Path) -> Ran:
    """Runs a command of the reader for any machine on a snapshot; checks that it says at most one line of error."""
    out, err = io.StringIO(), io.StringIO()
    dumont_reader.faster = dumont_reader.Faster()
    with open_bytes(data) as path, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        more = ["--no-sync", os.fspath(target)] if name == "restore" else []
        ran = Ran(dumont_reader.main([name, "--pure", path, *more]), out.getvalue(), err.getvalue())
    assert ran.code in (0, 3) or ran.error.startswith("dumont_reader: ")
    assert len(ran.err) < 1000 or ran.code == 3
    return ran


@contextlib.contextmanager
def open_bytes(data: bytes) -> Iterator[str]:
    """Gives bytes a path while the block runs, without a file in any folder."""
    descriptor = os.memfd_create("snapshot")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def clear_error(attempt: Callable[[], object], error: type[DumontError]) -> str:
    """Checks that `attempt` raises exactly `error`, with a single line fit for a terminal; returns that line."""
    with pytest.raises(error) as caught:
        attempt()
    message = str(caught.value)
    assert caught.type is error
    assert message.isprintable(), message
    assert 0 < len(message) < 1000
    return message


def tree(path: Path) -> dict[str, tuple[str, bytes]]:
    """The tree below a directory: path -> type, and content or target; links are not followed."""
    return {os.fsdecode(os.path.relpath(entry, path)): _content(entry) for entry in _walk(path)}


def written(path: Path) -> dict[str, tuple[str, bytes]]:
    """The tree that an unfinished restore left below a directory, without its journal."""
    found = tree(path) if path.exists() else {}
    left = {name: value for name, value in found.items() if ".partial" not in name}
    left.pop(NAMES[0], None)
    return left


def _walk(path: Path) -> Iterator[Path]:
    for child in sorted(path.iterdir()):
        yield child
        if child.is_dir() and not child.is_symlink():
            yield from _walk(child)


def _content(path: Path) -> tuple[str, bytes]:
    if path.is_symlink():
        return "symlink", os.fsencode(path.readlink())
    return ("dir", b"") if path.is_dir() else ("file", path.read_bytes())


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line on stderr."""
        assert "Traceback" not in self.err, self.err
        assert self.err.endswith("\n")
        assert self.err[:-1].isprintable(), self.err
        return self.err[:-1]


def command(*arguments: str | Path | bytes, **settings: Any) -> Ran:
    """Runs the command line in a process of its own."""
    line = [sys.executable, "-m", "dumont_gpu", *arguments]
    done = subprocess.run(line, capture_output=True, timeout=60, **{"cwd": "/"} | settings)
    return Ran(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


def killed(work: Callable[[Callable[[], None]], object]) -> bool:
    """Runs `work` in a forked process, which dies by SIGKILL where `work` calls its argument. Returns whether it did."""
    child = os.fork()
    if child == 0:
        _run_and_exit(work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _run_and_exit(work: Callable[[Callable[[], None]], object]) -> NoReturn:
    code = 1
    try:
        work(lambda: os.kill(os.getpid(), signal.SIGKILL))
        code = 0
    finally:
        os._exit(code)


def damaged_archive(path: Path) -> Path:
    """Writes a snapshot of `sound` and `weights`, with a wrong byte in the chunk of the latter."""
    archive = Archive()
    archive.file("sound", b"s" * 5000)
    archive.file("weights", float_bytes(9000), ZIPNN)
    data = bytearray(archive.to_bytes())
    data[data.index(archive.chunks[1].stored) + 900] ^= 1
    path.write_bytes(data)
    return path
