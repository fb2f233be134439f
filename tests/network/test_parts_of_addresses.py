"""Parts of a snapshot behind an address: the path behind `.dumont:`, and only the bytes of that part."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hostile import Archive, clear_error, command
from support.servers import FaultServer, at_once, status

from dumont_gpu import SnapshotService
from dumont_gpu.errors import DamagedError, GaveUpError
from dumont_gpu.jobs.options import RestoreOptions
from dumont_gpu.jobs.restore import restore

LARGE = 3 << 20


@pytest.fixture
def archive(fault_server: FaultServer) -> Archive:
    archive = Archive()
    archive.file("large", bytes(range(256)) * (LARGE // 256))
    archive.directory("src")
    archive.file("src/main.py", b"print()\n" * 1000)
    fault_server.data = archive.to_bytes()
    return archive


def test_cat_reads_only_what_the_file_needs(archive: Archive, fault_server: FaultServer) -> None:
    content = SnapshotService().read(f"{fault_server.url}:src/main.py")
    assert content == b"print()\n" * 1000
    assert sum(end - start for start, end in fault_server.ranges) < LARGE
    ran = command("cat", f"{fault_server.url}:src?X-Signature=1:2", "main.py")
    assert (ran.code, ran.out) == (0, "print()\n" * 1000)


def test_a_directory_behind_an_address_is_restored(archive: Archive, fault_server: FaultServer, target: Path) -> None:
    result = restore(f"{fault_server.url}:src", str(target), RestoreOptions(sync=False))
    assert (result.inside, [path.name for path in target.iterdir()]) == ("src", ["main.py"])


def test_a_network_that_gives_up_is_no_damage(archive: Archive, fault_server: FaultServer, target: Path) -> None:
    """Otherwise --keep-going would take files for lost that the next try brings."""
    chunk = archive.chunks[0].stored
    begin = fault_server.data.index(chunk)
    fault_server.script = lambda request: status(503) if begin <= request.start < begin + len(chunk) else None
    options = RestoreOptions(keep_going=True, sync=False, network=at_once())
    clear_error(lambda: restore(fault_server.url, str(target), options), GaveUpError)


def test_a_chunk_that_arrives_damaged_twice_is_damage(
    archive: Archive, fault_server: FaultServer, target: Path
) -> None:
    data = bytearray(fault_server.data)
    data[data.index(archive.chunks[0].stored) + 5] ^= 1
    fault_server.data = bytes(data)
    with pytest.raises(DamagedError):
        restore(fault_server.url, str(target / "a"), RestoreOptions(sync=False))
    result = restore(fault_server.url, str(target / "b"), RestoreOptions(keep_going=True, sync=False))
    assert [file.path for file in result.lost] == ["large"]
    assert (target / "b/src/main.py").read_bytes() == b"print()\n" * 1000
