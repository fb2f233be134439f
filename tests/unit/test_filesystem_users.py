"""pandas and pyarrow read files of a snapshot through `dumont://`; a step of .ci/run installs both for these tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support.snapshots import pack_tree

from dumont_gpu.errors import DamagedError
from dumont_gpu.storage.local import LocalSource

pytest.importorskip("fsspec")
pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
import pyarrow.dataset  # noqa: E402
import pyarrow.fs  # noqa: E402
import pyarrow.parquet  # noqa: E402

from dumont_gpu.filesystem import DumontFileSystem  # noqa: E402

ROWS = 20_000


@pytest.fixture
def table() -> Any:
    noise = random.Random(7)
    columns = {"number": range(ROWS), "text": [f"row {row}" for row in range(ROWS)]}
    return pandas.DataFrame({**columns, "noise": [noise.randbytes(100) for _ in range(ROWS)]})


@pytest.fixture
def packed(source: Path, snapshot: Path, table: Any) -> Path:
    (source / "data").mkdir()
    table[["number", "text"]].to_csv(source / "data/x.csv", index=False)
    table[["number", "text"]].to_csv(source / "data/x.csv.gz", index=False)
    table.to_parquet(source / "data/x.parquet")
    for part in range(3):
        (source / f"parts/part={part}").mkdir(parents=True)
        table[part::3].to_parquet(source / f"parts/part={part}/0.parquet", index=False)
    (source / "link.parquet").symlink_to("data/x.parquet")
    pack_tree(source, snapshot, chunk_size=1 << 16, method="none")
    return snapshot


@pytest.fixture
def fs(packed: Path) -> DumontFileSystem:
    return DumontFileSystem(str(packed))


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_pandas_reads_csv(name: str, packed: Path, table: Any) -> None:
    chained = pandas.read_csv(f"dumont://data/{name}::file://{packed}")
    assert chained.equals(table[["number", "text"]])
    named = pandas.read_csv(f"dumont://data/{name}", storage_options={"fo": str(packed)})
    assert named.equals(chained)


@pytest.mark.parametrize("name", ["data/x.parquet", "link.parquet"])
def test_pandas_reads_parquet(name: str, packed: Path, table: Any) -> None:
    assert pandas.read_parquet(f"dumont://{name}", storage_options={"fo": str(packed)}).equals(table)
    some = pandas.read_parquet(f"dumont://{name}::{packed}", columns=["number"])
    assert some.equals(table[["number"]])


def test_a_column_takes_its_chunks_only(fs: DumontFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.info("")
    reads: list[int] = []
    read_into = LocalSource.read_into

    def counted(self: LocalSource, offset: int, out: memoryview) -> None:
        reads.append(len(out))
        read_into(self, offset, out)

    monkeypatch.setattr(LocalSource, "read_into", counted)
    column = pyarrow.parquet.read_table("data/x.parquet", columns=["number"], filesystem=fs)
    assert column.column("number").to_pylist() == list(range(ROWS))
    assert fs.size("data/x.parquet") > 2_000_000
    assert sum(reads) < 1_000_000


def test_pyarrow_takes_it_for_a_file_system(fs: DumontFileSystem, table: Any) -> None:
    wrapped = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))
    info = wrapped.get_file_info("data/x.csv")
    assert (info.type, info.size) == (pyarrow.fs.FileType.File, fs.size("data/x.csv"))
    assert wrapped.get_file_info("nothing").type == pyarrow.fs.FileType.NotFound
    assert wrapped.get_file_info("parts").type == pyarrow.fs.FileType.Directory
    listed = wrapped.get_file_info(pyarrow.fs.FileSelector("parts", recursive=True))
    assert sorted(each.path for each in listed if each.is_file) == [f"parts/part={part}/0.parquet" for part in range(3)]
    with wrapped.open_input_file("data/x.csv") as file:
        assert file.read_at(11, 0) == b"number,text"
    found = pyarrow.dataset.dataset("parts", filesystem=wrapped, partitioning="hive").to_table()
    assert (found.num_rows, set(found.column_names)) == (ROWS, {"number", "text", "noise", "part"})


def test_threads_of_pyarrow_read_beside_each_other(fs: DumontFileSystem, table: Any) -> None:
    for _ in range(3):
        read = pyarrow.dataset.dataset("parts", filesystem=fs, partitioning="hive").to_table(columns=["noise"])
        assert sorted(read.column("noise").to_pylist()) == sorted(table["noise"])


def test_a_flipped_bit_reaches_pandas(packed: Path, source: Path) -> None:
    data = bytearray(packed.read_bytes())
    content = (source / "data/x.parquet").read_bytes()
    at = data.index(content[-100_000:-99_900])
    data[at] ^= 1
    packed.write_bytes(data)
    with pytest.raises(DamagedError, match="do not match their digest"):
        pandas.read_parquet("dumont://data/x.parquet", storage_options={"fo": str(packed)})
