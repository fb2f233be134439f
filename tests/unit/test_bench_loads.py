"""`dumont-gpu bench --parts load`: every load is compared with its original, and a figure that is missing says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from dumont_gpu.bench.command import BenchOptions, run_bench  # noqa: E402
from dumont_gpu.bench.corpora.models import EMBEDDING, fp32_model, shapes, write_bf16  # noqa: E402
from dumont_gpu.bench.measure import load_contenders  # noqa: E402
from dumont_gpu.bench.measure.load_contenders import Contender, as_bytes, is_installed  # noqa: E402
from dumont_gpu.bench.measure.load_turns import LoadFigures, Task, damaged, in_turn  # noqa: E402
from dumont_gpu.bench.measure.originals import least_bytes, original_of, written_in  # noqa: E402
from dumont_gpu.bench.measure.paced_server import PacedServer  # noqa: E402
from dumont_gpu.bench.measure.streamed import measure_stream  # noqa: E402
from dumont_gpu.bench.report.loads import load_tables  # noqa: E402
from dumont_gpu.bench.report.text import markdown, print_tables  # noqa: E402
from dumont_gpu.errors import DumontError  # noqa: E402
from dumont_gpu.jobs.options import PackOptions  # noqa: E402
from dumont_gpu.jobs.pack import pack  # noqa: E402
from dumont_gpu.sizes import KiB, MiB  # noqa: E402
from dumont_gpu.storage import open_source  # noqa: E402

SIZE = 1 * MiB
FIRST_ANSWER = 16 * KiB  # of a snapshot over http: header, index and perhaps more


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run of the part, on little data, over a quick link."""
    scratch = tmp_path_factory.mktemp("loads")
    options = BenchOptions(
        parts=("load",), device="cpu", repeats=1, scratch=scratch, load_size=SIZE, load_rates=(100e9,)
    )
    return json.loads(json.dumps(run_bench(options)))  # type: ignore[no-any-return]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    write_bf16(file, SIZE)
    return file


def of(record: dict[str, Any], place: str, task: str) -> dict[str, dict[str, Any]]:
    rows = record["load"]["figures"]
    return {row["who"]: row for row in rows if row["place"].startswith(place) and row["task"].startswith(task)}


def test_every_load_gives_the_original_tensors(record: dict[str, Any]) -> None:
    assert record["failures"] == []
    ours = [row for row in record["load"]["figures"] if row["who"].startswith("dumont-gpu")]
    assert {row["place"] for row in ours} == {"local", "http, 100,000 Mbit/s"}
    installed = [row for row in ours if not row["problem"].startswith("not installed")]
    assert {row["problem"] for row in installed} == {""}
    assert {row["intact"] for row in installed if "restore" not in row["who"]} == {True}


def test_peers_that_are_not_there_are_named(record: dict[str, Any]) -> None:
    for row in record["load"]["figures"]:
        assert row["seconds"] or row["problem"], row


def test_a_part_that_was_not_asked_for_builds_no_corpus(record: dict[str, Any]) -> None:
    assert record["corpora"] == {}


def test_one_tensor_over_a_link_costs_its_chunks_and_the_tables(record: dict[str, Any]) -> None:
    (ours,) = (row for who, row in of(record, "http", "bf16, one tensor").items() if who.startswith("dumont-gpu"))
    assert 0 < ours["sent"] <= record["load"]["least_bytes"] + FIRST_ANSWER


def test_a_compressed_model_sends_less_than_a_raw_one(record: dict[str, Any]) -> None:
    rows = of(record, "http", "bf16, all tensors")
    assert rows["dumont-gpu, load"]["sent"] < 0.8 * record["load"]["size"]


def test_a_streamed_load_tells_its_memory(record: dict[str, Any]) -> None:
    stream = record["load"]["stream"]
    assert 0 < stream["before"] <= stream["peak"]
    assert 0 < stream["largest"] <= stream["size"] <= record["load"]["size"]


