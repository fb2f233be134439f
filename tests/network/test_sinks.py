"""One suite for every kind of sink: writing a snapshot behaves the same at every destination."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.places import SINKS, SinkPlace, Where

from dumont_gpu.disk.outputs import identity
from dumont_gpu.errors import NO_ROOM, DumontError, UsageError
from dumont_gpu.sizes import MiB
from dumont_gpu.storage import NetworkOptions, Sink, check_place, open_sink

PART = 8 * MiB  # of an upload
MAGIC = b"DUMONT02"  # other content would not be replaced unasked
LARGE = MAGIC + random.Random(1).randbytes(2 * PART + 12_345)
SMALL = LARGE[:100_000]
HEAD = 4096


@pytest.fixture(params=SINKS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SinkPlace]:
    made = SINKS[request.param].place(Where(request, tmp_path, monkeypatch))
    opened: list[Sink] = []

    def open_one() -> Sink:
        opened.append(made.open())
        return opened[-1]

    yield replace(made, open=open_one)
    for sink in opened:  # a failing test leaves no thread, for which the program would wait
        sink.abort()


def known(content: bytes | None) -> tuple[int, str] | None:
    """Size and digest, which pytest compares and shows at once."""
    return None if content is None else (len(content), hashlib.sha256(content).hexdigest())


def there(place: SinkPlace) -> tuple[int, str] | None:
    return known(place.read())


def write(sink: Sink, content: bytes, *, size: int = MiB) -> None:
    """Writes as a pack does: in order, the head last."""
    if sink.parts is not None:
        sink.parts.fit(len(content))
    for start in range(HEAD, len(content), size):
        sink.write_at(start, memoryview(content)[start : start + size])
    sink.write_at(0, memoryview(content)[:HEAD])


def store(place: SinkPlace, content: bytes) -> None:
    sink = place.open()
    write(sink, content)
    sink.commit(len(content))
    sink.abort()  # as in a `finally`: no effect any more


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dumont")]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_snapshot_is_there_complete_once_it_is_committed(content: bytes, place: SinkPlace) -> None:
    sink = place.open()
    assert sink.location == place.location
    write(sink, content)
    assert there(place) is None
    sink.commit(len(content))
    assert there(place) == known(content)
    sink.abort()
    assert there(place) == known(content)
    assert place.leftovers() == threads() == []


def test_bytes_that_are_never_written_are_zeros(place: SinkPlace) -> None:
    sink = place.open()
    sink.write_at(HEAD, memoryview(SMALL))
    sink.write_at(HEAD + len(SMALL) + 30, memoryview(SMALL))
    sink.write_at(0, memoryview(SMALL)[:512])
    sink.commit(HEAD + 2 * len(SMALL) + 50)
    assert there(place) == known(SMALL[:512] + bytes(HEAD - 512) + SMALL + bytes(30) + SMALL + bytes(20))


def test_an_empty_snapshot_is_an_empty_file(place: SinkPlace) -> None:
    place.open().commit(0)
    assert there(place) == known(b"")
    store(place, SMALL)  # an empty file may be replaced
    assert there(place) == known(SMALL)


@pytest.mark.parametrize("workers", [1, 8])
def test_without_parts_writes_come_in_any_order_from_any_thread(workers: int, place: SinkPlace) -> None:
    sink = place.open()
    if sink.parts is not None:
        sink.abort()
        pytest.skip("this sink has parts")
    starts = list(range(0, len(LARGE), 300_000))
    random.Random(2).shuffle(starts)

    def work(number: int) -> None:
        for start in starts[number::workers]:
            sink.write_at(start, memoryview(LARGE)[start : start + 300_000])

    running = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    sink.commit(len(LARGE))
    assert there(place) == known(LARGE)


def test_a_write_before_the_last_one_is_a_defect_where_there_are_parts(place: SinkPlace) -> None:
    sink = place.open()
    if sink.parts is None:
        sink.abort()
        pytest.skip("this sink has no parts")
    write(sink, LARGE)
    with pytest.raises(DumontError, match="written twice"):
        sink.write_at(2 * PART, memoryview(b"again"))
    sink.abort()
    assert place.leftovers() == threads() == []


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["nothing", "small", "large"])
@pytest.mark.parametrize("former", [None, SMALL + b"former"], ids=["new", "former"])
def test_an_abort_leaves_what_was_there(former: bytes | None, content: bytes, place: SinkPlace) -> None:
    if former is not None:
        store(place, former)
    sink = place.open()
    if content:
        write(sink, content)
    sink.abort()
    assert there(place) == known(former)
    assert place.leftovers() == threads() == []
    sink.abort()


def test_a_former_snapshot_stays_until_the_new_one_is_committed(place: SinkPlace) -> None:
    store(place, LARGE)
    sink = place.open()
    write(sink, SMALL)
    assert there(place) == known(LARGE)
    sink.commit(len(SMALL))
    assert there(place) == known(SMALL)
    assert place.leftovers() == []


def test_what_is_no_snapshot_is_not_replaced_unasked(place: SinkPlace) -> None:
    if place.put is None:
        pytest.skip("nothing else comes to this place")
    place.put(b"precious")
    with pytest.raises(UsageError, match="is no snapshot"):
        place.open()
    assert there(place) == known(b"precious")
    sink = open_sink(place.location, force=True)
    write(sink, SMALL)
    sink.commit(len(SMALL))
    assert there(place) == known(SMALL)


def test_a_check_of_the_place_obeys_the_same_rule_and_writes_nothing(place: SinkPlace, tmp_path: Path) -> None:
    """What `pack` asks first, and `pack -n` alone."""
    if place.put is None:
        pytest.skip("no other program can write here")
    (tmp_path / "source").mkdir()
    sources, network = [str(tmp_path / "source")], NetworkOptions()
    check_place(place.location, sources, network=network)
    assert there(place) is None
    assert place.leftovers() == []
    place.put(b"somebody's letter")
    with pytest.raises(UsageError, match="no snapshot"):
        check_place(place.location, sources, network=network)
    check_place(place.location, sources, force=True, network=network)
    if place.path is not None:  # a source on this machine is never replaced
        with pytest.raises(UsageError):
            check_place(place.location, [str(place.path)], force=True, network=network)
    assert there(place) == known(b"somebody's letter")


@pytest.mark.parametrize("end", ["commit", "abort", "cancel"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_nothing_is_written_after_the_end(content: bytes, end: str, place: SinkPlace) -> None:
    sink = place.open()
    write(sink, content)
    ending = {"commit": lambda: sink.commit(len(content)), "abort": sink.abort, "cancel": sink.cancel}
    ending[end]()
    with pytest.raises(DumontError):
        for start in range(len(content), 10 * PART, PART):  # more bytes than wait in memory
            sink.write_at(start, memoryview(bytes(PART)))
    with pytest.raises(DumontError):
        sink.commit(len(content))
    sink.abort()
    assert there(place) == known(content if end == "commit" else None)
    assert place.leftovers() == threads() == []


def test_a_sink_that_was_cancelled_before_any_write_takes_none(place: SinkPlace) -> None:
    sink = place.open()
    sink.cancel()
    with pytest.raises(DumontError):
        write(sink, LARGE)
        sink.commit(len(LARGE))
    sink.abort()
    assert there(place) is None
    assert place.leftovers() == threads() == []


def test_a_place_without_room_is_an_error_and_left_as_it_was(place: SinkPlace) -> None:
    if place.no_room is None:
        pytest.skip("this place cannot be filled up in a test")
    store(place, SMALL)
    sink = place.open()
    with place.no_room(), pytest.raises(OSError) as caught:
        write(sink, LARGE)
    assert caught.value.errno in NO_ROOM
    sink.abort(caught.value)
    assert there(place) == known(SMALL)
    assert place.leftovers() == []


def test_the_files_of_a_snapshot_are_known_and_nothing_is_to_be_said(place: SinkPlace) -> None:
    store(place, SMALL)
    sink = place.open()
    paths = [place.path, *map(place.path.with_name, place.leftovers())] if place.path else []
    assert sink.files == {identity(os.stat(path)) for path in paths}
    assert sink.notes == ()
    sink.abort()
