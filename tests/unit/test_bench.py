"""`dumont-gpu bench`: measured data is intact, the report is well-formed, and damage fails the run."""

from __future__ import annotations

import json
import pkgutil
import random
import statistics
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.devices import emulated_device
from support.snapshots import ROOT

from dumont_gpu import bench
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.bench import command, thorough
from dumont_gpu.bench.command import BenchOptions, run_bench
from dumont_gpu.bench.corpora import corpus as corpora
from dumont_gpu.bench.corpora import synthetic, wheels
from dumont_gpu.bench.corpora.corpus import Corpus, seed_corpus, user_corpus
from dumont_gpu.bench.corpora.original import COLUMN, ROWS
from dumont_gpu.bench.corpora.weights import bf16_weights, weights
from dumont_gpu.bench.measure import codec_contenders, codecs, rows
from dumont_gpu.bench.measure.chunks import measure_chunks, project
from dumont_gpu.bench.measure.codecs import failures, measure_codecs
from dumont_gpu.bench.measure.contenders import COMMAND, Case
from dumont_gpu.bench.measure.links import Link, LinkedSource, measure_links
from dumont_gpu.bench.measure.places import places
from dumont_gpu.bench.measure.room import Room
from dumont_gpu.bench.measure.rows import measure_rows
from dumont_gpu.bench.publish import publish
from dumont_gpu.bench.report import machine
from dumont_gpu.bench.report.by_type import is_of, rate
from dumont_gpu.bench.report.codecs import codec_tables
from dumont_gpu.bench.report.jobs import job_seconds
from dumont_gpu.bench.report.page import page
from dumont_gpu.bench.report.plot import picture
from dumont_gpu.bench.report.record import machine_of, merge, read_record
from dumont_gpu.bench.report.summary import problems, tables
from dumont_gpu.bench.report.text import markdown, print_tables
from dumont_gpu.codecs import ZipNN
from dumont_gpu.errors import DeviceError, DumontError, UsageError
from dumont_gpu.native import Dtype
from dumont_gpu.sizes import KiB, MiB
from dumont_gpu.storage import MemorySource