def test_the_report_shows_each_place_and_says_where_others_win(
    record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    titles = [table.title for table in load_tables(record["load"])]
    assert titles == ["Load, local", "Load, http, 100,000 Mbit/s", "Load: memory of a stream"]
    for table in load_tables(record["load"]):
        assert {len(row) for row in table.rows} == {len(table.header)}
    print_tables(record)
    assert "than dumont-gpu here" in capsys.readouterr().out
    assert "## Load, local" in markdown(record)


def test_the_report_reckons_with_ratios_of_the_same_turn() -> None:
    def row(who: str, seconds: list[float], problem: str = "") -> dict[str, Any]:
        return {
            "place": "local", "task": "all", "who": who, "size": 10**9, "seconds": seconds, "sent": 0,
            "problem": problem, "intact": True,
        }  # fmt: skip

    part = {
        "size": 10**9, "snapshot_size": 6 * 10**8, "tensors": 3, "least_bytes": 0, "device": None,
        "stream": {"seconds": 1.0, "size": 1, "largest": 1, "limit": 1, "before": 1, "peak": 2},
        "figures": [
            row("dumont-gpu, load", [1.0, 2.0]),
            row("dumont-gpu, restore of the file", [1.5, 3.0]),
            row("raw", [0.5, 1.0]),
            row("absent", [], "not installed: absent"),
        ],
    }  # fmt: skip
    table = next(iter(load_tables(part)))
    assert [cells[-1] for cells in table.rows] == ["1.0x", "1.5x", "0.5x"]
    assert "1.50 times as fast as a restore" in table.notes
    assert "Quicker than dumont-gpu here: all: raw." in table.notes
    assert "Without figures: absent: not installed: absent." in table.notes


# --- contenders -------------------------------------------------------------------------------------------------------


def task(*contenders: Contender) -> Task:
    return Task("local", "task", {"a": np.arange(8, dtype=np.uint8)}, contenders)


def test_a_wrong_tensor_fails_the_run() -> None:
    good = Contender("dumont-gpu", lambda: {"a": np.arange(8, dtype=np.uint8)})
    bad = Contender("peer", lambda: {"a": np.zeros(8, np.uint8)})
    short = Contender("short", dict)
    figures = list(in_turn(task(good, bad, short), 2, enough=9, warm=True))
    assert [len(figure.seconds) for figure in figures] == [2, 2, 2]
    assert damaged(figures) == [
        "load, local, task: peer: not the original tensors",
        "load, local, task: short: not the original tensors",
    ]


def test_a_peer_that_fails_is_a_line_and_ours_is_a_failure() -> None:
    def fail() -> None:
        raise ValueError("no such thing\nand more")

    figures = list(in_turn(task(Contender("peer", fail), Contender("dumont-gpu", fail)), 2, enough=9, warm=False))
    assert [(figure.seconds, figure.problem) for figure in figures] == [([], "ValueError: no such thing")] * 2
    assert damaged(figures) == ["load, local, task: dumont-gpu: ValueError: no such thing"]


def test_turns_end_when_they_have_taken_enough() -> None:
    (figure,) = in_turn(task(Contender("dumont-gpu", lambda: None)), 5, enough=0, warm=True)
    assert len(figure.seconds) == 1


def test_what_is_prepared_is_prepared_before_every_run() -> None:
    counts = []
    one = Contender("dumont-gpu", lambda: None, prepare=lambda: counts.append(1))
    list(in_turn(task(one), 3, enough=9, warm=True))
    assert len(counts) == 4


def test_what_a_contender_needs_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed("numpy") and is_installed("sh") and not is_installed("no_such_module")
    missing = Contender("peer", dict, ("numpy", "no_such_module")).missing()
    assert missing == ["no_such_module"]
    (figure,) = in_turn(task(Contender("peer", dict, ("no_such_module",))), 1, enough=9, warm=True)
    assert figure == LoadFigures("local", "task", "peer", 8, problem="not installed: no_such_module")


def test_strided_and_foreign_arrays_are_compared_by_their_bytes() -> None:
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert as_bytes(array.T).tobytes() == np.ascontiguousarray(array.T).tobytes()
    if is_installed("torch"):
        tensor = load_contenders.module("torch").from_numpy(array.copy())
        assert as_bytes(tensor.T).tobytes() == np.ascontiguousarray(array.T).tobytes()


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [200 * KiB, SIZE, 64 * MiB, 3000 * MiB])
@pytest.mark.parametrize("item_size", [2, 4])
def test_a_model_has_about_the_size_asked_for(size: int, item_size: int) -> None:
    model = shapes(size, item_size)
    total = sum(int(np.prod(shape)) for shape in model.values()) * item_size
    layer = total - sum(int(np.prod(shape)) * item_size for name, shape in model.items() if ".0." not in name)
    assert size <= total <= size + layer + int(np.prod(model[EMBEDDING])) * item_size
    assert model[EMBEDDING][0] % 4 == 0


def test_a_written_model_is_what_safetensors_reads(model: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    pytest.importorskip("ml_dtypes")  # makes bfloat16 known to NumPy
    original = original_of(model)
    assert {name: tensor.shape for name, tensor in written_in(model).items()} == shapes(SIZE, 2)
    with safetensors.safe_open(str(model), "np") as tensors:
        assert set(tensors.keys()) == set(original)
        assert as_bytes(tensors.get_tensor(EMBEDDING)).tobytes() == original[EMBEDDING].tobytes()


def test_no_two_tensors_of_a_model_are_equal(model: Path) -> None:
    contents = [content.tobytes() for content in original_of(model).values()]
    assert len(set(contents)) == len(contents)
    assert len({array.tobytes() for array in fp32_model(SIZE).values()}) == len(shapes(SIZE, 4))


def test_the_least_bytes_of_all_of_a_file_are_the_whole_snapshot(model: Path) -> None:
    snapshot = f"{model}.dumont"
    pack([str(model)], snapshot, PackOptions(device="cpu", chunk_size=64 * KiB))
    size = Path(snapshot).stat().st_size
    one = written_in(model)["model.layers.0.mlp.up_proj.weight"]
    assert least_bytes(snapshot, model.name, [(0, model.stat().st_size)]) == size
    assert least_bytes(snapshot, model.name, [one[:2]]) < size


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_paced_server_serves_files_and_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 700_000)
    (tmp_path / "b").write_bytes(b"y" * 100)
    with PacedServer([tmp_path / "a", tmp_path / "b"], 100e9) as server:
        for url, size in zip(server.urls, (700_000, 100), strict=True):
            before = server.sent()
            source = open_source(url)
            content = bytearray(source.size)
            source.read_into(0, memoryview(content))
            source.close()
            assert bytes(content) == (b"x" if size == 700_000 else b"y") * size
            assert server.sent() - before >= size


def test_a_stream_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(DumontError, match="a streamed load failed"):
        measure_stream(str(tmp_path / "none.dumont"), "model.safetensors", MiB)
