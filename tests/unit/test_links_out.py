"""Symlinks that lead out of the packed trees: followed if given as sources, else reported, or replaced on request."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile import command, tree

from dumont_gpu.format.entries import EntryType, FileEntry
from dumont_gpu.jobs.options import PackOptions, RestoreOptions
from dumont_gpu.jobs.pack import PackResult, pack, plan_pack
from dumont_gpu.jobs.restore import restore
from dumont_gpu.tree.links_out import leads_out, links_out

WEIGHTS = bytes(range(256)) * 300
REVISION, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A cache in huggingface_hub's layout: blobs, and for each revision links to them."""
    repository = tmp_path / "hub" / "models--x--y"
    for revision, files in {
        REVISION: {"model.safetensors": WEIGHTS, "config.json": b"{}", "onnx/model.onnx": WEIGHTS[5:]},
        OTHER: {"model.safetensors": WEIGHTS, "config.json": b'{"new": 1}'},
    }.items():
        for name, content in files.items():
            blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link = repository / "snapshots" / revision / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return tmp_path / "hub"


def packed(*sources: Path, follow: bool = False, **options: object) -> PackResult:
    output = sources[0].parent / "out.dumont"
    options = {"follow_outside": follow, **options}
    return pack([str(source) for source in sources], str(output), PackOptions(**options))  # type: ignore[arg-type]


def moved_away_and_restored(result: PackResult, original: Path, tmp_path: Path) -> Path:
    """Restores where nothing of the original is left."""
    snapshot = shutil.move(result.snapshot_path, tmp_path / "moved.dumont")
    shutil.rmtree(original)
    restore(str(snapshot), str(tmp_path / "elsewhere" / "target"), RestoreOptions(sync=False))
    return tmp_path / "elsewhere" / "target"


# --- the cache of the Hugging Face Hub --------------------------------------------------------------------------------

IN_REPOSITORY = f"models--x--y/snapshots/{REVISION}"


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("source", "weights"),
    [
        (f"{IN_REPOSITORY}/model.safetensors", "model.safetensors"),  # the path that hf_hub_download returns
        ("models--x--y", f"snapshots/{REVISION}/model.safetensors"),
        (".", f"{IN_REPOSITORY}/model.safetensors"),
    ],
)
def test_a_hub_cache_gives_its_weights_elsewhere(
    source: str, weights: str, follow: bool, hub: Path, tmp_path: Path
) -> None:
    result = packed(hub / source, follow=follow)
    assert (result.links_out, result.problems) == ((), ())
    target = moved_away_and_restored(result, hub, tmp_path)
    assert (target / weights).read_bytes() == WEIGHTS
    if source != ".":
        return
    assert (target / weights).is_symlink()  # packed as a single tree, the cache keeps its links
    assert result.original_size == sum(map(len, (WEIGHTS, WEIGHTS[5:], b"{}", b'{"new": 1}', REVISION)))


def test_a_revision_says_that_its_weights_are_elsewhere(hub: Path) -> None:
    revision = hub / IN_REPOSITORY
    assert [(link.path, os.path.basename(link.target)) for link in packed(revision).links_out] == [
        (name, hashlib.sha256(content).hexdigest())
        for name, content in (("config.json", b"{}"), ("model.safetensors", WEIGHTS), ("onnx/model.onnx", WEIGHTS[5:]))
    ]
    output = hub / "x.dumont"
    for ran in (command("pack", revision, "-o", output, "-n"), command("pack", revision, "-o", output)):
        assert (ran.code, ran.err) == (0, "")
        assert "it holds no bytes" in ran.out
        assert "3 links lead out of what is packed (pack --follow-outside stores what they lead to):" in ran.out
        assert "    model.safetensors -> ../../blobs/" in ran.out
    told = command("info", output).out
    assert "it holds no bytes" in told
    assert "3 links lead out" in told
    assert json.loads(command("info", output, "--json").out)["links_out"] == 3
    listed = [json.loads(line) for line in command("ls", output, "--json").out.splitlines()]
    assert {entry["path"]: entry.get("leads_out") for entry in listed} == {
        "config.json": True, "model.safetensors": True, "onnx": None, "onnx/model.onnx": True,
    }  # fmt: skip
    assert command("ls", output, "-l").out.count("(leads out)") == 3
    summary = json.loads(command("pack", revision, "-o", output, "--json").out.splitlines()[-1])
    assert [link["path"] for link in summary["links_out"]] == ["config.json", "model.safetensors", "onnx/model.onnx"]


def test_a_revision_gives_its_weights_elsewhere_if_its_links_are_followed(hub: Path, tmp_path: Path) -> None:
    result = packed(hub / IN_REPOSITORY, follow=True)
    assert (result.links_out, result.problems) == ((), ())
    target = moved_away_and_restored(result, hub, tmp_path)
    assert tree(target) == {
        "config.json": ("file", b"{}"),
        "model.safetensors": ("file", WEIGHTS),
        "onnx": ("dir", b""),
        "onnx/model.onnx": ("file", WEIGHTS[5:]),
    }
    assert "follow" not in command("info", tmp_path / "moved.dumont").out