SCALE = 256 * KiB


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return seed_corpus(tmp_path_factory.mktemp("seed"), SCALE)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run without the network, on little data, with one peer."""
    folder = tmp_path_factory.mktemp("bench")
    own = seed_corpus(folder / "own", SCALE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "COMMAND", Case("corpus", COMMAND.packs[:1], (COMMAND.restores[1], COMMAND.restores[5])))
        patch.setattr(command, "_SETTLE", 0.0)
        patch.setattr(rows, "_SAMPLE_SECONDS", 0.0)
        patch.setattr(command, "measure_links", lambda *given, **named: measure_links(*given, (1e12, 2e12), **named))
        options = BenchOptions(
            corpus=own.root, device="cpu", jobs=2, repeats=1, scratch=folder, limit=2 * MiB, seed_scale=SCALE
        )
        return json.loads(json.dumps(run_bench(options)))  # type: ignore[no-any-return]


# --- corpora ----------------------------------------------------------------------------------------------------------


def test_the_seed_corpus_has_every_row_of_its_table(corpus: Corpus) -> None:
    assert [content.key for content in corpus.contents] == [row.key for row in ROWS]
    assert all(content.generated for content in corpus.contents)


def test_a_repeated_text_has_the_size_asked_for() -> None:
    assert synthetic.repeated("ab", 5) == b"ababa"


@pytest.mark.parametrize(
    ("fp32", "bf16"),
    [(0x3F800000, 0x3F80), (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0xBF808001, 0xBF81), (0x7F7FFFFF, 0x7F80)],
)
def test_bf16_rounds_to_nearest_even(fp32: int, bf16: int) -> None:
    neighbours = struct.pack("<3I", 0xFF7FFFFF, fp32, 0xFF7FFFFF)
    assert struct.unpack("<3H", synthetic.bf16(neighbours)) == (0xFF80, bf16, 0xFF80)


def test_q8_0_keeps_values_within_half_a_step() -> None:
    values = [((i * 37) % 64 - 32) / 100 for i in range(32)]
    scale, *quants = struct.unpack("<e32b", synthetic.q8_0(struct.pack("<32f", *values)))
    assert max(abs(q * scale - v) for q, v in zip(quants, values, strict=True)) < scale * 0.6


def test_without_wheels_real_is_what_the_machine_has_and_weights_are_called_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr(corpora, "fetch", no_network)
    monkeypatch.setattr(corpora, "_LOCAL_LIMIT", SCALE)
    monkeypatch.setattr(corpora, "_normal_model", lambda size: b"model")
    monkeypatch.setattr(corpora, "_QUANTISED", 4096)
    library = tmp_path / "library"
    library.mkdir()
    (library / "module.py").write_text("x = 1\n")
    (library / "module.json").write_text("{}\n")
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(corpora.site, "getsitepackages", list)
    monkeypatch.setattr(corpora, "_normal_checkpoint", lambda size: b"checkpoint")
    found = corpora.real_corpus(tmp_path / "cache", tmp_path / "scratch", download=False)
    assert "--download" in found.origin
    assert {content.key: content.generated for content in found.contents} == {
        "python": False, "json": False, "bf16": True, "pt": True, "gguf": True,
    }  # fmt: skip


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    wheel = wheels.Wheel("thing", "1.0", "0" * 64)
    (tmp_path / wheel.filename).write_bytes(b"something else")
    assert wheels.missing([wheel], tmp_path) == []
    with pytest.raises(DumontError, match="not the pinned wheel"):
        wheels.fetch([wheel], tmp_path)


def test_a_tree_without_known_files_is_refused(source: Path) -> None:
    (source / "data.unknown").write_text("x")
    with pytest.raises(UsageError, match="no file there"):
        user_corpus(source, MiB)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_show_what_the_product_chooses(record: dict[str, Any]) -> None:
    found = {row["key"]: row for row in record["rows"] if row["corpus"] == "seed" and is_of(row, "hybrid_v2")}
    assert all(row["intact"] for row in record["rows"])
    assert set(found["python"]["codecs"]) == {"lz4"}
    assert "zipnn" in found["bf16"]["codecs"]
    assert set(found["images"]["codecs"]) == {"none"}
    assert found["images"]["one_core"] is None
    assert rate(found["bf16"], "one_core", "decode") is not None
    assert found["bf16"]["size"] / found["bf16"]["stored_size"] == pytest.approx(1.5, abs=0.05)


def test_a_row_for_each_way_in_which_the_methods_encode_a_content(tmp_path: Path) -> None:
    rng = random.Random(7)
    (tmp_path / "a.py").write_text("".join(f"step({i}, loss={rng.random():.3f}, lr=0.0003)\n" for i in range(6000)))
    (tmp_path / "a.gguf").write_bytes(rng.randbytes(100_000))
    options = BenchOptions(corpus=tmp_path, parts=("rows",), device="cpu", jobs=1, repeats=1, scratch=tmp_path)
    found = [
        (row["key"], tuple(row["methods"]), set(row["codecs"]))
        for row in run_bench(replace(options, seed_scale=SCALE))["rows"]
        if row["corpus"] != "seed"
    ]
    assert found == [
        ("python", ("hybrid_v3",), {"zstd"}),
        ("python", ("hybrid_v2",), {"lz4"}),
        ("gguf", ("hybrid_v3", "hybrid_v2"), {"none"}),
    ]


def test_no_more_than_the_limit_is_measured(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SAMPLE_SECONDS", 0.0)
    only = replace(corpus, contents=corpus.contents[4:5])
    (row,) = measure_rows(only, repeats=1, jobs=1, limit=256 * KiB, chunk_size=128 * KiB)
    assert row.size <= 256 * KiB


def test_a_device_gets_its_own_figures(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SAMPLE_SECONDS", 0.0)
    device = CudaBackend(emulated_device(), minimum=1)
    device.prepare(128 * KiB, encode=True, decode=True)
    chosen = tuple(content for content in corpus.contents if content.key in ("bf16", "images"))
    try:
        found = measure_rows(
            replace(corpus, contents=chosen), repeats=1, jobs=1, device=device, limit=128 * KiB, chunk_size=64 * KiB
        )
    finally:
        device.close()
    bf16, images = (asdict(row) for row in found)
    assert bf16["intact"]
    assert bf16["device"]["workers"] == device.extra_threads
    assert rate(bf16, "device", "encode")
    assert rate(bf16, "device", "decode")
    assert bf16["device_stored_size"] == bf16["stored_size"]
    assert images["device"] is None


def test_bytes_that_do_not_come_back_are_noticed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: ZipNN, stored: memoryview, out: memoryview) -> None:
        out[:] = bytes(len(out))

    monkeypatch.setattr(rows, "_SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(ZipNN, "decode", wrong)
    only = replace(corpus, contents=corpus.contents[4:5])
    (row,) = measure_rows(only, repeats=1, jobs=1, limit=MiB, chunk_size=MiB)
    assert not row.intact


def test_damage_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from dumont_gpu.cli import main as cli

    (tmp_path / "a.py").write_text("x = 1\n" * 1000)
    original = rows.measure_rows
    monkeypatch.setattr(rows, "_SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(
        command, "measure_rows", lambda *a, **k: [replace(row, intact=False) for row in original(*a, **k)]
    )
    monkeypatch.setattr(command, "seed_corpus", lambda root, scale: user_corpus(tmp_path, MiB))
    outcome = CliRunner().invoke(
        cli.app, ["bench", "--corpus", str(tmp_path), "--parts", "rows", "--device", "cpu", "--repeats", "1"]
    )
    assert isinstance(outcome.exception, DumontError)
    assert outcome.exception.exit_code == 1
    assert "did not decode" in str(outcome.exception)
    assert "DAMAGED" in outcome.output


# --- chunks, links ----------------------------------------------------------------------------------------------------


def test_every_chunk_of_a_model_has_its_ratio(corpus: Corpus) -> None:
    figures = measure_chunks(corpus, 256 * KiB)
    assert figures is not None
    assert len(figures.sizes) == 4
    assert figures.ratio == pytest.approx(1.5, abs=0.05)
    assert figures.lz4 == figures.sizes
    llama = project([figures])[0]
    assert llama.by_corpus == {"seed": 14 / figures.ratio}


def test_a_link_brings_bytes_at_its_rate() -> None:
    now = [100.0]
    link = Link(8e6, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    source = LinkedSource(MemorySource(bytes(range(250)) * 4000), link)
    out = bytearray(1_000_000)
    source.read_into(0, memoryview(out))
    assert now[0] == pytest.approx(101.0, abs=0.02)
    assert out[:250] == bytes(range(250))


def test_a_link_makes_up_for_no_more_than_a_moment() -> None:
    now = [0.0]
    link = Link(8e6, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    now[0] = 60.0
    link.wait_for(1_000_000)
    assert now[0] == pytest.approx(61.0, abs=0.02)


def test_a_restore_over_a_link_records_its_stages(record: dict[str, Any]) -> None:
    (first, _) = record["links"]
    assert {stage for stage, _, _ in first["spans"]} == {"fetch", "decode", "write"}
    assert all(0 <= begin <= end <= first["seconds"] for _, begin, end in first["spans"])


# --- codecs against other packages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec_part() -> dict[str, Any]:
    """The thorough part on little data, with whichever packages are installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs, "_HOT_SIZE", 128 * KiB)
        patch.setattr(codecs, "_HOT_REPEATS", 1)
        return json.loads(json.dumps(measure_codecs(weights(MiB), 2, thorough=True)))  # type: ignore[no-any-return]


