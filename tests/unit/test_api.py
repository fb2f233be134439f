"""The Python API takes the command line's arguments, and refuses an argument in a single line."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.snapshots import pack_tree

import dumont_gpu
from dumont_gpu import DumontError, Progress, SnapshotService
from dumont_gpu.errors import UsageError
from dumont_gpu.jobs.options import DiffOptions, PackOptions, ReadOptions, RestoreOptions, RunOptions, VerifyOptions
from dumont_gpu.jobs.parameters import Option, checked, declared
from dumont_gpu.jobs.restore import restore


@pytest.fixture
def workspace(source: Path) -> Path:
    for name in ("a.pyc", "src/a.py", "src/b.py"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    return source


def paths_in(snapshot: Path) -> list[str]:
    return [entry.path for entry in SnapshotService().list_entries(snapshot)]


# --- accepted arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude", ["*.pyc", Path("*.pyc"), ["*.pyc"], ("*.pyc",), {"*.pyc"}, iter(["*.pyc"])])
def test_a_string_is_one_pattern(exclude: Any, workspace: Path, snapshot: Path) -> None:
    packed = SnapshotService().create_snapshot(workspace, snapshot, exclude=exclude)
    assert (packed.excluded, paths_in(snapshot)) == (1, ["src", "src/a.py", "src/b.py"])


def test_a_string_is_one_pattern_to_include(workspace: Path, snapshot: Path, target: Path) -> None:
    pack_tree(workspace, snapshot)
    restored = SnapshotService().restore_snapshot(snapshot, target, include="src", exclude=Path("b.py"), sync=False)
    assert (restored.num_files, restored.unmatched) == (2, ())


def test_patterns_come_from_files_too(workspace: Path, snapshot: Path) -> None:
    ignore = workspace.parent / "ignore"
    ignore.write_text("# compiled\n*.pyc\n")
    packed = SnapshotService().create_snapshot(workspace, snapshot, exclude="nomatch", exclude_from=ignore)
    assert (packed.excluded, packed.unmatched) == (1, ("nomatch",))


@pytest.mark.parametrize("sources", [lambda tree: tree, str, lambda tree: [tree], lambda tree: (str(tree),), bytes])
def test_a_path_is_one_source(sources: Callable[[Path], Any], workspace: Path, snapshot: Path) -> None:
    assert SnapshotService().create_snapshot(sources(workspace), str(snapshot)).num_files == 4


def test_sizes_and_devices_are_taken_as_the_command_line_takes_them(
    workspace: Path, snapshot: Path, target: Path
) -> None:
    service = SnapshotService(device="cpu")
    service.create_snapshot(workspace, snapshot, chunk_size="4KiB", memory="1GiB", link="100Mbit", level=5)
    service.create_snapshot(workspace, snapshot, link=125_000_000)
    service.create_snapshot(workspace, snapshot, chunk_size="4KiB", link="local")
    service.restore_snapshot(snapshot, target, memory="200MiB", max_size="1MB", limit_rate="1GiB", sync=False)
    with pytest.raises(DumontError):  # no such device, but a device all the same
        SnapshotService(device=9999).verify_snapshot(snapshot, content=True)


def test_a_listing_reports_progress(workspace: Path, snapshot: Path) -> None:
    pack_tree(workspace, snapshot)
    events: list[Progress] = []
    entries = SnapshotService().list_entries(snapshot, progress=events.append)
    assert len(entries) == 4
    assert [event.phase for event in events] == ["list"]


def test_read_returns_the_bytes_of_a_file(workspace: Path, snapshot: Path) -> None:
    pack_tree(workspace, snapshot)
    service = SnapshotService()
    assert service.read(snapshot, "src/a.py") == service.read(f"{snapshot}:src", Path("a.py")) == b"src/a.py"
    assert service.read(f"{snapshot}:src/b.py") == b"src/b.py"
    assert service.read(snapshot, "src/a.py", max_size=8) == b"src/a.py"
    with pytest.raises(DumontError, match="src/a.py: has 8 bytes: max_size=8 allows it"):
        service.read(snapshot, "src/a.py", max_size=7)
    with pytest.raises(UsageError, match="is a directory"):
        service.read(snapshot, "src")


def test_diff_returns_changes(workspace: Path, snapshot: Path) -> None:
    pack_tree(workspace, snapshot)
    assert SnapshotService().diff(snapshot, workspace).equal
    (workspace / "a.pyc").unlink()
    result = SnapshotService().diff(snapshot, workspace, content=True)
    assert ([change.path for change in result.changes], result.count("-"), result.same) == (["a.pyc"], 1, 3)


# --- refused arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda s, x, t: s.create_snapshot("", x),
        lambda s, x, t: s.create_snapshot([], x),
        lambda s, x, t: s.create_snapshot(7, x),
        lambda s, x, t: s.create_snapshot("/", x, chunk_size="lots"),
        lambda s, x, t: s.create_snapshot("/", x, chunk_size=None),
        lambda s, x, t: s.create_snapshot("/", x, memory=-1),
        lambda s, x, t: s.create_snapshot("/", x, paranoid="no"),
        lambda s, x, t: s.create_snapshot("/", x, method="zip"),
        lambda s, x, t: s.create_snapshot("/", x, link="fast"),
        lambda s, x, t: s.create_snapshot("/", x, link=0),
        lambda s, x, t: s.create_snapshot("/", x, link=1.5),
        lambda s, x, t: s.create_snapshot("/", x, level=0),
        lambda s, x, t: s.create_snapshot("/", x, level=20),
        lambda s, x, t: s.create_snapshot("/", x, level="3"),
        lambda s, x, t: s.create_snapshot("/", x, digest="md5"),
        lambda s, x, t: s.create_snapshot("/", x, progress=True),
        lambda s, x, t: s.restore_snapshot(x, t, overwrite="bogus"),
        lambda s, x, t: s.restore_snapshot(x, t, include=[""]),
        lambda s, x, t: s.restore_snapshot(x, t, expect=12),
        lambda s, x, t: s.restore_snapshot(x, t, connections=65),
        lambda s, x, t: s.restore_snapshot(x, "a\0b"),
        lambda s, x, t: SnapshotService(device="gpu").restore_snapshot(x, t),
        lambda s, x, t: SnapshotService(device="²").restore_snapshot(x, t),
        lambda s, x, t: SnapshotService(device=None),
        lambda s, x, t: SnapshotService(jobs="2"),
        lambda s, x, t: SnapshotService(jobs=10**5000),
    ],
)
def test_a_wrong_value_is_a_usage_error_of_one_line(call: Any, snapshot: Path, source: Path, target: Path) -> None:
    pack_tree(source, snapshot)
    before = snapshot.read_bytes()
    with pytest.raises(UsageError) as caught:
        call(SnapshotService(), snapshot, target)
    assert "\n" not in str(caught.value)
    assert snapshot.read_bytes() == before
    assert not target.exists()


def test_overwrite_is_checked_whatever_the_target_holds(source: Path, snapshot: Path, target: Path) -> None:
    pack_tree(source, snapshot)
    with pytest.raises(UsageError, match="--overwrite"):
        restore(str(snapshot), str(target), RestoreOptions(overwrite="bogus"))  # type: ignore[arg-type]


PATHS = {
    "source_path",
    "output_path",
    "snapshot_path",
    "target_path",
    "path",
    "a",
    "b",
}  # arguments of a call that succeeds
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**5000, -1, 1 << 64]), st.floats(), st.text(max_size=8),
    st.binary(max_size=8), st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3), st.just(object()),
    st.just(print), st.sampled_from(["4KiB", "1e9", "²", "٣KiB", "\ud800", "a\0b", "always", "cpu", "lz4", "a\nb"]),
)  # fmt: skip


def parameters(method: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name not in {"self", *PATHS}]


@pytest.mark.parametrize(
    "method", ["create_snapshot", "restore_snapshot", "verify_snapshot", "list_entries", "read", "diff"]
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_is_taken_or_refused_in_one_line(method: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*parameters(getattr(SnapshotService, method)), "device", "jobs"]))
    values = {name: data.draw(ANYTHING, label=name)}
    with tempfile.TemporaryDirectory() as folder:
        tree, snapshot, target = (Path(folder) / part for part in ("tree", "x.dumont", "target"))
        tree.mkdir()
        (tree / "file").write_text("content")
        pack_tree(tree, snapshot)
        places = {
            "create_snapshot": (tree, Path(folder) / "y.dumont"),
            "restore_snapshot": (snapshot, target),
            "read": (snapshot, "file"),
            "diff": (snapshot, tree),
        }
        try:
            service = SnapshotService(**{name: values.pop(name) for name in ("device", "jobs") if name in values})
            getattr(service, method)(*places.get(method, (snapshot,)), **values)
        except DumontError as error:
            assert str(error) and "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=ANYTHING.filter(lambda value: not isinstance(value, (str, bytes)) or not {*"./", *b"./"} & {*value}))
def test_any_path_is_taken_or_refused_in_one_line(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("nothing").mkdir()
        pack_tree(Path("nothing"), Path("x.dumont"))
        for call in (
            lambda: SnapshotService().list_entries(value),
            lambda: SnapshotService().read("x.dumont", value),
            lambda: SnapshotService().read(value, "x"),
            lambda: SnapshotService().diff(value, "nothing"),
            lambda: SnapshotService().create_snapshot("nothing", value),
            lambda: SnapshotService().restore_snapshot("x.dumont", value, sync=False),
        ):
            try:
                call()
            except DumontError as error:
                assert str(error)


# --- signatures as a reader sees them ---------------------------------------------------------------------------------


RUNNING = ("device", "jobs")  # of the service, for every job
METHODS = {"create_snapshot": PackOptions, "restore_snapshot": RestoreOptions, "verify_snapshot": VerifyOptions}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_is_a_parameter_with_a_line_in_the_docstring(method: str) -> None:
    function = getattr(SnapshotService, method)
    named = parameters(function)
    options = dict(declared(METHODS[method]))
    wanted = {*options, *(f"{name}_from" for name in options if options[name].files)} - {*RUNNING}
    assert wanted - set(named) == set()
    documented = inspect.getdoc(function) or ""
    assert [name for name in named if f"\n    {name}: " not in documented] == []


def described(documented: Any) -> dict[str, str]:
    """Returns the descriptions under `Args:` in a docstring."""
    return dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(documented) or "", re.MULTILINE))


def words(option: Option) -> str:
    """Returns the first clause of an option's help, as a docstring writes it: of a function and not of a command."""
    clause = re.split(r"[;:.]", option.help)[0].removeprefix("Do not ")
    return (clause[0].lower() + clause[1:]).replace("OUT", "`output_path`").replace("SOURCE", "source")


