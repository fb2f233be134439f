"""Direct and buffered writes mixed: every byte lands at its offset, whatever the alignment."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from dumont_gpu.disk.direct_io import ALIGNMENT, DIRECT_MINIMUM, read_at, shift_for, write_at


@pytest.mark.parametrize("offset", [0, 1, 511, 4095, 4096, 4097, 123_456])
@pytest.mark.parametrize("extra", [0, 1, 4095, 4096, 70_001])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("folder", [None, "/dev/shm"])
def test_every_byte_is_written_once(tmp_path: Path, offset: int, extra: int, aligned: bool, folder: str | None) -> None:
    if folder is not None and not Path(folder).is_dir():
        pytest.skip("no memory file system")
    data = random.Random(offset + extra).randbytes(DIRECT_MINIMUM + extra)
    memory = memoryview(mmap.mmap(-1, len(data) + 3 * ALIGNMENT))
    shift = shift_for(offset, 0) if aligned else shift_for(offset, 0) + 1
    memory[shift : shift + len(data)] = data
    path = Path(folder or tmp_path) / f"dumont-direct-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_at(fd, offset, memory[shift : shift + len(data)])
        assert path.read_bytes() == bytes(offset) + data
        for cached in (True, False):
            if not cached:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            memory[:] = b"\xa5" * len(memory)
            out = memory[shift : shift + len(data) + 100]
            assert read_at(fd, offset, out) == len(data)
            assert out[: len(data)] == data
            assert set(memory[shift + len(out) :]) == {0xA5}
        write_at(fd, 0, memoryview(b"head"))
        assert path.read_bytes()[:4] == b"head"
    finally:
        os.close(fd)
        path.unlink()
