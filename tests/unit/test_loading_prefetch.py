"""A prefetch gives every tensor of its plan once, in any order, in bounded memory, and leaves nothing behind."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hostile import clear_error
from support.tensors import counted_reads, floats, in_thread, loading_threads, model, packed, safetensors_bytes

import dumont_gpu
from dumont_gpu.errors import DamagedError, DumontError, UsageError
from dumont_gpu.loading.host_memory import HostMemory
from dumont_gpu.loading.prefetch import Prefetch
from dumont_gpu.loading.tensor_files import TensorFiles
from dumont_gpu.sizes import KiB, MiB

SIZES = [300, 200_000, 10, 700_000, 0, 5, 400_000, 90_000, 90_000, 90_000]  # of numbers; a chunk has 262,144
ARRAYS = {f"w{number}": floats(size, seed=number) for number, size in enumerate(SIZES)}
TOTAL = sum(array.nbytes for array in ARRAYS.values())


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("prefetch")
    model(folder / "source/m.safetensors", **ARRAYS)
    np.savez_compressed(folder / "source/z.npz", **{f"z{name}": array for name, array in ARRAYS.items()})
    return packed(folder / "source", folder / "x.dumont", method="none")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("dumont"):
            thread.join(20)
    assert loading_threads() == []


class CountedMemory(HostMemory):
    """Counts the bytes of the memory that is alive."""

    def __init__(self) -> None:
        self.alive = self.most = 0
        self._lock = threading.Lock()

    def allocate(self, size: int, lead: int, *, zeros: bool) -> Any:
        memory = super().allocate(size, lead, zeros=zeros)
        self._add(size)
        weakref.finalize(memory.base, self._add, -size)
        return memory

    def _add(self, size: int) -> None:
        with self._lock:
            self.alive += size
            self.most = max(self.most, self.alive)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> CountedMemory:
    found = CountedMemory()
    monkeypatch.setattr("dumont_gpu.loading.calls.HostMemory", lambda: found)
    return found


def opened(location: str, **options: Any) -> TensorFiles:
    return dumont_gpu.open(location, "m.safetensors", **{"jobs": 2} | options)


def assert_right(name: str, array: Any) -> None:
    assert np.array_equal(ARRAYS[name.removeprefix("z")], array), name


def test_tensors_come_in_the_order_of_the_file(location: str) -> None:
    with opened(location, jobs=1) as files, files.prefetch() as ready:
        order = []
        for name in ready.names():
            assert_right(name, ready.take(name))
            order.append(name)
    assert sorted(order) == sorted(ARRAYS)
    large = [name for name in order if ARRAYS[name].nbytes > MiB]
    assert large == sorted(large)


def test_names_are_yielded_once_and_come_to_an_end(location: str) -> None:
    with opened(location) as files, files.prefetch() as ready:
        first = next(ready.names())
        rest = list(ready.names())
        assert sorted([first, *rest]) == sorted(ARRAYS)
        assert list(ready.names()) == []
        for name in ARRAYS:
            assert_right(name, ready.take(name))
        assert list(ready.names()) == []


def test_names_that_were_taken_are_not_yielded(location: str) -> None:
    with opened(location) as files, files.prefetch() as ready:
        for name in ("w6", "w0"):
            assert_right(name, ready.take(name))
        assert sorted(ready.names()) == sorted(set(ARRAYS) - {"w6", "w0"})


@pytest.mark.parametrize("limit", [0, 1, 300 * KiB, 1 << 40])
def test_any_order_is_possible(limit: int, location: str) -> None:
    for order in (list(ARRAYS), list(ARRAYS)[::-1]):
        with opened(location) as files, files.prefetch(limit=limit) as ready:
            for name in order:
                assert_right(name, ready.take(name))


def test_what_is_no_part_of_the_plan(location: str) -> None:
    with opened(location) as files, files.prefetch(["w1", "w2"]) as ready:
        assert "w3: is not in the plan" in clear_error(lambda: ready.take("w3"), UsageError)
        ready.take("w1")
        assert "taken already" in clear_error(lambda: ready.take("w1"), UsageError)


def test_an_empty_plan_is_over_at_once(location: str) -> None:
    with opened(location) as files:
        for plan in ({}, []):
            with files.prefetch(plan) as ready:
                assert list(ready.names()) == []


def test_a_plan_of_slices(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"w3": slice(300_000, 300_010), "w1": None, "w6": slice(None, None, -7), "w5": 3, "w4": slice(0, 0)}
    with opened(location) as files, counted_reads(monkeypatch) as reads, files.prefetch(plan) as ready:
        found = {name: ready.take(name) for name in ready.names()}
    for name, index in plan.items():
        assert np.array_equal(ARRAYS[name] if index is None else ARRAYS[name][index], found[name])
    assert sum(size for _, size in reads) < TOTAL - MiB


def test_arrays_that_must_be_inflated(location: str) -> None:
    with dumont_gpu.open(location, ["z.npz", "m.safetensors"]) as files, files.prefetch(limit=1) as ready:
        found = set()
        for name in ready.names():
            assert_right(name, ready.take(name))
            found.add(name)
    assert len(found) == 2 * len(ARRAYS)


def test_memory_is_bounded_while_nobody_takes(location: str, memory: CountedMemory) -> None:
    with opened(location, memory=4 * MiB) as files:
        memory.most = memory.alive
        with files.prefetch(limit=MiB) as ready:
            next(ready.names())
            for name in ARRAYS:
                array = ready.take(name)
                assert_right(name, array)
                del array
    # What is too large waits for the caller; then come, at most, the tensors that begin in the chunks on their way.
    assert memory.most <= 2_800_000 + MiB + 3 * MiB
    gc.collect()
    assert memory.alive == 0


def test_memory_of_what_was_taken_is_the_callers(location: str, memory: CountedMemory) -> None:
    with opened(location) as files, files.prefetch(limit=1 << 40) as ready:
        names = list(ready.names())
        assert memory.alive >= TOTAL
        for name in names:
            ready.take(name)
        gc.collect()
        assert memory.alive == 0


def test_nothing_is_loaded_beyond_the_limit_before_somebody_waits(location: str, memory: CountedMemory) -> None:
    with opened(location) as files:
        ready = files.prefetch(limit=MiB)
        ready._thread.join(0.5)  # a chance to do too much
        assert memory.most <= MiB
        ready.close()


def test_tied_tensors_share_their_memory(source: Path, snapshot: Path) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.randn(300, 200, generator=torch.Generator().manual_seed(1))
    torch.save({"a": weight, "b": weight, "c": weight.T, "d": weight[5:7]}, source / "m.pt")
    with dumont_gpu.open(packed(source, snapshot), "m.pt", framework="pt") as files:
        ready = files.prefetch(limit=0)
        found = {name: ready.take(name) for name in ready.names()}
    assert found["a"].data_ptr() == found["b"].data_ptr() == found["c"].data_ptr()
    assert torch.equal(weight, found["a"])
    assert torch.equal(weight.T, found["c"])
    assert torch.equal(weight[5:7], found["d"])


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1 << 40])
def test_closing_early(limit: int, location: str) -> None:
    with opened(location) as files:
        with files.prefetch(limit=limit) as ready:
            name = next(ready.names())
        for attempt in (lambda: ready.take(name), lambda: ready.take("w3"), lambda: next(ready.names())):
            assert "the prefetch was closed" in clear_error(attempt, UsageError)
        ready.close()
        assert loading_threads() == []
        assert_right("w3", files.get_tensor("w3"))


def test_closing_the_files_closes_their_prefetches(location: str) -> None:
    with opened(location) as files:
        ready = files.prefetch(limit=0)
    assert loading_threads() == []
    assert "closed" in clear_error(lambda: ready.take("w3"), UsageError)
    assert "is closed" in clear_error(files.prefetch, DumontError)


def test_closing_wakes_who_waits(location: str) -> None:
    with opened(location) as files:
        ready = files.prefetch(["w3"], limit=0)
        ready.take("w3")
        other = files.prefetch({"w1": None})
        other.take("w1")
        results = [in_thread(lambda prefetch=prefetch: list(prefetch.names())) for prefetch in (ready, other)]
        assert [result() for result in results] == [[], []]
        ready.close()


def test_a_prefetch_that_nobody_closes_is_collected(location: str) -> None:
    with opened(location) as files:
        ready: Prefetch[Any, Any] = files.prefetch(limit=0)
        gone, thread = weakref.ref(ready), ready._thread
        del ready
        gc.collect()
        thread.join(20)
        assert (gone(), thread.is_alive()) == (None, False)


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "del files, ready"])
def test_a_program_that_forgets_to_close_ends(ending: str, location: str) -> None:
    code = f"""