def test_a_blob_of_two_revisions_is_stored_once(hub: Path, tmp_path: Path) -> None:
    snapshots = hub / "models--x--y" / "snapshots"
    result = packed(snapshots / REVISION, snapshots / OTHER, follow=True)
    assert result.original_size == sum(map(len, (WEIGHTS, WEIGHTS[5:], b"{}", b'{"new": 1}')))
    target = moved_away_and_restored(result, hub, tmp_path)
    for revision in (REVISION, OTHER):
        assert (target / revision / "model.safetensors").read_bytes() == WEIGHTS
    restore(str(tmp_path / "moved.dumont"), str(tmp_path / "part"), RestoreOptions(include=[f"/{OTHER}"], sync=False))
    assert (tmp_path / "part" / OTHER / "model.safetensors").read_bytes() == WEIGHTS


# --- a link that is named as SOURCE -----------------------------------------------------------------------------------


def test_a_source_that_is_a_link_is_followed_under_its_own_name(source: Path, tmp_path: Path) -> None:
    (source / "real.bin").write_bytes(WEIGHTS)
    (tmp_path / "file").symlink_to(source / "real.bin")
    (tmp_path / "chain").symlink_to("file")
    (tmp_path / "folder").symlink_to(source)
    pack([str(tmp_path / name) for name in ("chain", "folder")], str(tmp_path / "x.dumont"))
    restore(str(tmp_path / "x.dumont"), str(tmp_path / "target"), RestoreOptions(sync=False))
    assert tree(tmp_path / "target") == {
        "chain": ("file", WEIGHTS),
        "folder": ("dir", b""),
        "folder/real.bin": ("file", WEIGHTS),
    }


@pytest.mark.parametrize("target", ["nothing", "file/x"])
def test_a_source_that_leads_to_nothing_is_not_found(target: str, source: Path, snapshot: Path) -> None:
    (source / "file").write_bytes(b"")
    (source / "link").symlink_to(target)
    ran = command("pack", source / "link", "-o", snapshot)
    assert ran.code == 10
    assert "leads to nothing" in ran.error
    assert not snapshot.exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_source_that_is_no_file_is_refused(link: bool, source: Path, snapshot: Path) -> None:
    os.mkfifo(source / "fifo")
    (source / "link").symlink_to("fifo")
    ran = command("pack", source / ("link" if link else "fifo"), "-o", snapshot)
    assert ran.code == 2
    assert "is a pipe: name a directory or a file" in ran.error
    assert not snapshot.exists()


# --- which links lead out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("a", "b", False),
        ("a", "../b", True),
        ("d/a", "../b", False),
        ("d/a", "../../b", True),
        ("d/a", "../d/../b", False),
        ("d/a", "./..//../d/b", True),
        ("a", "/d/b", True),
        ("a", "..b/c", False),
        ("d/a", "inward/../../x", False),  # `inward` leads two directories down
        ("d/a", "outward/../x", False),  # `outward` itself leads out, and is counted
        ("d/a", "..", False),
        ("a", "..", True),
    ],
)
def test_a_link_leads_out_if_it_leaves_the_root(path: str, target: str, expected: bool) -> None:
    links = {"d/inward": "e/f", "d/outward": "../../elsewhere", path: target}
    assert leads_out(path, target, links) is expected


COMPONENTS = st.lists(st.sampled_from(["..", ".", "a", "b", "l", "m"]), min_size=1, max_size=6).map("/".join)


@given(st.dictionaries(st.sampled_from(["l", "m", "d/l", "d/m", "d/e/l"]), COMPONENTS))
def test_chains_and_circles_of_links_come_to_an_end(links: dict[str, str]) -> None:
    entries = [FileEntry(path, EntryType.SYMLINK, target=target) for path, target in links.items()]
    found = links_out(entries)
    assert {entry.path for entry in found} <= set(links)
    assert all(".." in entry.target for entry in found)


