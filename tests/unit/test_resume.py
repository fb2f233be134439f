"""The same command again after an interruption: no byte that is there is fetched again, no wrong byte stays."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile import clear_error, command, killed, small_archive, tree
from support.snapshots import assert_same_tree

from dumont_gpu.errors import DamagedError, DumontError, NetworkError, UsageError
from dumont_gpu.format.header import ChunkRecord
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import pack
from dumont_gpu.jobs.resources import ChunkRoom, writer_count
from dumont_gpu.jobs.restore import RestoreResult, restore
from dumont_gpu.snapshot.reader import read_snapshot
from dumont_gpu.storage import LocalSource
from dumont_gpu.tree.target.journal import NAMES
from dumont_gpu.tree.unfinished import UNFINISHED_MODE

CHUNK = 64 << 10
LINK = 8 << 10  # bytes of a file that the sources below hand out before they count again
MTIME = 1_600_000_000_123_456_789
JOBS = 2
CALLS = ("open", "pwrite", "ftruncate", "fsync", "rename", "mkdir", "symlink", "link", "fchmod", "utime", "unlink")


class CountingSource(LocalSource):
    """Appends the size of every read of chunks to a file, which survives a kill."""

    def __init__(self, path: Path, log: Path, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(str(path))
        self._chunks = {(chunk.offset, chunk.size_compressed) for chunk in chunks_of(path)}
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._before = before

    def read_into(self, offset: int, out: memoryview) -> None:
        if (offset, len(out)) in self._chunks:
            self._before()
            os.write(self._log, f"{offset} {len(out)}\n".encode())
        super().read_into(offset, out)

    def close(self) -> None:
        os.close(self._log)
        super().close()


def chunks_of(path: Path) -> tuple[ChunkRecord, ...]:
    source = LocalSource(str(path))
    try:
        return read_snapshot(source).chunks
    finally:
        source.close()


def fetched(log: Path) -> list[int]:
    """The sizes of the chunk reads, in order."""
    return [int(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


@pytest.fixture
def filled(source: Path) -> Path:
    """Files of many chunks, many files of a chunk, equal ones, holes, links, odd modes."""
    noise = random.Random(3)
    (source / "d" / "deep").mkdir(parents=True)
    (source / "d" / "large").write_bytes(noise.randbytes(500_000))
    (source / "copy").write_bytes((source / "d" / "large").read_bytes())
    (source / "text").write_bytes(b"again and again " * 20_000)
    for number in range(60):
        (source / "d" / "deep" / f"{number}").write_bytes(noise.randbytes(noise.randrange(9000)))
    with (source / "sparse").open("wb") as file:
        for offset in (100_000, 900_000):
            file.seek(offset)
            file.write(noise.randbytes(90_000))
        file.truncate(1_500_000)
    (source / "empty").write_bytes(b"")
    (source / "secret").write_bytes(b"secret")
    (source / "secret").chmod(0o400)
    os.link(source / "text", source / "zz-hard")
    (source / "sym").symlink_to("d/large")
    for number, path in enumerate(sorted(source.rglob("*"))):
        os.utime(path, ns=(MTIME + number, MTIME + number), follow_symlinks=False)
    (source / "d" / "deep").chmod(0o555)
    return source


@pytest.fixture
def packed(filled: Path, snapshot: Path) -> Path:
    pack([str(filled)], str(snapshot), PackOptions(chunk_size=CHUNK))
    return snapshot


def run(
    snapshot: Path, target: Path, log: Path, before: Callable[[], object] = lambda: None, **options: Any
) -> RestoreResult:
    source = CountingSource(snapshot, log, before)
    try:
        return restore(source, str(target), RestoreOptions(**{"sync": False, "jobs": JOBS} | options))
    finally:
        source.close()


def after(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Calls `act` from the `number`th call on."""
    calls = [0]

    def call() -> None:
        calls[0] += 1
        if calls[0] >= number:
            act()

    return call


def lose_link() -> None:
    raise NetworkError("the link gave up")


def interrupt(snapshot: Path, target: Path, log: Path, number: int = 2 * (JOBS + 1) + 1, **options: Any) -> None:
    """Ends a restore when it asks for the `number`th chunk; by default, for the first chunk that waits for a used
    buffer, so that a chunk must have been written before."""
    with pytest.raises(NetworkError):
        run(snapshot, target, log, after(number, lose_link), **options)
    assert (target / NAMES[0]).exists()