import dumont_gpu
files = dumont_gpu.open({location!r}, "m.safetensors")
ready = files.prefetch(limit=0)
ready.take("w1")
more = files.prefetch(limit=0)
{ending}
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_an_error_leaves_what_is_ready(location: str, tmp_path: Path) -> None:
    data = bytearray(Path(location).read_bytes())
    data[data.index(ARRAYS["w6"].tobytes()[4000:4100])] ^= 1
    (tmp_path / "x.dumont").write_bytes(data)
    with opened(str(tmp_path / "x.dumont"), jobs=1) as files, files.prefetch() as ready:
        found: list[str] = []
        with pytest.raises(DamagedError, match=r"chunk \d+: its .* do not match their digest"):
            for name in ready.names():
                found.append(name)
        assert "w6" not in found
        assert found
        for name in found:
            assert_right(name, ready.take(name))
        for _ in range(2):
            clear_error(lambda: ready.take("w6"), DamagedError)
        assert_right("w1", files.get_tensor("w1"))


def test_two_threads_share_a_prefetch(location: str) -> None:
    for limit in (0, 1 << 40):
        with opened(location) as files, files.prefetch(limit=limit) as ready:

            def work(ready: Prefetch[Any, Any] = ready) -> list[str]:
                done = []
                for name in ready.names():
                    assert_right(name, ready.take(name))
                    done.append(name)
                return done

            results = [in_thread(work), in_thread(work)]
            assert sorted(itertools.chain.from_iterable(result() for result in results)) == sorted(ARRAYS)