@pytest.mark.parametrize(
    ("documented", "function", "options"),
    [
        (SnapshotService, SnapshotService, RunOptions),
        *((getattr(SnapshotService, method), getattr(SnapshotService, method), METHODS[method]) for method in METHODS),
        (SnapshotService.list_entries, SnapshotService.list_entries, ReadOptions),
        (SnapshotService.read, SnapshotService.read, ReadOptions),
        (SnapshotService.diff, SnapshotService.diff, DiffOptions),
        (SnapshotService.snapshot_info, SnapshotService.snapshot_info, ReadOptions),
        (SnapshotService.plan_snapshot, SnapshotService.plan_snapshot, PackOptions),
        (SnapshotService.plan_restore, SnapshotService.plan_restore, RestoreOptions),
    ],
    ids=["service", *METHODS, "list_entries", "read", "diff", "snapshot_info", "plan_snapshot", "plan_restore"],
)
def test_methods_have_the_words_and_defaults_of_the_options(documented: Any, function: Any, options: type) -> None:
    texts, given = described(documented), inspect.signature(function).parameters
    shared = {name: option for name, option in declared(options) if name in given}
    assert {name: given[name].default for name in shared} == {name: shared[name].default for name in shared}
    assert {name: texts[name] for name in shared if not texts[name].startswith(words(shared[name]))} == {}


