"""A restore over http that is killed in the middle of a request, and the same command again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import program
from support.servers import FaultServer, Request, _Faulty
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.sizes import KiB
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import open_source

PROGRAM = program()
CHUNK = 256 * KiB
CHUNKS = 40
IN_FLIGHT = 2 * (2 + 1) + 4  # chunks in the two pools of a restore with --jobs 2, and chunks asked for


@pytest.fixture
def server(source: Path, snapshot: Path) -> Iterator[FaultServer]:
    """Serves a snapshot of some 40 chunks, a request each, and a chunk of small files."""
    (source / "weights").write_bytes(random.Random(1).randbytes(CHUNKS * CHUNK))
    (source / "code").mkdir()
    for number in range(200):
        (source / f"code/{number}.py").write_text(f"print({number})\n" * 100)
    pack_tree(source, snapshot, chunk_size=CHUNK)
    server = FaultServer(snapshot.read_bytes())
    yield server
    server.close()


def restore_command(server: FaultServer, target: Path) -> list[str]:
    return [PROGRAM, "restore", server.url, str(target), "--no-sync", "--json", "--jobs", "2", "--progress", "none"]


@pytest.mark.parametrize("seed", range(10))
def test_killed_restore_goes_on_and_fetches_little_twice(
    seed: int, server: FaultServer, source: Path, snapshot: Path, target: Path
) -> None:
    fatal = random.Random(seed).randrange(3, CHUNKS)

    def half_and_then_death(answer: _Faulty) -> None:
        answer.range_head()
        answer.wfile.write(answer.part[: len(answer.part) // 2])
        process.send_signal(signal.SIGKILL)

    def script(request: Request) -> object:
        return half_and_then_death if request.number == fatal else None

    server.script = script  # type: ignore[assignment]
    with subprocess.Popen(restore_command(server, target), stdout=subprocess.DEVNULL) as process:
        assert process.wait(40) == -signal.SIGKILL
    again = subprocess.run(restore_command(server, target), capture_output=True, text=True, timeout=40, check=True)
    summary = json.loads(again.stdout.splitlines()[-1])
    assert_same_tree(source, target)
    chunks = read_snapshot(open_source(str(snapshot))).chunks
    asked = sum(end - start for start, end in server.ranges if end - start > 64 * KiB)
    assert asked <= sum(chunk.size_compressed for chunk in chunks) + IN_FLIGHT * CHUNK
    assert summary["resumed_chunks"] + IN_FLIGHT >= fatal - 3  # earlier chunks are not fetched again
    assert not list(target.glob(".dumont*"))
    shutil.rmtree(target)
