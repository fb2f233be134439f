"""Loading tensors never gives out a damaged byte, takes no memory that a header merely names, and ends when it must."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hostile import Archive, clear_error
from support.servers import FaultServer, flipped, stalled, status
from support.tensors import floats, in_thread, loading_threads, model, packed

import dumont_gpu
from dumont_gpu.errors import DamagedError, DumontError, NetworkError
from dumont_gpu.sizes import MiB

ARRAYS = {f"w{number}": floats(300_000, seed=number) for number in range(8)}


@pytest.fixture
def location(source: Path, snapshot: Path) -> str:
    model(source / "m.safetensors", **ARRAYS)
    return packed(source, snapshot, method="none")


def damage(location: str, name: str) -> None:
    """Flips a bit in the middle of a tensor."""
    data = bytearray(Path(location).read_bytes())
    data[data.index(ARRAYS[name].tobytes()[600_000:600_100])] ^= 1
    Path(location).write_bytes(data)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "hybrid_v3", "lz4", "zstd"])
def test_a_flipped_bit_is_no_tensor(method: str, source: Path, snapshot: Path) -> None:
    model(source / "m.safetensors", **ARRAYS)
    location = packed(source, snapshot, method=method)
    with dumont_gpu.open(location, "m.safetensors") as files:
        chunks = files._opened.snapshot.chunks
    data = bytearray(snapshot.read_bytes())
    data[chunks[3].offset + chunks[3].size_compressed // 2] ^= 1
    snapshot.write_bytes(data)
    with dumont_gpu.open(location, "m.safetensors") as files:
        outcomes = []
        for _ in range(2):
            for name, array in ARRAYS.items():
                try:
                    assert np.array_equal(array, files.get_tensor(name))
                    outcomes.append(name)
                except DamagedError as error:
                    assert "chunk 3: " in str(error)
    assert len(set(outcomes)) >= len(ARRAYS) - 4
    assert len(outcomes) == 2 * len(set(outcomes)) < 2 * len(ARRAYS)
    targets = {name: np.zeros_like(array) for name, array in ARRAYS.items()}
    assert "chunk 3: " in clear_error(lambda: dumont_gpu.load_into(targets, location, "m.safetensors"), DamagedError)


def test_content_that_contradicts_its_digest(tmp_path: Path) -> None:
    content = model(tmp_path / "m", w=floats(1000)).read_bytes()
    archive = Archive()
    archive.file("m.safetensors", content)
    archive.entries[0]["sha256"] = ["00" * 32]
    location = str(archive.write(tmp_path / "x.dumont"))
    assert np.array_equal(
        floats(1000), dumont_gpu.load(location, "m.safetensors")["w"]
    )  # the chunk is what was written
    message = clear_error(lambda: dumont_gpu.load(location, "m.safetensors", verify=True), DamagedError)
    assert "m.safetensors: its content does not match its digest" in message
    with dumont_gpu.open_files(location) as files:
        clear_error(lambda: files.open_file("m.safetensors").read(1), DamagedError)


def test_a_transfer_that_damages_a_chunk_is_repeated(location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    with dumont_gpu.open(fault_server.url, "m.safetensors") as files:
        damaged = []

        def once(request: Any) -> Any:
            if request.end - request.start < 100_000 or damaged:
                return None
            damaged.append(request)
            return flipped(50_000)

        fault_server.script = once
        for name, array in ARRAYS.items():
            assert np.array_equal(array, files.get_tensor(name))
        assert len(damaged) == 1


def test_a_chunk_that_stays_damaged_leaves_the_others(location: str, fault_server: FaultServer) -> None:
    damage(location, "w3")
    fault_server.data = Path(location).read_bytes()
    with dumont_gpu.open(fault_server.url, "m.safetensors") as files:
        assert "chunk " in clear_error(files.get_tensors, DamagedError)
        for name in ("w0", "w7"):
            assert np.array_equal(ARRAYS[name], files.get_tensor(name))
        assert "chunk " in clear_error(lambda: files.get_tensor("w3"), DamagedError)
        with files.prefetch(["w0", "w7"]) as ready:
            assert sorted(ready.names()) == ["w0", "w7"]


# --- headers that lie -------------------------------------------------------------------------------------------------


def lying(path: Path, *, shape: list[int], end: int, size: int = 64) -> Path:
    """A safetensors file whose header says what it likes, with `size` bytes of data, perhaps a hole."""
    text = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + size)
    return path


@pytest.mark.parametrize(
    ("shape", "end"),
    [
        ([16], 1 << 40),
        ([1 << 60], 1 << 62),
        ([1 << 58], 1 << 60),
        ([1 << 62], 64),
        ([1 << 31, 1 << 31, 0], 0),
        ([17], 68),
    ],
)
def test_sizes_beyond_the_file(shape: list[int], end: int, source: Path, snapshot: Path) -> None:
    lying(source / "m.safetensors", shape=shape, end=end)
    location = packed(source, snapshot)
    with pytest.raises(DumontError, match=r"m\.safetensors: "):
        dumont_gpu.load(location, "m.safetensors")


def test_a_tebibyte_of_holes_takes_neither_memory_nor_time(source: Path, snapshot: Path) -> None:
    lying(source / "m.safetensors", shape=[1 << 20, 1 << 18], end=1 << 40, size=1 << 40)
    location = packed(source, snapshot)
    code = f"""