def kill_at(number: int, die: Callable[[], None]) -> Callable[[], None]:
    """Lets the `number`th change to a file system, or read of a chunk, kill this process; returns the hook for reads."""
    reached = after(number, die)

    def hook(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            reached()
            return original(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, hook(getattr(os, name)))
    return reached


def in_flight(snapshot: Path, interruptions: int) -> int:
    """The most encoded bytes that can be fetched but not written when a restore dies, summed over interruptions."""
    chunks = chunks_of(snapshot)
    largest_chunk = max(chunk.size_original for chunk in chunks)
    pairs = ChunkRoom.of_machine(0, largest_chunk, others=writer_count(JOBS) - 1).chunks(JOBS)
    largest = sorted((chunk.size_compressed for chunk in chunks), reverse=True)
    return interruptions * sum(
        largest[: 2 * pairs]
    )  # a chunk has one of the pairs' buffers, or two while it is decoded


def needed(snapshot: Path) -> int:
    return sum(chunk.size_compressed for chunk in chunks_of(snapshot))


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_kill_at_a_random_moment_and_the_same_command_goes_on(
    seed: int, packed: Path, filled: Path, target: Path, log: Path
) -> None:
    # There are ten more; the last of them set the target's own time and mode.
    moment = random.Random(seed).randrange(1, 100)

    def work(die: Callable[[], None]) -> None:
        run(packed, target, log, kill_at(moment, die))

    assert killed(work)
    if (target / NAMES[0]).exists() or not (target / "sym").exists():  # else the run was killed after its last step
        run(packed, target, log)
    assert_same_tree(filled, target)
    assert sum(fetched(log)) <= needed(packed) + in_flight(packed, 1)


def test_kill_again_and_again_and_it_ends(packed: Path, filled: Path, target: Path, log: Path) -> None:
    """Each run gets a little further than the run before; no run begins from the start."""
    kills = 0

    def work(die: Callable[[], None]) -> None:
        run(packed, target, log, after(6, die))

    while killed(work):
        kills += 1
    assert kills > 2
    assert_same_tree(filled, target)
    assert sum(fetched(log)) <= needed(packed) + in_flight(packed, kills)


@pytest.mark.parametrize("overwrite", ["always", "if-changed", "never"])
def test_kill_at_any_moment_into_a_target_that_is_not_empty(overwrite: str, tmp_path: Path) -> None:
    data, log = small_archive().write(tmp_path / "x.dumont"), tmp_path / "log"

    def make(name: str) -> Path:
        target = tmp_path / name
        (target / "d").mkdir(parents=True)
        (target / "d" / "raw").write_bytes(b"my own")
        (target / "mine").write_bytes(b"mine, too")
        return target

    run(data, make("good"), log, overwrite=overwrite)
    expected = tree(tmp_path / "good")
    number = 0
    while True:
        number += 1
        target = make(f"{number}")

        def work(die: Callable[[], None], number: int = number, target: Path = target) -> None:
            run(data, target, log, kill_at(number, die), overwrite=overwrite)

        died = killed(work)
        if died:
            assert tree(target)["d/raw"][1] in (b"my own", expected["d/raw"][1])
            run(data, target, log, overwrite=overwrite)
        assert tree(target) == expected
        assert not [path for path in target.rglob("*") if stat.S_IMODE(path.lstat().st_mode) == UNFINISHED_MODE]
        if not died:
            break
    assert number > 15


def test_kill_in_the_middle_of_small_files_written_in_one_call(
    packed: Path, filled: Path, target: Path, log: Path
) -> None:
    """Some files are complete, the others cut or empty, as after a kill inside the kernel that writes them."""
    run(packed, target, log)
    make_unfinished(packed, target, log)
    (target / "d" / "deep").chmod(0o700)
    for name, size in (("1", 0), ("2", 100)):
        path = target / "d" / "deep" / name
        path.chmod(UNFINISHED_MODE)
        os.truncate(path, size)
    (target / "d" / "deep" / "3").unlink()
    result = run(packed, target, log)
    assert result.resumed_chunks >= result.num_chunks - 3
    assert_same_tree(filled, target)


def make_unfinished(snapshot: Path, target: Path, log: Path, **options: Any) -> None:
    """Turns a complete restore into a restore that was killed just before its end."""
    journal = target.with_name("other") / NAMES[0]
    interrupt(snapshot, journal.parent, log, number=1, **options)
    (target / NAMES[0]).write_bytes(journal.read_bytes())
    (target / NAMES[0]).chmod(UNFINISHED_MODE)
    log.unlink(missing_ok=True)


def test_signal_and_the_same_command_line_goes_on(packed: Path, filled: Path, target: Path, log: Path) -> None:
    interrupt(packed, target, log)
    ran = command("restore", packed, target, "--json")
    assert ran.code == 0
    summary = json.loads(ran.out.splitlines()[-1])
    assert summary["resumed"] is True
    assert 0 < summary["resumed_chunks"] < summary["num_chunks"]
    assert 0 < summary["fetched_size"] < summary["compressed_size"]
    assert_same_tree(filled, target)


# --- bytes in the target are not fetched again ------------------------------------------------------------------------


def test_nothing_is_fetched_when_everything_is_there(packed: Path, filled: Path, target: Path, log: Path) -> None:
    run(packed, target, log)
    make_unfinished(packed, target, log)
    result = run(packed, target, log)
    assert (result.resumed, result.fetched_size, fetched(log)) == (True, 0, [])
    assert result.resumed_chunks == result.num_chunks > 10
    assert_same_tree(filled, target)


def test_finished_chunks_are_not_fetched_again(packed: Path, filled: Path, target: Path, log: Path) -> None:
    interrupt(packed, target, log, number=12)
    before = fetched(log)
    result = run(packed, target, log)
    assert result.fetched_size == sum(fetched(log)) - sum(before)
    assert sum(fetched(log)) <= needed(packed) + in_flight(packed, 1)
    assert result.compressed_size == needed(packed)
    assert_same_tree(filled, target)


def test_first_run_is_not_called_a_resumed_one(packed: Path, target: Path, log: Path) -> None:
    result = run(packed, target, log)
    assert (result.resumed, result.resumed_chunks, result.fetched_size) == (False, 0, result.compressed_size)
    assert NAMES[0] not in os.listdir(target)


# --- changes between the runs -----------------------------------------------------------------------------------------


def test_emptied_target_is_filled_again(packed: Path, filled: Path, target: Path, log: Path) -> None:
    interrupt(packed, target, log)
    for path in sorted(target.rglob("*"), reverse=True):
        if path.name != NAMES[0]:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    result = run(packed, target, log)
    assert (result.resumed, result.resumed_chunks) == (True, 0)
    assert_same_tree(filled, target)


def test_what_a_power_loss_took_is_written_again(packed: Path, filled: Path, target: Path, log: Path) -> None:
    """Names, sizes, modes and times are on the disk, bytes are not."""
    run(packed, target, log)
    make_unfinished(packed, target, log)
    for name in ("d/large", "text", "d/deep/7", "d/deep/8"):
        path = target / name
        status = path.stat()
        os.truncate(path, 0)
        if name != "d/deep/8":
            os.truncate(path, status.st_size)
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert run(packed, target, log).resumed_chunks > 0
    assert_same_tree(filled, target)


@pytest.mark.parametrize("name", ["d/large", "text", "d/deep/7", "sym"])
def test_what_somebody_changed_is_not_lost(name: str, packed: Path, filled: Path, target: Path, log: Path) -> None:
    run(packed, target, log)
    make_unfinished(packed, target, log)
    path = target / name
    path.parent.chmod(0o700)
    path.unlink()
    path.write_bytes(b"my own work")
    message = clear_error(lambda: run(packed, target, log), UsageError)
    assert str(path) in message
    assert path.read_bytes() == b"my own work"
    run(packed, target, log, overwrite="never")
    assert path.read_bytes() == b"my own work"
    make_unfinished(packed, target, log, overwrite="always")
    run(packed, target, log, overwrite="always")
    assert_same_tree(filled, target)


def test_touched_file_is_no_change(packed: Path, filled: Path, target: Path, log: Path) -> None:
    run(packed, target, log)
    make_unfinished(packed, target, log)
    os.utime(target / "text")
    (target / "d" / "large").chmod(0o600)
    run(packed, target, log)
    assert_same_tree(filled, target)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "directory"])