def test_a_link_to_a_place_that_is_another_one_in_the_snapshot_is_said(tmp_path: Path) -> None:
    """Two sources stand side by side in the snapshot, whatever lay between them."""
    for folder in ("x/a", "x/b", "y/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text(folder)
    (tmp_path / "x/a/link").symlink_to("../b/file")
    near = pack([str(tmp_path / "x/a"), str(tmp_path / "x/b")], str(tmp_path / "near.dumont"))
    far = pack([str(tmp_path / "x/a"), str(tmp_path / "y/b")], str(tmp_path / "far.dumont"))
    assert near.links_out == ()
    assert [link.path for link in far.links_out] == ["a/link"]
    options = PackOptions(follow_outside=True)
    pack([str(tmp_path / "x/a"), str(tmp_path / "y/b")], str(tmp_path / "far.dumont"), options)
    restore(str(tmp_path / "far.dumont"), str(tmp_path / "target"), RestoreOptions(sync=False))
    assert (tmp_path / "target/a/link").read_text() == "x/b"


# --- targets packed in place of links ---------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data").write_bytes(b"data")
    (folder / "top").write_bytes(b"top")
    return folder


def followed(source: Path, tmp_path: Path, **options: object) -> tuple[PackResult, dict[str, tuple[str, bytes]]]:
    result = packed(source, follow=True, **options)
    restore(result.snapshot_path, str(tmp_path / "target"), RestoreOptions(sync=False))
    return result, tree(tmp_path / "target")


def test_a_directory_that_a_link_leads_to_is_stored_as_a_tree(source: Path, outside: Path, tmp_path: Path) -> None:
    (source / "data").symlink_to(outside)
    (source / "inside").symlink_to("data/deep")
    result, found = followed(source, tmp_path)
    assert found == {
        "data": ("dir", b""),
        "data/deep": ("dir", b""),
        "data/deep/data": ("file", b"data"),
        "data/top": ("file", b"top"),
        "inside": ("symlink", b"data/deep"),
    }
    assert (result.links_out, result.problems) == ((), ())


def test_links_in_circles_end(source: Path, outside: Path, tmp_path: Path) -> None:
    (source / "data").symlink_to(outside)
    (source / "again").symlink_to(outside / "deep")
    (outside / "deep" / "self").symlink_to(outside)
    (outside / "deep" / "up").symlink_to("../deep")
    (outside / "back").symlink_to(source)
    result, found = followed(source, tmp_path)
    assert result.links_out == ()
    target = tmp_path / "target"
    assert (target / "data/deep/self/top").read_bytes() == b"top"
    assert (target / "data/back/data/deep/data").read_bytes() == b"data"
    assert (target / "again/data").read_bytes() == b"data"
    assert len(found) < 20


def test_links_that_share_what_they_lead_to_do_not_multiply_it(source: Path, tmp_path: Path) -> None:
    for number in range(20):  # each leads to the next twice: a million ways to the last
        folder = tmp_path / f"outside-{number}"
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
        for name in ("left", "right"):
            (folder / name).symlink_to(tmp_path / f"outside-{number + 1}")
    (source / "first").symlink_to(tmp_path / "outside-0")
    result = packed(source, follow=True)
    assert result.num_files == 3 * 20 + 1
    assert {os.path.basename(link.target) for link in result.links_out} == {"outside-20"}


def test_links_to_what_is_packed_stay_links_and_lead_there_elsewhere(source: Path, tmp_path: Path) -> None:
    (source / "d").mkdir()
    (source / "d" / "file").write_bytes(WEIGHTS)
    (source / "absolute").symlink_to(source / "d" / "file")
    (source / "d" / "climbing").symlink_to("../../source/d")
    (source / "d" / "plain").symlink_to("../d/file")
    assert {link.path for link in packed(source).links_out} == {"absolute", "d/climbing"}
    result, found = followed(source, tmp_path)
    assert result.links_out == ()
    assert found["absolute"] == ("symlink", b"d/file")
    assert found["d/climbing"] == ("symlink", b".")
    assert found["d/plain"] == ("symlink", b"../d/file")


def test_links_to_nothing_or_to_devices_stay_and_are_said(source: Path, tmp_path: Path) -> None:
    (source / "null").symlink_to("/dev/null")
    (source / "gone").symlink_to("/nothing/here")
    (source / "round").symlink_to(source / "round")
    result, found = followed(source, tmp_path)
    assert [link.path for link in result.links_out] == ["gone", "null", "round"]
    assert result.problems == ()
    assert found["null"] == ("symlink", b"/dev/null")
    assert "lead out of what is packed:" in command("pack", source, "-o", tmp_path / "x", "--follow-outside").out


def test_patterns_and_the_output_hold_behind_links_too(source: Path, outside: Path, tmp_path: Path) -> None:
    (source / "data").symlink_to(outside)
    (source / "secret").symlink_to(outside / "top")
    (outside / "yesterday.dumont").write_bytes(b"DUMONT02")
    options = PackOptions(follow_outside=True, exclude=["top", "secret"])
    result = pack([str(source)], str(outside / "yesterday.dumont"), options)
    assert result.excluded == 2
    restore(str(outside / "yesterday.dumont"), str(tmp_path / "target"), RestoreOptions(sync=False))
    assert set(tree(tmp_path / "target")) == {"data", "data/deep", "data/deep/data"}


def test_a_link_to_what_is_left_out_is_said(source: Path) -> None:
    (source / "left").mkdir()
    (source / "link").symlink_to(source / "left")
    assert [link.path for link in packed(source, follow=True, exclude=["left"]).links_out] == ["link"]


def test_many_links_out_need_few_descriptors(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumont_gpu.tree.handles._MAX_OPEN", 8)
    for number in range(300):
        folder = tmp_path / "outside" / f"{number}"
        folder.mkdir(parents=True)
        (folder / "file").write_text(f"{number}")
        (source / f"{number}").symlink_to(folder / "file" if number % 2 else folder)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 50, limits[1]))
    try:
        result = packed(source, follow=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (result.num_files, result.problems) == (450, ())
    assert plan_pack([str(source)], PackOptions(follow_outside=True)).num_files == 450