import resource, dumont_gpu
import numpy
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
with dumont_gpu.open({location!r}, "m.safetensors", jobs=1) as files:
    assert files.get_tensor_meta("w") == ("F32", (1 << 20, 1 << 18))
    part = files.get_slice("w")[500_000, 5:9]
    assert part.tolist() == [0, 0, 0, 0]
    part = files.get_slice("w")[1000:1100]
    assert part.shape == (100, 1 << 18) and not part[99, -5:].any()
    for act in (lambda: files.get_tensor("w"), lambda: files.get_slice("w")[:], lambda: files.prefetch().take("w")):
        try:
            act()
        except dumont_gpu.DumontError as error:
            assert "memory" in str(error), error
        else:
            raise AssertionError("a tebibyte")
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]  # ru_maxrss counts a parent's, too
assert int(peak.split()[1]) < 600 << 10, peak
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=55)
    assert (ran.returncode, ran.stderr) == (0, "")


# --- sources that change ----------------------------------------------------------------------------------------------


def test_a_snapshot_that_is_unlinked_or_replaced_meanwhile(location: str, tmp_path: Path) -> None:
    with dumont_gpu.open(location, "m.safetensors") as files:
        other = tmp_path / "other"
        other.write_bytes(b"\0" * 100)
        other.replace(location)
        assert all(np.array_equal(array, files.get_tensor(name)) for name, array in ARRAYS.items())


def test_a_snapshot_that_becomes_shorter(location: str) -> None:
    with dumont_gpu.open(location, "m.safetensors") as files:
        files.get_tensor("w0")
        os.truncate(location, 7 * MiB)
        assert "are missing" in clear_error(files.get_tensors, DamagedError)
        lost = 0
        for name, array in ARRAYS.items():
            try:
                assert np.array_equal(array, files.get_tensor(name))
            except DamagedError as error:
                assert "are missing" in str(error)
                lost += 1
        assert 0 < lost < len(ARRAYS)


def test_a_snapshot_that_becomes_another(location: str) -> None:
    with dumont_gpu.open(location, "m.safetensors") as files:
        with Path(location).open("r+b") as file:
            file.write(b"\1" * os.path.getsize(location))
        assert "do not match their digest" in clear_error(files.get_tensors, DamagedError)