def test_what_somebody_put_in_place_of_a_file_is_not_written_through(
    kind: str, packed: Path, target: Path, log: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"do not touch")
    os.truncate(precious, 500_000)  # as long as the entry, with the mark of an unfinished file
    precious.chmod(UNFINISHED_MODE)
    before = precious.read_bytes()
    for overwrite in ("refuse", "always"):
        place = tmp_path / overwrite / "d" / "large"
        interrupt(packed, place.parent.parent, log)
        place.unlink(missing_ok=True)
        if kind == "symlink":
            place.symlink_to(precious)
        elif kind == "hard link":
            os.link(precious, place)
        elif kind == "fifo":
            os.mkfifo(place, UNFINISHED_MODE)
        else:
            place.mkdir()
        try:
            run(packed, place.parent.parent, log, overwrite=overwrite)
        except DumontError as error:
            assert str(place) in str(error)
        else:
            assert overwrite == "always" and kind != "directory"
        assert precious.read_bytes() == before


def test_damaged_chunk_is_reported_and_the_rest_is_not_fetched_again(
    packed: Path, filled: Path, target: Path, log: Path
) -> None:
    good = packed.read_bytes()
    last = max(chunks_of(packed), key=lambda chunk: chunk.offset)
    bad = bytearray(good)
    bad[last.offset] ^= 1
    packed.write_bytes(bad)
    with pytest.raises(DamagedError):
        run(packed, target, log)
    packed.write_bytes(good)
    assert run(packed, target, log).resumed
    assert_same_tree(filled, target)