def test_weights_of_every_type_are_normal() -> None:
    found = {name: (dtype, bytes(data)) for name, dtype, data in weights(64 * KiB)}
    assert {dtype for dtype, _ in found.values()} == {Dtype.FP32, Dtype.BF16, Dtype.FP16, Dtype.FP8_E4M3}
    fp32 = memoryview(found["fp32"][1]).cast("f").tolist()
    fp16 = struct.unpack(f"<{32 * KiB}e", found["fp16"][1])
    widened = memoryview(found["fp32 that is bf16"][1]).cast("f").tolist()
    for values in (fp32, fp16, widened):
        assert statistics.pstdev(values) == pytest.approx(0.02, rel=0.03)
    assert all(code & 0x7F != 0x7F for code in found["fp8 e4m3"][1])  # no NaN
    assert bytes(bf16_weights(64 * KiB)) == found["bf16"][1]


def test_every_codec_gives_its_input_back_on_every_path_and_is_timed(codec_part: dict[str, Any]) -> None:
    assert failures(codec_part) == []
    assert {row["label"]["codec"] for row in codec_part["figures"]} >= {"dumont-gpu", "lz4"}
    ours = {row["label"]["path"] for row in codec_part["figures"] if row["label"]["codec"] == "dumont-gpu"}
    assert codec_part["default_path"] in ours
    assert "portable" in ours
    assert all(row["encode_seconds"] and row["decode_seconds"] for row in codec_part["figures"])