def test_a_server_that_has_another_object(location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    with dumont_gpu.open(fault_server.url, "m.safetensors", patience=1) as files:
        files.get_tensor("w0")
        fault_server.etag = '"two"'
        with pytest.raises(DumontError) as caught:
            files.get_tensors()
        assert str(caught.value).isprintable()


def test_a_server_that_is_gone(location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    with dumont_gpu.open(fault_server.url, "m.safetensors", patience=0.1) as files:
        fault_server.script = lambda request: status(404)
        with pytest.raises(DumontError):
            files.get_tensors()
        fault_server.script = lambda request: None
        assert np.array_equal(ARRAYS["w5"], files.get_tensor("w5"))


# --- the end ----------------------------------------------------------------------------------------------------------


def test_what_is_closed_says_so(location: str) -> None:
    with dumont_gpu.open(location, "m.safetensors") as files:
        part = files.get_slice("w1")
    files.close()
    attempts: list[Callable[[], object]] = [
        lambda: files.get_tensor("w1"),
        lambda: files.get_tensors(),
        lambda: part[:3],
        lambda: files.prefetch(),
        lambda: files.load_into({}, strict=False),
    ]
    for attempt in attempts:
        assert "is closed" in clear_error(attempt, DumontError)
    assert files.get_tensor_meta("w1") == ("F32", (300_000,))


def test_closing_while_other_threads_load(location: str) -> None:
    for _ in range(5):
        files = dumont_gpu.open(location, "m.safetensors", jobs=2)
        results = [in_thread(files.get_tensors) for _ in range(3)]
        files.close()
        for result in results:
            found = result()
            if isinstance(found, dict):
                assert all(np.array_equal(array, found[name]) for name, array in ARRAYS.items())
            else:
                assert isinstance(found, DumontError)
                assert "is closed" in str(found)
        assert loading_threads() == []


def test_closing_does_not_wait_for_a_server_that_stalls(location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    files = dumont_gpu.open(fault_server.url, "m.safetensors")
    fault_server.script = lambda request: stalled(100)
    before = len(fault_server.requests)
    result = in_thread(files.get_tensors)
    while len(fault_server.requests) == before:
        time.sleep(0.01)
    files.close()
    assert isinstance(result(), NetworkError)
    assert loading_threads() == []


INTERRUPTED = """
import sys, threading
import dumont_gpu
files = dumont_gpu.open(sys.argv[1], "m.safetensors")
print("open", flush=True)
input()
try:
    {act}
except KeyboardInterrupt:
    print("interrupted", flush=True)
input()
try:
    files.get_tensor("w7")
    print("loaded")
except dumont_gpu.DumontError as error:
    print(error)
files.close()
threads = [thread for thread in threading.enumerate() if "dumont" in thread.name]
for thread in threads:
    thread.join(20)  # one that the signal met while it started ends at once
print([thread.name for thread in threads if thread.is_alive()])
"""


@pytest.mark.parametrize(
    ("act", "then"),
    [
        ("files.get_tensors()", "open it again"),
        ("files.get_slice('w5')[:10]", "loaded"),
        ("list(files.prefetch().names())", "loaded"),
        ("with files.prefetch() as ready: ready.take('w7')", "loaded"),
    ],
)
def test_an_interrupt_ends_a_load_from_a_server_that_stalls(
    act: str, then: str, location: str, fault_server: FaultServer
) -> None:
    fault_server.data = Path(location).read_bytes()
    command = [sys.executable, "-c", INTERRUPTED.format(act=act), fault_server.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        assert ran.stdout.readline() == "open\n"
        fault_server.script = lambda request: stalled(100)
        before = len(fault_server.requests)
        ran.stdin.write("\n")
        ran.stdin.flush()
        while len(fault_server.requests) == before:
            time.sleep(0.01)
        ran.send_signal(signal.SIGINT)
        assert ran.stdout.readline() == "interrupted\n"  # the program's patience is minutes
        fault_server.script = lambda request: None
        fault_server.released.set()
        out, error = ran.communicate("\n", timeout=25)
    said, threads = out.splitlines()
    assert (ran.returncode, error, threads) == (0, "", "[]")
    assert then in said


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "del files"])
def test_a_program_that_never_closes_a_remote_snapshot_ends(
    ending: str, location: str, fault_server: FaultServer
) -> None:
    fault_server.data = Path(location).read_bytes()
    code = f"import dumont_gpu; files = dumont_gpu.open({fault_server.url!r}, 'm.safetensors')\nfiles.get_tensors()\n{ending}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")


# --- threads, processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local", "http"])
def test_eight_threads_at_once(place: str, location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    where = location if place == "local" else fault_server.url
    with dumont_gpu.open(where, "m.safetensors", jobs=2) as files:

        def work(seed: int) -> None:
            for number in np.random.default_rng(seed).integers(0, len(ARRAYS), 12):
                name = f"w{number}"
                assert np.array_equal(ARRAYS[name], files.get_tensor(name))
                assert np.array_equal(ARRAYS[name][99:222], files.get_slice(name)[99:222])

        results = [in_thread(lambda seed=seed: work(seed)) for seed in range(8)]
        assert [result() for result in results] == [None] * 8


FORKED = """
import os, sys
import numpy
import dumont_gpu
files = dumont_gpu.open(sys.argv[1], "m.safetensors", jobs=2)
expected = files.get_tensors()
children = []
for number in range(3):
    child = os.fork()
    if not child:
        try:
            found = files.get_tensors()
            code = 0 if all(numpy.array_equal(expected[name], found[name]) for name in expected) else 1
        except BaseException:
            code = 3
        os._exit(code)
    children.append(child)
found = files.get_tensors()
assert all(numpy.array_equal(expected[name], found[name]) for name in expected)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
files.close()
"""


@pytest.mark.parametrize("place", ["local", "http"])
@pytest.mark.filterwarnings("ignore")
def test_a_fork_loads_beside_its_parent(place: str, location: str, fault_server: FaultServer) -> None:
    fault_server.data = Path(location).read_bytes()
    where = location if place == "local" else fault_server.url
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, where], capture_output=True, text=True, timeout=55
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "[0, 0, 0]\n")