def test_an_option_that_there_is_not_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="VerifyOptions has no option include"):
        checked(VerifyOptions, content=True, include=())


def test_the_marker_of_types_is_shipped() -> None:
    assert (Path(dumont_gpu.__file__).parent / "py.typed").is_file()


def test_a_user_s_code_sees_types(tmp_path: Path) -> None:
    installed = Path(dumont_gpu.__file__).parent
    if "site-packages" not in installed.parts:
        pytest.skip("mypy does not see an editable installation")
    example = tmp_path / "example.py"
    example.write_text((Path(__file__).parent / "typed_example.py").read_text(encoding="utf-8"))
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--warn-unused-ignores",
        "--cache-dir",
        tmp_path / "cache",
        example,
    ]
    ran = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, ["Success: no issues found in 1 source file"]), (
        ran.stdout
    )


def test_the_typed_example_does_what_it_says(tmp_path: Path) -> None:
    import typed_example

    (tmp_path / "ws/src").mkdir(parents=True)
    (tmp_path / "ws/src/a.py").write_text("print()\n")
    (tmp_path / "ws/src/a.pyc").write_text("compiled")
    snapshot, target = tmp_path / "x.dumont", tmp_path / "target"
    first = typed_example.look_before_you_leap(tmp_path / "ws", snapshot, target)
    assert first == ["2 entries, 1 files in 1 chunks", "would write src/a.py"]
    SnapshotService().restore_snapshot(snapshot, target)
    (target / "src/a.py").write_text("print('an hour')\n")
    again = typed_example.look_before_you_leap(tmp_path / "ws", snapshot, target)
    assert again[1:] == ["is newer, and would be written over: src/a.py"]


def test_the_info_of_a_snapshot_has_what_the_command_says(workspace: Path, snapshot: Path) -> None:
    packed = SnapshotService().create_snapshot(workspace, snapshot)
    found = SnapshotService().snapshot_info(snapshot, expect=packed.snapshot_id)
    assert (found.snapshot_id, found.original_size) == (packed.snapshot_id, packed.original_size)
    assert found.codec_bytes == packed.codec_bytes
    with pytest.raises(DumontError, match="another snapshot"):
        SnapshotService().snapshot_info(snapshot, expect="sha256:" + "0" * 64)