def test_a_codec_that_changes_bytes_is_a_failure_and_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_contenders.Library, "matches", lambda self: False)
    part = measure_codecs([("bf16", Dtype.BF16, bf16_weights(MiB))], 1)
    assert "bf16: lz4 gave other bytes" in failures(part)
    (table,) = codec_tables(part)
    assert [row[3:] for row in table.rows if row[1] == "lz4"] == [("-", "-", "-", "-")]


def test_codec_tables_show_every_kind_of_weights_and_every_path(codec_part: dict[str, Any]) -> None:
    found = list(codec_tables(codec_part))
    titles = [table.title for table in found]
    assert "Weights, other packages, one thread, GB/s" in titles
    assert "fp16: every instruction set and block size" in titles
    assert all(len(row) == len(table.header) for table in found for row in table.rows)


# --- one record -------------------------------------------------------------------------------------------------------


def test_a_part_that_did_not_run_again_keeps_its_figures_and_its_machine() -> None:
    def record(date: str, **parts: Any) -> dict[str, Any]:
        return {"schema": 2, "device": {"name": "", "detail": ""}, "machine": {"date": date}, **parts}

    merged = merge([record("Monday", links=[1], rows=[1]), record("Tuesday", rows=[2])])
    assert (merged["links"], merged["rows"]) == ([1], [2])
    assert machine_of(merged, "links") == {"date": "Monday"}
    assert machine_of(merged, "rows") == {"date": "Tuesday"}
    assert machine_of(merge([merged, record("Friday", chunks=[3])]), "links") == {"date": "Monday"}


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_records_and_their_reports_are_up_to_date(path: Path) -> None:
    kept = read_record(path)
    assert kept is not None
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(kept)  # python bench/readme.py renders it


def test_the_thorough_run_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thorough, "SIZE", MiB)
    monkeypatch.setattr(thorough, "measure_codecs", lambda kinds, repeats, **_: measure_codecs(kinds, repeats))
    assert thorough.main(ROOT, ["codecs", "--repeats", "1", "--results", str(tmp_path)]) == 0
    (data,) = tmp_path.glob("cpu-*.json")
    kept = read_record(data)
    assert kept is not None
    assert set(kept["machines"]) == {"codecs"}
    assert "commit" in kept["machines"]["codecs"]
    assert data.with_suffix(".md").exists()