HELD = """
import os, sys, threading
import dumont_gpu
files = dumont_gpu.open(sys.argv[1], "m.safetensors", jobs=2)
held, go_on = threading.Event(), threading.Event()
def hold():
    with files._loads._reading:
        held.set()
        go_on.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    os._exit(0 if len(files.get_tensors()) else 1)
go_on.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""


def test_a_child_does_not_wait_for_a_thread_of_its_parent(location: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HELD, location], capture_output=True, text=True, timeout=55
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "0\n")


WORKERS = """
import sys
from torch.utils.data import DataLoader, Dataset
import dumont_gpu
class Weights(Dataset):
    def __init__(self):
        self.files = dumont_gpu.open(sys.argv[1], "m.safetensors", framework="pt", jobs=1)
    def __len__(self):
        return len(self.files)
    def __getitem__(self, number):
        return self.files.get_slice(f"w{number}")[:10]
for batch in DataLoader(Weights(), batch_size=2, num_workers=2, multiprocessing_context="fork"):
    print(batch.tolist())
"""


def test_workers_of_a_data_loader(location: str) -> None:
    pytest.importorskip("torch.utils.data")
    ran = subprocess.run([sys.executable, "-c", WORKERS, location], capture_output=True, text=True, timeout=55)
    assert (ran.returncode, ran.stderr) == (0, "")
    expected = [[ARRAYS[f"w{number + each}"][:10].tolist() for each in range(2)] for number in range(0, 8, 2)]
    assert [json.loads(line) for line in ran.stdout.splitlines()] == expected


def test_an_open_snapshot_is_not_pickled(location: str) -> None:
    with dumont_gpu.open(location, "m.safetensors") as files, dumont_gpu.open_files(location) as opened:
        for held in (files, opened, files.get_slice("w1")):
            with pytest.raises(TypeError, match="cannot be pickled: open it in each process that reads"):
                pickle.dumps(held)
        assert pickle.loads(pickle.dumps(files.get_tensor("w1")))[5] == ARRAYS["w1"][5]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_memory_for_chunks_is_bounded(source: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dumont_gpu import buffers

    model(source / "m.safetensors", **ARRAYS)
    location = packed(source, snapshot)
    for memory in (2 * MiB, 3 * MiB, 5 * MiB, 20 * MiB):
        made: list[int] = []
        new = buffers.Buffer.__init__

        def counting(
            self: buffers.Buffer, size: int, pool: buffers.BufferPool, made: list[int] = made, new: Any = new
        ) -> None:
            made.append(size)
            new(self, size, pool)

        with monkeypatch.context() as patched:
            patched.setattr(buffers.Buffer, "__init__", counting)
            with dumont_gpu.open(location, "m.safetensors", memory=memory, jobs=6) as files:
                files.get_tensors()
                for name in ARRAYS:
                    files.get_tensor(name)
        assert sum(made) <= memory + len(made) * 4096


def test_a_tensor_that_the_machine_cannot_hold_is_an_error(location: str) -> None:
    code = """
import resource, dumont_gpu, numpy
resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))
from dumont_gpu.loading.host_memory import HostMemory
try:
    HostMemory().allocate(1 << 31, 0, zeros=False)
except dumont_gpu.DumontError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert ran.stdout == "there is no memory for 2,147,483,648 bytes\n", ran.stderr
