"""Makes the golden archives that do not exist yet: `PYTHONPATH=tests python tests/golden/make.py`.

Every NAME.dumont has a NAME.json beside it: the tree that a restore must bring back. Bytes come from seeded generators.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.frozen_codecs import FROZEN_CODECS

from dumont_gpu.columns import manifest
from dumont_gpu.columns.table import EntryTable
from dumont_gpu.format.header import FLAG_COLUMNS, HEADER_SIZE
from dumont_gpu.format.names import to_utf8
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import STANDARD_STREAM, MemorySource

HERE = Path(__file__).parent
MTIME = 1_700_000_000_123_456_789


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def floats(count: int, kind: str) -> bytes:
    rng = random.Random(count)
    values = [rng.gauss(0, 0.02) for _ in range(count)]
    if kind == "fp16":
        return struct.pack(f"<{count}e", *values)
    data = struct.pack(f"<{count}f", *values)
    return data if kind == "fp32" else b"".join(data[at + 2 : at + 4] for at in range(0, len(data), 4))


def example(root: Path) -> None:
    write(root / "hello.py", b'print("hello")\n')
    (root / "link").symlink_to("hello.py")


def empty(root: Path) -> None:
    pass


def entry_types(root: Path) -> None:
    write(root / "dir/.hidden", b"hidden", 0o600)
    (root / "dir/empty").mkdir()
    write(root / "none", b"")
    (root / "up").symlink_to("../outside")
    (root / "another").hardlink_to(root / "dir/.hidden")
    (root / "dir/empty").chmod(0o700)


def names(root: Path) -> None:
    write(root / "é/日本語", b"unicode")
    write(root / os.fsdecode(b"latin-\xe9"), b"not UTF-8")
    write(root / ("n" * 255), b"long")
    write(root / "back\\slash\nline", b"control")
    (root / "to").symlink_to(os.fsdecode(b"latin-\xe9"))


def lz4_text(root: Path) -> None:
    rng = random.Random(4)
    write(root / "log.txt", "".join(f"step {i} loss {rng.random():.3f}\n" for i in range(2000)).encode())


def holes(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        for offset in (0, 256 * KiB):
            file.seek(offset)
            file.write(b"data" * 10)
        file.truncate(1 << 20)


def shared(root: Path) -> None:
    data = random.Random(5).randbytes(20_000)
    write(root / "a", data)
    write(root / "b", data)


def spans(root: Path) -> None:
    write(root / "model.bin", floats(5000, "fp32"))


def zipnn(root: Path) -> None:
    for kind in ("fp32", "bf16", "fp16"):
        write(root / f"{kind}.safetensors", safetensors(kind))


def safetensors(kind: str) -> bytes:
    header = json.dumps({"w": {"dtype": {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}[kind], "shape": [40000],
                               "data_offsets": [0, len(floats(40000, kind))]}}).encode()  # fmt: skip
    return struct.pack("<Q", len(header)) + header + floats(40000, kind)


def npy(data: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(data) // 4},), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def mixed(root: Path) -> None:
    rng = random.Random(6)
    write(root / "weights.bin", floats(40_000, "bf16"))
    write(root / "weights.safetensors", safetensors("fp32"))
    write(root / "copy.npy", npy(floats(40_000, "fp32")))  # the tensor of the file before, which is stored once
    write(root / "log.txt", "".join(f"step {i} loss {rng.random():.3f}\n" for i in range(4000)).encode())
    write(root / "same-line.txt", b"the same line, once more\n" * 3000)
    write(root / "noise.bin", rng.randbytes(70_000))
    write(root / "code.py", b"print('hello')\n" * 20)


def columns(root: Path) -> None:
    for build in (entry_types, names, holes, shared):
        build(root)
    write(root / "z", (root / "a").read_bytes())  # in another page than its pieces


ARCHIVES: dict[str, tuple[Callable[[Path], None], dict[str, object]]] = {
    "example": (example, {}),
    "empty": (empty, {}),
    "entry-types": (entry_types, {}),
    "names": (names, {}),
    "holes": (holes, {}),
    "shared": (shared, {}),
    "spans-chunks": (spans, {"chunk_size": 4 * KiB}),
    **{name: (lz4_text, {"method": name}) for name in FROZEN_CODECS.values()},
    "zipnn": (zipnn, {}),  # no method by itself: hybrid_v2 chooses this codec for floats
    "hybrid-v3": (mixed, {"method": "hybrid_v3"}),  # every codec that the method chooses, in one archive
    "blake3": (lz4_text, {"digest": "blake3"}),
    "columns": (columns, {"chunk_size": 16 * KiB}),
    "stream": (columns, {"chunk_size": 16 * KiB, "method": "hybrid_v3"}),
}
# From the future: a reader of today must say "not supported", not "damaged". name -> (from, offset, bytes)
FUTURE = {
    "future-magic": ("example", 6, b"03"),
    "future-version": ("example", 8, b"\x03"),
    "future-flag": ("example", 13, b"\x80"),
    "future-codec": ("example", 512 + 16, b"\x7f"),
}


def in_columns(path: Path) -> None:
    """Gives a snapshot a manifest in columns with all that it can say: several pages, owners, a file that changed."""
    data = path.read_bytes()
    snapshot = read_snapshot(MemorySource(data))
    entries = list(snapshot.manifest.entries)
    for number, entry in enumerate(entries):
        if entry.path in ("a", "dir", "to"):
            entries[number] = entry._replace(owner=(1000, 100 + number), changed=entry.path == "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "_PAGE_ENTRIES", 4)
        encoded, digest = manifest.encode_manifest(snapshot.manifest, EntryTable(entries))
    header = replace(
        snapshot.header,
        manifest_size=len(encoded),
        manifest_sha256=digest,
        flags=snapshot.header.flags | FLAG_COLUMNS,
    )
    path.write_bytes(header.to_bytes() + data[HEADER_SIZE : header.manifest_offset] + encoded)


def pack_forward(root: Path, path: Path, options: PackOptions) -> None:
    """Packs into standard output, as into a pipe."""
    sys.stdout.flush()
    kept = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        try:
            pack([str(root)], STANDARD_STREAM, options)
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def describe(root: Path) -> dict[str, object]:
    """What `root` holds, as JSON can say it."""
    found: dict[str, object] = {}
    for folder, dirs, files in os.walk(root):
        for name in sorted(dirs + files):
            path = Path(folder) / name
            status = path.lstat()
            entry: dict[str, object] = {"type": stat.filemode(status.st_mode), "mtime_ns": status.st_mtime_ns}
            if path.is_symlink():
                entry["target"] = ascii(to_utf8(os.readlink(path)))
            elif path.is_file():
                entry |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "links": status.st_nlink}
            found[ascii(to_utf8(os.fspath(path.relative_to(root))))] = entry
    return found


def signed(data: bytearray) -> bytes:
    count = struct.unpack_from("<I", data, 16)[0]
    data[64:96] = hashlib.sha256(data[512 : 512 + 25 * count]).digest()
    data[480:512] = hashlib.sha256(data[:480]).digest()
    return bytes(data)


def main() -> None:
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    os.umask(0o022)
    for name, (build, options) in ARCHIVES.items():
        if (HERE / f"{name}.dumont").exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "tree"
            root.mkdir(mode=0o755)
            build(root)
            for path in sorted(root.rglob("*"), reverse=True):
                os.utime(path, ns=(MTIME, MTIME), follow_symlinks=False)
            os.utime(root, ns=(MTIME, MTIME))
            chosen = PackOptions(**{"jobs": 1, "method": "hybrid_v2", **options})  # type: ignore[arg-type]
            if name == "stream":
                pack_forward(root, HERE / f"{name}.dumont", chosen)
            else:
                pack([str(root)], str(HERE / f"{name}.dumont"), chosen)
            if name == "columns":
                in_columns(HERE / f"{name}.dumont")
            (HERE / f"{name}.json").write_text(json.dumps(describe(root), indent=1, sort_keys=True) + "\n")
    for name, (base, offset, data) in FUTURE.items():
        path = HERE / f"{name}.dumont"
        if not path.exists():
            raw = bytearray((HERE / f"{base}.dumont").read_bytes())
            raw[offset : offset + len(data)] = data
            path.write_bytes(signed(raw))


if __name__ == "__main__":
    main()