def test_one_of_two_threads_gets_a_tensor(location: str) -> None:
    for _ in range(10):
        with opened(location) as files, files.prefetch(limit=0) as ready:
            take: Callable[[], object] = lambda ready=ready: ready.take("w6")  # noqa: E731
            results = [result() for result in [in_thread(take), in_thread(take)]]
        assert sorted(type(result).__name__ for result in results) == ["UsageError", "ndarray"]


STEPS = st.one_of(st.just("name"), st.sampled_from(list(ARRAYS)), st.just("load"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(STEPS, max_size=25),
    other=st.lists(STEPS, max_size=12),
    limit=st.sampled_from([0, 1, 40_000, MiB, 1 << 40]),
    plan=st.sets(st.sampled_from(list(ARRAYS))),
    jobs=st.sampled_from([1, 3]),
)
def test_no_order_of_calls_waits_for_ever(
    steps: list[str], other: list[str], limit: int, plan: set[str], jobs: int, location: str
) -> None:
    with opened(location, jobs=jobs) as files, files.prefetch(sorted(plan), limit=limit) as ready:

        def work(steps: list[str]) -> set[str]:
            taken = set()
            names = ready.names()
            for step in steps:
                if step == "name":
                    assert next(names, "w0") in ARRAYS
                elif step == "load":
                    assert_right("w5", files.get_tensor("w5"))
                else:
                    try:
                        assert_right(step, ready.take(step))
                        taken.add(step)
                    except UsageError:
                        pass
            return taken

        beside = in_thread(lambda: work(other))
        taken = work(steps)
        others = beside()
        assert isinstance(others, set)
        assert not taken & others
        assert taken | others == plan & {*steps, *other}


def test_holes_need_no_chunk(source: Path, snapshot: Path) -> None:
    content = safetensors_bytes({"w": ("F32", np.zeros(4 << 20, np.float32)), "x": ("F32", floats(10))})
    with (source / "m.safetensors").open("wb") as file:
        file.write(content[:500])
        file.truncate(len(content) - 40)
        file.seek(len(content) - 40)
        file.write(content[-40:])
    with dumont_gpu.open(packed(source, snapshot), "m.safetensors") as files, files.prefetch(limit=0) as ready:
        assert not ready.take("w").any()
        assert np.array_equal(floats(10), ready.take("x"))
