"""bench --path: a user's own folder first, in bars that say what was measured and what was reckoned."""

from __future__ import annotations

import json
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from support.commands import command

from dumont_gpu.bench.own import OwnOptions, bench_own
from dumont_gpu.bench.report.bars import bar_text, charts
from dumont_gpu.bench.report.plot import picture
from dumont_gpu.bench.report.text import markdown
from dumont_gpu.errors import NoSpaceError, UsageError


def figures(job: str, contender: str, seconds: float, size: int = 0) -> dict[str, Any]:
    return {"case": "own folder", "job": job, "contender": contender, "seconds": [seconds, 9.0], "archive_size": size}


RECORD: dict[str, Any] = {
    "jobs": {
        "trees": {"own folder": {"files": 3, "size": 4 << 20, "disk_size": 4 << 20}},
        "figures": [
            figures("pack", "dumont-gpu", 2.0, 1_000_000),
            figures("pack", "tar, zstd -3", 1.0, 2_000_000),
            figures("restore", "dumont-gpu", 0.5),
            figures("restore", "tar, zstd -3", 1.0),
        ],
    },
    "own": {"rates": [500_000]},
}


def test_bars_show_size_seconds_and_the_way_over_a_link() -> None:
    found = {chart.title: [(bar.name, bar.value) for bar in chart.bars] for chart in charts(RECORD)}
    assert list(found.values()) == [
        [("dumont-gpu", 1_000_000), ("tar, zstd -3", 2_000_000), ("as it is", 4 << 20)],
        [("tar, zstd -3", 1.0), ("dumont-gpu", 2.0)],
        [("dumont-gpu", 0.5), ("tar, zstd -3", 1.0)],
        [("dumont-gpu", 4.5), ("tar, zstd -3", 6.0)],
    ]
    assert "4Mbit" in list(found)[-1]
    assert "reckoned" in list(found)[-1]


def test_the_longest_bar_is_the_largest_value_and_ours_looks_different() -> None:
    lines = bar_text(RECORD).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1:4] == [
        f"  dumont-gpu    {'#' * 10} 1.0 MiB",
        f"  tar, zstd -3  {'=' * 19} 1.9 MiB",
        f"  as it is      {'=' * 40} 4.0 MiB",
    ]


def test_a_folder_is_packed_and_restored_by_what_is_installed(source: Path, tmp_path: Path) -> None:
    (source / "notes").write_text("text\n" * 1000)
    plot = tmp_path / "own.svg"
    ran = command("bench", "--path", source, "--repeats", "1", "--link", "10Mbit", "--plot", plot, "--json", "-q")
    assert ran.code == 0, ran.err
    ran = command("bench", "--path", source, "--repeats", "1", "--json")
    record = json.loads(ran.out)
    done = {(row["job"], row["contender"]) for row in record["jobs"]["figures"] if row["seconds"]}
    assert {("pack", "dumont-gpu"), ("restore", "dumont-gpu")} <= done
    assert record["failures"] == []
    root = xml.etree.ElementTree.fromstring(plot.read_text())
    assert "".join(root.itertext()).count("dumont-gpu") >= 4
    assert xml.etree.ElementTree.fromstring(picture(record)) is not None
    assert "seconds to restore" in markdown(record)


def test_what_cannot_be_measured_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (
        OwnOptions(tmp_path / "nosuch"),
        OwnOptions(source, scratch=tmp_path / "nosuch"),
        OwnOptions(source, repeats=0),
    ):
        with pytest.raises(UsageError):
            bench_own(options)
    (source / "x").write_bytes(bytes(1000))
    monkeypatch.setattr("dumont_gpu.bench.own._ROOM_FACTOR", 1 << 60)
    with pytest.raises(NoSpaceError, match="--scratch names another disk"):
        bench_own(OwnOptions(source, scratch=tmp_path))


@pytest.mark.parametrize(
    "more", [["--link", "1Gbit"], ["--path", ".", "--corpus", "."], ["--path", ".", "--link", "x"]]
)
def test_options_that_do_not_go_together_are_refused(more: list[str]) -> None:
    assert command("bench", *more).code == 2
