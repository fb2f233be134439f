"""The GPU benchmark where there is no GPU: its batches on the emulated device, its report from made-up figures."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.cupy_double import cupy_on, loading_device
from support.devices import emulated_device
from support.hostile import float_bytes
from support.snapshots import GOLDEN, ROOT

from dumont_gpu import native
from dumont_gpu.backends import requirements
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.bench.measure.gpu import (
    binding,
    copies,
    encode,
    job_session,
    kernels,
    load_check,
    load_peers,
    loads,
    nvcomp,
    packs,
    peers,
    restores,
    sanitize,
    session,
    smoke,
    timer,
    variants,
)
from dumont_gpu.bench.measure.gpu.frames import ResidentFrames, text
from dumont_gpu.bench.measure.gpu.resident_decode import resident
from dumont_gpu.bench.measure.gpu.variant_table import AS_WRITTEN, KERNEL, VARIANTS
from dumont_gpu.bench.report import check, steps
from dumont_gpu.bench.report.record import merge
from dumont_gpu.bench.report.targets import verdicts
from dumont_gpu.bench.report.text import markdown
from dumont_gpu.codecs import ZipNN
from dumont_gpu.errors import DamagedError
from dumont_gpu.format.digests import digest_function
from dumont_gpu.loading import device_decoder, load_slots, on_device
from dumont_gpu.native import Dtype

MiB = 1 << 20
CHECK = ROOT / "bench" / "gpu_check.sh"


def stored_bf16(size: int) -> tuple[memoryview, memoryview]:
    """Weights, and the ZipNN stream of them."""
    data = memoryview(float_bytes(size // 16) * 8)
    out = memoryview(bytearray(2 * size))
    return data, out[: native.zipnn_encode(data, out, Dtype.BF16, 16)]


@pytest.mark.parametrize(("first", "count"), [(0, 1), (2, 1), (1, 2), (0, 3)])
def test_batch_decodes_its_own_chunks_and_says_when_they_are_wrong(first: int, count: int) -> None:
    device = emulated_device()
    data, stored = stored_bf16(MiB)
    digest = digest_function("blake3")
    with resident(device, device.new_stream(), stored, len(data), 3) as chunks:
        batch = chunks.batch(first, count)
        assert batch.launches[0].grid == count * MiB // 65536
        assert chunks.check(batch, digest(data))
        assert not chunks.check(batch, digest(stored))
    device.close()


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0])
def test_frames_in_device_memory_decode(noise: float) -> None:
    device = emulated_device()
    content = text(4 * MiB, noise)
    frames = ResidentFrames(device, device.new_stream(), content, 2)
    assert frames.check(content)
    assert frames.compressed_bytes == (1 - noise) * 2 * len(content)
    frames.close()
    device.close()


@pytest.mark.parametrize("what", ["good", "ours", "all"])
def test_what_the_sanitizers_watch_agrees_with_the_cpu(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = emulated_device()
    monkeypatch.setattr(sanitize, "open_device", lambda number: device)
    monkeypatch.setattr(sanitize, "DAMAGES", 1)
    monkeypatch.setattr("sys.argv", ["sanitize.py", what, str(GOLDEN / "streams")])
    assert sanitize.main() == 0
    assert set(KERNELS) <= set(device.launches)
    assert {"lz4", "lz4 encode"} & set(device.launches) == ({"lz4", "lz4 encode"} if what == "all" else set())
    assert (" 0 found damaged" in capsys.readouterr().out) == (what == "good")


def by_the_clock(stream: object, runs: Sequence[Callable[[], object]], repeats: int, inner: int) -> list[float]:
    seconds = []
    for number in range(repeats):
        start = time.perf_counter()
        runs[number % len(runs)]()
        seconds.append(time.perf_counter() - start)
    return seconds


def measured(module: Any, monkeypatch: pytest.MonkeyPatch, output: Path, **faults: Any) -> tuple[dict[str, Any], int]:
    """A whole quick run of a benchmark on the emulated device, without CuPy's own parts; and its exit code."""
    capability = faults.pop("capability", "")
    device: Any = emulated_device(**faults)
    device.capability = capability
    new_stream = device.new_stream

    def stream_for_cupy() -> Any:
        stream: Any = new_stream()
        stream.cupy_stream = None
        return stream

    monkeypatch.setattr(device, "new_stream", stream_for_cupy)
    monkeypatch.setattr(session, "open_device", lambda number: device)
    monkeypatch.setattr(module, "device_seconds", by_the_clock)
    monkeypatch.setattr(module, "side_by_side", lambda stream, others: nullcontext(), raising=False)
    bench = module.Bench(0, replace(module.EXTENTS["quick"], chunk=1 * MiB), output)
    bench.run()
    code = bench.finish()
    assert json.loads(output.read_text(encoding="utf-8")) == bench.results
    return bench.results, code