def test_every_module_is_imported_without_gpu_packages() -> None:
    modules = [module.name for module in pkgutil.walk_packages(bench.__path__, "dumont_gpu.bench.")]
    needs_numpy = {"models", "prose", "small_files", "tensors", "workspace", "originals"}
    needs_numpy |= {"loads", "load_contenders", "load_device", "load_links", "load_turns"}
    chosen = [name for name in modules if name.rpartition(".")[2] not in needs_numpy]
    assert "dumont_gpu.bench.measure.gpu.kernels" in chosen
    code = f"""if True:
        import importlib, sys
        sys.modules.update(dict.fromkeys(("cupy", "nvidia", "numpy", "zipnn", "torch")))
        for name in {chosen!r}:
            importlib.import_module(name)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_run_without_a_gpu_says_why_there_are_no_such_columns(record: dict[str, Any]) -> None:
    assert record["failures"] == []
    assert next(iter(problems(record))).startswith("no GPU columns: ")
    assert not any("GPU" in table.header for table in tables(record))


def test_gpu_columns_appear_where_there_are_figures(record: dict[str, Any]) -> None:
    rows_with = [row | {"device": row["one_core"]} for row in record["rows"]]
    shown = tables(record | {"rows": rows_with, "device": {"name": "cuda:0", "detail": "a device"}})
    assert "compress, GPU" in shown[0].header
    assert "decompress, GPU" in shown[0].header


def test_every_table_is_a_rectangle(record: dict[str, Any]) -> None:
    found = tables(record)
    assert len(found) == 8
    assert all(len(row) == len(table.header) for table in found for row in table.rows)
    assert all(table.notes for table in found)


def test_markdown_tables_have_as_many_cells_in_each_line(record: dict[str, Any]) -> None:
    blocks = [block for block in markdown(record).split("\n\n") if block.lstrip().startswith("|")]
    assert len(blocks) >= 8
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) == 1


def test_the_picture_is_xml_and_needs_nothing_else(record: dict[str, Any]) -> None:
    text = picture(record)
    ET.fromstring(text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert len(text) < 64 * KiB
    assert "nan" not in text


@pytest.mark.parametrize("part", ["rows", "jobs", "links"])
def test_a_part_that_was_not_run_is_left_out_of_every_report(
    record: dict[str, Any], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    less = {key: value for key, value in record.items() if key != part}
    ET.fromstring(picture(less))
    assert len(tables(less)) < len(tables(record))
    print_tables(less)
    assert COLUMN in capsys.readouterr().out


def test_html_closes_what_it_opens(record: dict[str, Any]) -> None:
    class Balance(HTMLParser):
        depth = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.depth += tag not in ("meta",)

        def handle_endtag(self, tag: str) -> None:
            self.depth -= 1

    balance = Balance()
    balance.feed(page(record))
    assert balance.depth == 0


def test_results_are_kept_by_machine(record: dict[str, Any], tmp_path: Path) -> None:
    publish(record, str(tmp_path / "one.svg"), str(tmp_path / "results"))
    assert (tmp_path / "one.svg").exists()
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["json", "md", "svg"]
    assert json.loads(next((tmp_path / "results").glob("*.json")).read_text()) == record


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (BenchOptions(parts=("rows", "everything")), UsageError),
        (BenchOptions(repeats=0), UsageError),
        (BenchOptions(device="gpu"), UsageError),
        (BenchOptions(device="99"), DeviceError),
        (BenchOptions(scratch=Path("/nowhere")), UsageError),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    options: BenchOptions, error: type[DumontError]
) -> None:
    with pytest.raises(error):
        run_bench(options)


def test_memory_is_written_to_only_where_there_is_room_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "file_system", lambda place: "tmpfs")
    monkeypatch.setattr(machine, "_available_memory", lambda: 10 * MiB)
    assert machine.memory_folder(5 * MiB) == Path("/dev/shm")
    assert machine.memory_folder(5 * MiB + 1) is None
    monkeypatch.setattr(machine, "file_system", lambda place: "ext4")
    assert machine.memory_folder(1) is None


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_runs_in_memory_leave_nothing_behind(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dumont_gpu.bench.measure.places.file_system", lambda place: kind)
    with places(tmp_path) as room:
        place = room.new()
        (place / "large").write_bytes(bytes(MiB))
        (place / "small").write_bytes(b"small")
        room.give_back(place)
        left = {path.name: path.stat().st_size for path in place.iterdir() if path.is_file()} if place.exists() else {}
    assert left == ({} if kind == "tmpfs" else {"large": 0, "small": 5})
    assert not list(tmp_path.iterdir())


def test_the_quickest_run_of_a_job_counts() -> None:
    assert job_seconds({"seconds": [0.9, 0.4, 2.0]}) == 0.4


def test_memory_for_a_row_is_that_of_its_limit() -> None:
    room = Room(2, MiB, 256 * KiB, None)
    assert [len(output) for output in room.outputs] == [256 * KiB] * 2