# --- another restore --------------------------------------------------------------------------------------------------


def test_leftovers_of_another_snapshot_are_refused(
    packed: Path, filled: Path, target: Path, log: Path, tmp_path: Path
) -> None:
    other = small_archive().write(tmp_path / "x.dumont")
    interrupt(packed, target, log)
    before = tree(target)
    for overwrite in ("refuse", "if-changed", "never"):
        message = clear_error(lambda overwrite=overwrite: run(other, target, log, overwrite=overwrite), UsageError)
        assert "unfinished restore of sha256:" in message
        assert "--overwrite always" in message
    assert tree(target) == before
    assert command("restore", other, target).code == 2
    run(other, target, log, overwrite="always")
    assert NAMES[0] not in os.listdir(target)


@pytest.mark.parametrize(
    "other", [{"include": ["text"]}, {"exclude": ["*.tmp"]}, {"preserve_special": True}, {"owner": True}]
)
def test_leftovers_of_another_selection_are_refused(
    other: dict[str, Any], packed: Path, target: Path, log: Path
) -> None:
    interrupt(packed, target, log)
    assert "other options" in clear_error(lambda: run(packed, target, log, **other), UsageError)
    run(packed, target, log, overwrite="always", **other)


def test_selection_goes_on_whatever_the_order_of_its_patterns(packed: Path, target: Path, log: Path) -> None:
    interrupt(packed, target, log, number=3, include=["d/**", "sparse"])
    assert run(packed, target, log, include=["sparse", "d/**"]).resumed


def test_other_policy_over_what_was_there_is_refused(packed: Path, target: Path, log: Path) -> None:
    target.mkdir()
    (target / "text").write_bytes(b"my own")
    interrupt(packed, target, log, overwrite="never")
    for overwrite in ("refuse", "if-changed"):
        clear_error(lambda overwrite=overwrite: run(packed, target, log, overwrite=overwrite), UsageError)
    result = run(packed, target, log, overwrite="never")
    assert (result.resumed, result.kept) == (True, 1)
    assert (target / "text").read_bytes() == b"my own"


def test_second_restore_into_the_same_target_is_refused(packed: Path, filled: Path, target: Path, log: Path) -> None:
    seen = []

    def second() -> None:
        if not seen:
            seen.append(command("restore", packed, target))

    run(packed, target, log, second)
    assert seen[0].code == 1
    assert "another" in seen[0].error
    assert_same_tree(filled, target)


# --- the journal's name -----------------------------------------------------------------------------------------------


def test_entry_with_the_name_of_a_journal_comes_back(source: Path, snapshot: Path, target: Path, log: Path) -> None:
    (source / NAMES[0]).write_bytes(b"looks like a journal" * 10_000)
    (source / NAMES[1]).mkdir()
    (source / "f").write_bytes(random.Random(1).randbytes(3 * CHUNK))
    pack([str(source)], str(snapshot), PackOptions(chunk_size=CHUNK))
    with pytest.raises(NetworkError):
        run(snapshot, target, log, after(2, lose_link))
    assert (target / NAMES[2]).exists()
    assert run(snapshot, target, log).resumed
    assert_same_tree(source, target)


def test_journal_that_a_snapshot_brings_is_not_believed(packed: Path, tmp_path: Path, target: Path, log: Path) -> None:
    """Otherwise the snapshot's author could have files in the target overwritten."""
    interrupt(packed, tmp_path / "begun", log)
    bait, baited = tmp_path / "bait", tmp_path / "bait.dumont"
    bait.mkdir()
    (bait / NAMES[0]).write_bytes((tmp_path / "begun" / NAMES[0]).read_bytes())
    (bait / NAMES[0]).chmod(UNFINISHED_MODE)
    pack([str(bait)], str(baited))
    run(baited, target, log)
    (target / "text").write_bytes(b"my own")
    assert "is not empty" in clear_error(lambda: run(packed, target, log), UsageError)
    assert (target / "text").read_bytes() == b"my own"