def test_kernels_are_measured_and_checked_and_a_failure_costs_only_its_own_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, code = measured(kernels, monkeypatch, tmp_path / "kernels.json")
    assert code == 1
    assert [row["batch"] for row in results["zipnn"]] == [1, 4]
    assert all(row["verified"] for row in results["zipnn"] + results["lz4"] + results["blake3"])
    assert [row["batch"] for row in results["blake3"]] == 2 * [1, 4]
    assert [row["kind"] for row in results["lz4"]] == ["text", "text, a quarter noise"]
    assert {problem.split(":")[0] for problem in results["problems"]} == {
        "occupancy", "bf16, most shared memory", "nvCOMP, bf16",
    }  # fmt: skip


def test_variants_are_timed_with_the_kernel_as_written_before_and_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compiled(device: Any, stream: Any, values: dict[str, int]) -> Any:
        if "DUMONT_DECODE_CTAS" in values:
            raise RuntimeError("ptxas says no")
        return lambda grid, block, shared, arguments: stream.launch(KERNEL, grid, block, shared, arguments)

    monkeypatch.setattr(variants, "compiled", compiled)
    monkeypatch.setattr(variants, "EXTENTS", {"quick": session.Extent(0, 1, (1, 2), ())})
    results, code = measured(variants, monkeypatch, tmp_path / "variants.json", capability="9.0")
    assert (results["capability"], code) == ("9.0", 1)
    assert [problem.split(": Runtime")[0] for problem in results["problems"]] == [
        f"compiling: {name}" for name, values in VARIANTS.items() if "DUMONT_DECODE_CTAS" in values
    ]
    rows = [row for row in results["variants"] if (row["kind"], row["batch"]) == ("bf16", 2)]
    names = [name for name, values in VARIANTS.items() if "DUMONT_DECODE_CTAS" not in values]
    assert [row["variant"] for row in rows] == [*names, AS_WRITTEN]
    assert all(row["verified"] for row in results["variants"])
    assert {row["kind"] for row in results["variants"]} == {"bf16", "fp16"}


def test_only_the_decode_kernel_is_replaced() -> None:
    seen: list[tuple[int, ...]] = []
    stream = variants.ChosenStream(SimpleNamespace(launch=lambda *launch: seen.append(launch), clear="the stream's"))
    stream.choose(lambda *launch: seen.append(launch))
    stream.launch(KERNEL, 1, 2, 3, (4,))
    stream.launch("zipnn_join", 1, 2, 3, (4,))
    assert seen == [(1, 2, 3, (4,)), ("zipnn_join", 1, 2, 3, (4,))]
    assert stream.clear == "the stream's"


def test_encoding_is_measured_whole_and_in_parts_in_one_stream_and_in_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, code = measured(encode, monkeypatch, tmp_path / "encode.json")
    assert code == 1
    assert {problem.split(":")[0] for problem in results["problems"]} == {"nvCOMP, bf16"}  # CuPy is not there
    whole = [(row["batch"], row["streams"]) for row in results["zipnn"] if row["part"] == "all"]
    assert whole == [(1, 1), (4, 1), (4, 4)]
    parts = [row["part"] for row in results["zipnn"] if (row["batch"], row["streams"]) == (4, 4)]
    assert parts == ["all", "plan", "layout", "write"]
    assert [row["part"] for row in results["lz4"]] == 2 * ["all", "all", "nvcomp", "frame"]
    assert all(row["verified"] for row in results["zipnn"] + results["lz4"])


def test_encoding_that_differs_from_the_cpus_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encode.ResidentWeights, "encoded", lambda self, stream, number: memoryview(b"other"))
    results, _ = measured(encode, monkeypatch, tmp_path / "encode.json")
    assert "zipnn, bf16, batch 1: the output is wrong" in results["problems"]


def test_copies_are_measured_and_only_those_that_need_what_is_missing_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def names(results: dict[str, Any]) -> list[str]:
        return [row["name"] for row in results["copies"]]

    results, code = measured(copies, monkeypatch, tmp_path / "copies.json")
    everything = ["copy in, pageable", "copy out, pageable", "clear", "pin host memory", "copy in, pinned",
                  "copy out, pinned", "copies in and out at once, pinned, both counted"]  # fmt: skip
    assert (names(results), code) == (everything, 1)
    assert [problem.split(":")[0] for problem in results["problems"]] == ["copies within the device"]  # needs CuPy
    results, _ = measured(copies, monkeypatch, tmp_path / "copies.json", pins=1)
    assert names(results) == everything[:3]
    assert "no more host memory can be pinned" in results["problems"][-1]


def test_decoders_that_check_nothing_are_measured_only_if_asked_for() -> None:
    names = [variant.name for variant in nvcomp.ans_variants("half", "6.0.0.12")]
    assert names == ["ANS, typed", "ANS, type named"]
    assert len(nvcomp.ans_variants("half", "6.0.0.12", unchecked=True)) == 3


class DeviceArray(np.ndarray):  # type: ignore[type-arg]
    """A NumPy array with what CuPy's and the binding's have more."""

    buffer_size = property(lambda array: array.nbytes)

    def get(self) -> Any:
        return np.asarray(self)


class Batch(list[Any]):
    """What nvCOMP 6 has in place of a list."""


def fake_binding(monkeypatch: pytest.MonkeyPatch, batch: Callable[[list[Any]], Any], fault: int = 0) -> list[Any]:
    """Puts a binding in place that compresses with zlib, and a CuPy; returns the codecs' options as they come."""
    made = []

    def on_device(data: bytes) -> Any:
        return np.frombuffer(data, np.uint8).view(DeviceArray)

    class FakeCodec:
        def __init__(self, **options: Any) -> None:
            made.append(options)

        def encode(self, arrays: Any) -> Any:
            assert type(arrays) is type(batch([]))
            return batch([on_device(zlib.compress(array.tobytes())) for array in arrays])

        def decode(self, arrays: Any) -> Any:
            assert type(arrays) is type(batch([]))
            return batch([on_device(bytes(fault) + zlib.decompress(array.tobytes())[fault:]) for array in arrays])

    binding = SimpleNamespace(Codec=FakeCodec, as_arrays=lambda arrays, stream=0: batch(list(arrays)))
    monkeypatch.setitem(sys.modules, "nvidia", SimpleNamespace(nvcomp=binding))
    cuda = SimpleNamespace(runtime=SimpleNamespace(deviceSynchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(asarray=lambda array: array, cuda=cuda))
    monkeypatch.setattr(peers, "device_seconds", by_the_clock)
    return made


@pytest.mark.parametrize("batch", [list, Batch])
@pytest.mark.parametrize("encode", [False, True])
@pytest.mark.parametrize("fault", [0, 3])
def test_peers_by_the_binding_are_measured_and_checked(
    batch: Any, encode: bool, fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_binding(monkeypatch, batch, fault)
    data = memoryview(float_bytes(4096))
    stream = SimpleNamespace(ptr=7, synchronize=lambda: None)
    bench: Any = SimpleNamespace(
        stream=SimpleNamespace(cupy_stream=stream), results={"nvcomp": []}, inner=lambda count: 1,
        extent=session.Extent(len(data), 2, (1, 3), (65536,)),
    )  # fmt: skip
    resident = np.frombuffer(bytes(data) * 3, np.uint8).view(DeviceArray)
    name, options = next(iter(binding.codec_options("half", "6.0.0").items()))
    peers._by_binding(bench, "bf16", data, resident, 65536, name, options, [1, 3], encode)
    assert made == [{"cuda_stream": 7, "uncomp_chunk_size": 65536, "algorithm": "ANS", "data_type": "<f2"}]
    rows = bench.results["nvcomp"]
    assert [(row["batch"], row["size"], row["verified"]) for row in rows] == [
        (1, len(data), not fault), (3, 3 * len(data), not fault),
    ]  # fmt: skip
    assert all(len(row["seconds"]) == 2 and 0 < row["stored"] < 1 for row in rows)


def test_the_binding_names_types_as_its_version_knows_them() -> None:
    assert list(binding.codec_options("fp8", "5.1.0.21")) == ["zstd, by the binding"]
    assert binding.codec_options("fp8", "6.0.0.12")["ANS, by the binding"]["data_type"] == "|f1"


# --- the first request to a device ----------------------------------------------------------------------------------


RIGHT = load_check.LoadCheck("hybrid_v3", "cupy", "whole", 9, "", 1)


def smoke_of(
    monkeypatch: pytest.MonkeyPatch, device: Any, loads: Sequence[load_check.LoadCheck | Exception] = (RIGHT,)
) -> int:
    def check_loads(folder: Path, number: int) -> Iterator[load_check.LoadCheck]:
        for each in loads:
            if isinstance(each, Exception):
                raise each
            yield each

    monkeypatch.setattr(smoke, "open_device", lambda number: device)
    monkeypatch.setattr(smoke, "check_loads", check_loads)
    monkeypatch.setattr("sys.argv", ["smoke.py", "--size", str(2 * MiB)])
    return smoke.main()


def test_smoke_takes_every_type_and_a_frame_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = emulated_device()
    assert smoke_of(monkeypatch, device) == 0
    assert device.closed
    assert {"zipnn_decode", "zipnn_plan", "zipnn_layout", "zipnn_write", "lz4", "lz4 encode", "lz4_write"} <= set(
        device.launches
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "zipnn fp32", "zipnn fp16", "zipnn bf16", "zipnn fp8_e4m3", "zipnn fp8_e5m2", "lz4",
        "loading, hybrid_v3, cupy, whole",
    ]  # fmt: skip
    assert all(": right, decoded in " in line for line in lines[:-2])
    assert lines[-2:] == [
        "loading, hybrid_v3, cupy, whole: right",
        "cuda:0: 6 of 6 chunks of 2 MiB are right, 1 of 1 ways of loading tensors",
    ]


@pytest.mark.parametrize(
    ("fault", "said"), [(replace(RIGHT, problem="x differs"), "x differs"), (DamagedError("no"), "no")]
)
def test_smoke_names_loads_that_are_wrong(
    fault: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke_of(monkeypatch, emulated_device(), [RIGHT, fault]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith(f": WRONG: {said}")
    assert lines[-1].endswith("6 of 6 chunks of 2 MiB are right, 1 of 2 ways of loading tensors")


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_smoke_names_what_is_wrong(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = getattr(smoke.CudaBackend, way)

    def wrong(backend: Any, codec: Any, content: memoryview, out: memoryview) -> Any:
        size = right(backend, codec, content, out)
        if getattr(codec, "id", codec) == ZipNN().id:
            out[1000] ^= 1
        return size

    monkeypatch.setattr(smoke.CudaBackend, way, wrong)
    assert smoke_of(monkeypatch, emulated_device()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [": WRONG: " in line for line in lines[:-1]] == 5 * [True] + 2 * [False]
    assert lines[-1].startswith("cuda:0: 1 of 6 chunks")


def test_smoke_of_a_device_that_cannot_be_opened_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["smoke.py"])
    monkeypatch.setattr(requirements, "find_driver", lambda: requirements.Finding("NVIDIA driver", False, "no driver"))
    assert smoke.main() == 1
    assert capsys.readouterr().out == "CUDA device 0 cannot be used: no driver; --device auto goes on without one\n"


def test_smoke_goes_on_after_a_chunk_that_the_device_is_lost_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = emulated_device(lose_after=60)
    assert smoke_of(monkeypatch, device) == 1
    assert "WRONG: cuda:0: the device is lost" in capsys.readouterr().out


# --- whole jobs ---------------------------------------------------------------------------------------------------


def job_bench(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A benchmark of small jobs: the CPU runs the jobs for device 0, an emulated device runs the stages."""
    device = emulated_device()
    new_stream = device.new_stream

    def stream_for_cupy() -> Any:
        stream: Any = new_stream()
        stream.cupy_stream = None
        return stream

    run_dumont = restores.dumont

    def on_cpu(*arguments: str, folder: Path) -> dict[str, Any]:
        summary = run_dumont(*("cpu" if word == "0" else word for word in arguments), folder=folder)
        return summary | {"device": "cuda:0" if "0" in arguments else "cpu"}

    monkeypatch.setattr(device, "new_stream", stream_for_cupy)
    monkeypatch.setattr("dumont_gpu.backends.open_device", lambda number: device)
    monkeypatch.setattr(timer, "device_seconds", by_the_clock)
    monkeypatch.setattr(timer, "side_by_side", lambda stream, others: nullcontext())
    monkeypatch.setattr(module, "dumont", on_cpu)
    for each in (job_session, restores, packs, loads):
        monkeypatch.setattr(each, "PIECE", MiB)
    folders = {name: tmp_path / name for name in ("disk", "memory")}
    for folder in folders.values():
        folder.mkdir()
    options = Namespace(output=tmp_path / "jobs.json", size=2 * MiB, tree=None, extent="quick", device=0)
    return module.Bench(options, folders)


@pytest.mark.parametrize("worth", [1, 4 << 30])
def test_restores_are_compared_with_the_source_and_their_stages_measured(
    worth: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restores, "WORTH_WAKING", worth)  # bytes: `auto` wakes no device for less
    results = job_bench(restores, monkeypatch, tmp_path).run()
    assert [problem.split(":")[0] for problem in results["problems"]] == ["opening the device"]  # no device here
    assert [(row["place"], row["device"]) for row in results["jobs"]] == [
        (place, device) for place in ("memory", "disk") for device in ("0", *(["auto"] if worth == 1 else []), "cpu")
    ]
    assert all(row["identical"] and len(row["seconds"]) == 1 for row in results["jobs"])
    stages = [row["stage"] for row in results["stages"] if row["place"] == "disk"]
    assert stages == ["fetch", "check", "write", "copy in", "decode", "copy out"]
    assert json.loads((tmp_path / "jobs.json").read_text(encoding="utf-8")) == results


@pytest.mark.parametrize("place", ["waiting", "in a destructor"])
def test_gigabytes_are_deleted_when_a_time_limit_ends_a_benchmark(place: str, tmp_path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from dumont_gpu.bench.measure.gpu.job_session import work_folders

        class Ended:
            def __del__(self):  # an exception here is ignored
                os.kill(os.getpid(), signal.SIGTERM)

        with work_folders(Path(sys.argv[1]), Path(sys.argv[1])) as folders:
            for folder in folders.values():
                (folder / "source").mkdir()
            print(len(list(Path(sys.argv[1]).iterdir())), flush=True)
            if sys.argv[2] == "in a destructor":
                Ended()
            sys.stdin.read()
    """
    line = [sys.executable, "-c", code, str(tmp_path), place]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"2\n"
        if place == "waiting":
            process.terminate()
        assert process.wait(timeout=30) == 143
    assert list(tmp_path.iterdir()) == []


def test_only_a_disk_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = job_bench(restores, monkeypatch, tmp_path)
    synced: list[str] = []
    monkeypatch.setattr(job_session.os, "sync", lambda: synced.append("sync"))
    bench.settle("memory")
    assert synced == []
    bench.settle("disk")
    assert synced == ["sync"]


def test_packs_are_compared_with_the_cpus_and_their_stages_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = job_bench(packs, monkeypatch, tmp_path).run()
    assert results["problems"] == []
    assert all(row["verified"] and len(row["seconds"]) == 1 for row in results["packs"])
    ways = [(row["device"], row["paranoid"], row["memory"]) for row in results["packs"] if row["place"] == "memory"]
    assert ways[:6] == [("0", False, ""), ("cpu", False, ""), ("0", True, ""), ("cpu", True, ""),
                        ("0", False, "2GiB"), ("cpu", False, "2GiB")]  # fmt: skip
    assert {codec for row in results["packs"] for codec in row["codecs"]} >= {"zipnn", "lz4"}
    stages = [row["stage"] for row in results["stages"] if row["place"] == "disk"]
    assert stages == ["read", "digests", "write", "copy in", "encode", "copy out"]


# --- loads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loads of small tensors to an emulated device of their own, with a stand-in for CuPy's arrays."""
    emulated_device()  # or the test is skipped
    device = loading_device()
    cupy = cupy_on(device)
    monkeypatch.setattr(on_device, "open_device", lambda number, **needs: device)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(load_check, "LARGE_TENSOR", 128 << 10)
    monkeypatch.setattr(load_check, "CHECK_CHUNK", 256 << 10)
    monkeypatch.setattr(load_check, "METHODS", ("hybrid_v2",))
    monkeypatch.setattr(load_peers, "READ_PIECE", 300_000)  # none of the file's pieces ends with a chunk
    yield
    gc.collect()  # of arrays in the traces of errors
    cupy.get_default_memory_pool().free_all_blocks()
    assert device.free_memory() == device.memory
    assert device.pinned == {}


WAYS = ["whole", "whole, verified", "slices", "prefetch", "load_into", "a flipped bit"]


def test_loads_are_compared_with_the_file_and_with_copies_of_the_raw_bytes(
    loading: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = job_bench(loads, monkeypatch, tmp_path).run()
    assert results["problems"] == []
    assert [row["way"] for row in results["checks"]] == WAYS
    everyone = ["dumont-gpu, cupy", "dumont-gpu, cupy, opened before", "pinned memory, plain copy",
                "raw file, through pinned buffers"]  # fmt: skip
    assert [(row["place"], row["who"], row["verified"]) for row in results["loads"]] == [
        (place, who, True if who.startswith("dumont") else None) for place in ("memory", "disk") for who in everyone
    ]
    assert all(len(row["seconds"]) == 1 and row["size"] == 2 * MiB for row in results["loads"])
    stages = [row["stage"] for row in results["stages"] if row["place"] == "disk"]
    assert stages == ["fetch", "host hash", "copy in", "hash", "decode"]
    said = capsys.readouterr().err
    assert "PyTorch is not installed, or not for CUDA" in said
    assert "wanted 90% of the slower stage of the device (decode" in said
    assert "load against a plain pinned copy of the raw bytes, memory: 0." in said


@pytest.mark.parametrize("at", [0, 200_000])
def test_a_wrong_byte_on_the_device_is_found(
    at: int, loading: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content_of = load_check.content_of

    def changed(array: Any) -> bytes:
        found = bytearray(content_of(array))
        if len(found) > at:
            found[at] ^= 1
        return bytes(found)

    monkeypatch.setattr(load_check, "LARGE_TENSOR", 256 << 10)
    monkeypatch.setattr(load_check, "content_of", changed)
    whole = next(load_check.check_loads(tmp_path, 0))
    assert whole.way == "whole"
    assert f"differs from byte {at} of " in whole.problem


def test_chunks_that_the_device_leaves_to_the_cpu_are_a_problem(
    loading: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = load_slots.LoadSlot.load
    monkeypatch.setattr(load_slots.LoadSlot, "load", lambda *arguments: False)
    assert "the device called" in next(load_check.check_loads(tmp_path, 0)).problem
    monkeypatch.setattr(load_slots.LoadSlot, "load", load)
    monkeypatch.setattr(device_decoder, "WORTH_THE_TRIP", 1 << 40)
    (tmp_path / "2").mkdir()
    assert "the device decoded nothing" in next(load_check.check_loads(tmp_path / "2", 0)).problem


def test_copies_that_loads_are_compared_with_are_whole(loading: None, tmp_path: Path) -> None:
    device = emulated_device()
    content = bytes(float_bytes(MiB // 4)) * 2
    (tmp_path / "raw").write_bytes(b"header" + content)
    there = device.allocate(len(content))
    for threads in (1, 3):
        copy = load_peers.FileCopy(device, there, tmp_path / "raw", 6, len(content), threads)
        copy.run()
        out = memoryview(bytearray(len(content)))
        stream = device.new_stream()
        stream.copy_out(out, there)
        stream.synchronize()
        assert out == content
        copy.close()
    plain = load_peers.PlainCopy(device, there, len(content), 300_000)
    plain.run()
    plain.close()
    device.free(there)
    device.close()


def test_sizes_that_differ_from_the_cpus_are_a_problem() -> None:
    def row(device: str, zipnn: int, lz4: int) -> dict[str, Any]:
        return {"job": "tree", "place": "disk", "label": f"--device {device}", "device": device,
                "codecs": {"zipnn": [100, zipnn], "lz4": [100, lz4]}}  # fmt: skip

    assert packs.size_problems([row("0", 66, 41), row("cpu", 66, 40)]) == []
    assert len(packs.size_problems([row("0", 65, 43), row("cpu", 66, 40)])) == 2
    assert packs.size_problems([row("0", 65, 43)]) == []  # nothing to compare with


# --- the report -------------------------------------------------------------------------------------------------------


def kernel_row(kind: str, rate: float, **fields: Any) -> dict[str, Any]:
    size = 64 * MiB * fields.get("batch", 16)
    return {
        "kind": kind,
        "batch": 16,
        "size": size,
        "stored": 0.66,
        "seconds": [size / rate] * 3,
        "verified": True,
    } | fields


def made_up(
    zipnn: float = 1300e9, ans: float = 600e9, restore_seconds: float = 1.05, encode: float = 700e9,
    pack_seconds: float = 1.05, load_seconds: float = 0.5,
) -> dict[str, Any]:  # fmt: skip
    """Possible results of a check of an H200; rates in bytes per second."""
    kernels = {
        "chunk": 64 * MiB, "repeats": 3, "problems": [],
        "occupancy": [{"kernel": "zipnn_decode", "threads": 32, "dynamic_shared": 20624, "static_shared": 0,
                       "registers": 40, "local": 0, "ctas_per_sm": 11}],
        "zipnn": [kernel_row("bf16", zipnn, block_log2=17), kernel_row("bf16", 2 * zipnn, block_log2=16),
                  *(kernel_row(kind, share * zipnn, block_log2=17, batch=1)
                    for kind, share in (("fp32", 0.8), ("fp16", 0.7), ("fp8 e4m3", 0.5), ("bf16", 0.7)))],
        "nvcomp": [kernel_row("bf16", ans, variant="ANS, typed", block=65536),
                   kernel_row("bf16", 9 * ans, variant="ANS, type named, unchecked", block=65536),
                   kernel_row("bf16", 50e9, variant="LZ4", block=65536)],
        "lz4": [kernel_row("text", 95e9, alone_size=1000, alone_seconds=[1000 / 100e9])],
        "blake3": [kernel_row("aligned", 900e9), kernel_row("at an odd address", 400e9)],
    }  # fmt: skip
    restored = {"job": "bf16 file", "size": 4e9, "stored": 2.7e9, "identical": True, "wall": [2.0] * 3,
                "stage_seconds": [{"fetch": 0.5, "decode": 1.0}] * 3}  # fmt: skip
    jobs = {
        "repeats": 3, "opening": [0.4], "places": {"disk": "ext4", "memory": "tmpfs"}, "problems": [],
        "jobs": [restored | {"place": place, "device": device, "used": used, "seconds": [seconds] * 3}
                 for place in ("disk", "memory")
                 for device, used, seconds in (("0", "cuda:0", restore_seconds), ("cpu", "cpu", 3.0))],
        "stages": [{"place": place, "stage": stage, "size": 4e9, "seconds": [seconds]}
                   for place in ("disk", "memory") for stage, seconds in (("check", 0.3), ("write", 1.0), ("copy in", 0.5), ("copy out", 0.8))],
    }  # fmt: skip
    encoded = {
        "chunk": 64 * MiB, "repeats": 3, "problems": [],
        "zipnn": [kernel_row("bf16", encode, part="all", streams=4), kernel_row("bf16", encode / 2, part="all", streams=1),
                  *(kernel_row("bf16", 3 * encode, part=part, streams=4) for part in ("plan", "layout", "write")),
                  kernel_row("fp32", encode, part="all", streams=1, batch=1)],
        "nvcomp": [kernel_row("bf16", 100e9, variant="ANS, typed", block=65536)],
        "lz4": [kernel_row("text", 30e9, part="all", streams=4, stored_by_cpu=0.5)],
    }  # fmt: skip
    packed = {"job": "bf16 file", "size": 4e9, "stored": 2.7e9, "codecs": {"zipnn": [4e9, 2.7e9]}, "verified": True,
              "memory": "", "wall": [2.0] * 3, "stage_seconds": [{"read": 0.5, "encode": 1.0}] * 3}  # fmt: skip
    packs = {
        "repeats": 3, "places": jobs["places"], "stages": jobs["stages"], "problems": [],
        "packs": [packed | {"place": place, "device": device, "used": used, "paranoid": paranoid, "seconds": [seconds] * 3,
                            "label": f"--device {device}" + " --paranoid" * paranoid}
                  for place in ("disk", "memory")
                  for device, used, paranoid, seconds in (("0", "cuda:0", True, 2 * pack_seconds),
                                                          ("0", "cuda:0", False, pack_seconds), ("cpu", "cpu", False, 3.0))],
    }  # fmt: skip
    loaded = {
        "repeats": 2, "places": jobs["places"], "problems": [], "frameworks": ["cupy"], "stored": 0.66,
        "stages": [*jobs["stages"], *({"place": place, "stage": "decode", "size": 4e9, "seconds": [0.1]} for place in jobs["places"])],
        "checks": [{"method": "hybrid_v3", "framework": "cupy", "way": way, "tensors": 9, "problem": problem, "on_device": size}
                   for way, problem, size in (("whole", "", 3 * MiB), ("slices", "x differs", None))],
        "loads": [{"place": place, "who": who, "size": 4e9, "verified": verified, "seconds": [seconds] * 2}
                  for place in ("disk", "memory")
                  for who, verified, seconds in (("dumont-gpu, cupy", True, load_seconds),
                                                 ("dumont-gpu, cupy, opened before", True, load_seconds / 2),
                                                 ("pinned memory, plain copy", None, 0.7))],
    }  # fmt: skip
    copies = {"copies": [{"name": "copy in, pinned", "size": 50e9, "seconds": [1.0]}]}
    machine = {"date": "2026-01-01", "commit": "0123456789ab"}

    def step(data: Any = None, code: int = 0, log: Sequence[str] = ("fine",)) -> dict[str, Any]:
        return {"machine": machine, "exit_code": code, "seconds": 3, "limit": 60, "log": list(log), "data": data}

    steps = {"self_test": step(code=77, log=["there is no nvcc"]), "tests": step(code=1, log=["1 failed"]),
             "sanitizer": step(code=124), "kernels": step(kernels), "copies": step(copies), "jobs": step(jobs),
             "encode": step(encoded), "packs": step(packs), "loads": step(loaded)}  # fmt: skip
    return {
        "schema": 2,
        "made_by": "bench/gpu_check.sh",
        "device": {"name": "cuda", "detail": "NVIDIA H200"},
        "steps": steps,
    }


def met(results: dict[str, Any]) -> dict[str, bool | None]:
    return {verdict.what: verdict.met for verdict in verdicts(results)}


def test_targets_are_met_by_figures_above_them_only() -> None:
    assert list(met(made_up()).values()) == [True] * 16
    assert met(made_up(1190e9, 600e9, 1.5, 599e9, 1.4, 0.6)) == {
        "ZipNN decode of bf16, on the device": False,
        "ZipNN decode of fp32, on the device": False,
        "ZipNN decode of fp16, on the device": True,
        "ZipNN decode of fp8 e4m3, on the device": False,
        "ZipNN decode of bf16, a chunk alone": False,
        "ZipNN decode of bf16, against nvCOMP's ANS in the same run": False,
        "LZ4 frames of text, on the device": True,
        "ZipNN encode of bf16, on the device": False,
        "restore of a bf16 file, disk": False,
        "restore of a bf16 file, memory": False,
        "pack of a bf16 file, disk": False,
        "pack of a bf16 file, memory": False,
        "load of a bf16 file to the device, disk": False,
        "load against a plain pinned copy of the raw bytes, disk": False,
        "load of a bf16 file to the device, memory": False,
        "load against a plain pinned copy of the raw bytes, memory": False,
    }


def test_encoding_is_judged_as_a_whole_and_packs_without_paranoid() -> None:
    results = made_up(encode=590e9)  # the parts alone are three times as fast
    assert met(results)["ZipNN encode of bf16, on the device"] is False
    for row in results["steps"]["packs"]["data"]["packs"]:
        row["used"] = row["used"] if row["paranoid"] else "cpu"
    assert met(results)["pack of a bf16 file, memory"] is None


def test_a_target_without_figures_is_not_measured() -> None:
    results = made_up()
    for step in ("kernels", "encode"):
        results["steps"][step]["data"] = None
    results["steps"]["jobs"]["data"]["jobs"][0]["used"] = "cpu"
    results["steps"]["jobs"]["data"]["jobs"][2]["identical"] = False
    del results["steps"]["packs"]
    for row in results["steps"]["loads"]["data"]["loads"]:
        row["verified"] = False
    assert set(met(results).values()) == {None}
    other = met(made_up() | {"device": {"name": "cuda", "detail": "NVIDIA GeForce RTX 4090"}})
    asked_of_an_h200 = [what for what, answer in other.items() if answer is None]
    assert asked_of_an_h200 == [
        *(f"ZipNN decode of {kind}, on the device" for kind in ("bf16", "fp32", "fp16", "fp8 e4m3")),
        "ZipNN decode of bf16, a chunk alone", "ZipNN encode of bf16, on the device",
    ]  # fmt: skip


def test_wrong_output_meets_no_target_and_is_shown() -> None:
    results = made_up()
    results["steps"]["kernels"]["data"]["zipnn"][0]["verified"] = False
    results["steps"]["encode"]["data"]["zipnn"][0]["verified"] = False
    assert verdicts(results)[0].met is False  # by a chunk alone
    assert met(results)["ZipNN encode of bf16, on the device"] is False  # by the other measurements
    assert "WRONG OUTPUT" in markdown(results)


def test_report_shows_figures_failures_and_what_was_skipped() -> None:
    shown = markdown(made_up())
    for expected in (
        "# dumont-gpu on NVIDIA H200", "| 1300.00 (1300.00) |", "self_test was skipped: there is no nvcc", "| skipped |", "1 failed",
        "FAILED (1)", "past its limit of 60 s", "copy in, pinned | 50.00", "2.17x", "zipnn_decode, 32 threads",
        "bf16 file, disk (ext4), --device 0", "13.33 (13.33)", "## Encoding on the device", "bf16, zipnn_layout | 2100.00",
        "7.00x", "at an odd address | 400.00", "bf16 file, memory (tmpfs), --device 0 --paranoid", "| 95% |", "| +100% |", "text, all | 0.6600 | 0.5000",
        "## Loads", "hybrid_v3, cupy, slices | 9 |  | WRONG: x differs", "disk (ext4), dumont-gpu, cupy | 4000 | 8.00 (8.00) | 0.500 | 100% | 1.40x | right",
        "PyTorch was not installed", "## Loads: each stage alone",
    ):  # fmt: skip
        assert expected in shown, expected


def test_steps_are_collected_and_merged_with_those_of_earlier_runs(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "copies.status").write_text("0 3.0 90\n")
    (work / "copies.json").write_text(json.dumps(made_up()["steps"]["copies"]["data"]))
    (work / "tests.status").write_text("1 2 300\n")
    (work / "tests.log").write_text(f"a\n\nlost in {work}/x\n")
    found = steps.collect(work)
    assert found["steps"]["tests"]["log"] == ["a", "lost in WORK/x"]
    merged = merge([made_up(), found])
    assert set(merged["steps"]) == set(made_up()["steps"])
    assert merged["steps"]["tests"]["exit_code"] == 1
    written = check.publish(merged, tmp_path / "results")
    assert [path.name for path in written] == ["gpu-nvidia-h200.json", "gpu-nvidia-h200.md"]
    assert json.loads(written[0].read_text(encoding="utf-8")) == merged


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "kernels,coffee"], 2, "no step is called coffee"),
        (["--wheels"], 2, "--wheels needs a value"),
        (["--wheels", "/nowhere"], 2, "there is no folder"),
        (["--device", "zero"], 2, "--device is a number"),
        (["--budget", "5m"], 2, "--budget is a number of seconds"),
        (["--collect-wheels", "x", "--cuda", "11"], 2, "--cuda is 12 or 13"),
        (["--fast"], 2, "unknown option --fast"),
        (["-h"], 0, ""),
    ],
)
def test_command_says_what_is_wrong(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(CHECK), *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == code
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
