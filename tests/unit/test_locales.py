"""Names are bytes: the same snapshot and the same tree come out, whatever the locale of the process."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dumont_gpu

NAMES = [b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", "日本".encode(), b"plain", b"ansi\x1b[31m"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF8 = {"LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="session")
def legacy_locales(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Environments of locales that are not UTF-8, made here: no machine need have them installed."""
    folder = tmp_path_factory.mktemp("locales")
    made = {}
    for language, charset in (("en_US", "ISO-8859-1"), ("ja_JP", "EUC-JP")):
        name = f"{language}.{charset}"
        command = ["localedef", "--no-archive", "-i", language, "-f", charset, str(folder / name)]
        if shutil.which("localedef") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            made[charset] = {"LC_ALL": name, "LOCPATH": str(folder), "PYTHONUTF8": "0"}
    return made


@pytest.fixture(params=["ASCII", "ISO-8859-1", "EUC-JP"])
def locale(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "ASCII":
        return ASCII
    made: dict[str, dict[str, str]] = request.getfixturevalue("legacy_locales")
    if request.param not in made:
        pytest.skip(f"localedef cannot make a locale with {request.param} here (Debian's package locales)")
    return made[request.param]


def python(*arguments: str | bytes | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        cwd="/",  # in a checkout, Python would import the checkout, which has no compiled kernels
    )


def cli(*arguments: str | bytes | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return python("-m", "dumont_gpu", *arguments, environment=environment)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files, directories, symlinks and hard links with names of every kind; skips where they cannot be."""
    root = os.fsencode(tmp_path / "tree")
    os.mkdir(root)
    for number, name in enumerate(NAMES):
        folder = root + b"/" + name
        try:
            os.mkdir(folder)
        except OSError:
            pytest.skip("this file system does not hold names that are not UTF-8")
        for inner in NAMES:
            with open(folder + b"/" + inner, "wb") as file:
                file.write(inner * (number + 1))
        os.symlink(b"../" + name + b"/" + name, folder + b"/link")
        os.link(folder + b"/" + name, folder + b"/hard-" + name)
    return tmp_path / "tree"


def listing(root: Path) -> dict[bytes, tuple[int, int, bytes]]:
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = folder + b"/" + name
            status = os.lstat(path)
            content = b""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
            found[path[len(os.fsencode(root)) :]] = status.st_mode, status.st_mtime_ns, content
    return found


def paths(snapshot: Path) -> list[bytes]:
    """The paths in a snapshot's manifest, as its JSON has them."""
    script = (
        "import sys; from dumont_gpu import SnapshotService as S\n"
        "import os; sys.stdout.buffer.write(b'\\n'.join(os.fsencode(e.path) for e in S().list_entries(sys.argv[1])))"
    )
    result = python("-c", script, snapshot, environment=UTF8)
    assert result.returncode == 0, result.stderr
    return result.stdout.split(b"\n")


def test_a_snapshot_does_not_depend_on_the_locale(tree: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    fixed = {"SOURCE_DATE_EPOCH": "1700000000"}
    for name, environment in (("utf8", UTF8), ("other", locale)):
        packed = cli("pack", tree, "-o", tmp_path / name, "--jobs", "1", environment=environment | fixed)
        assert (packed.returncode, packed.stderr) == (0, b"")
    assert (tmp_path / "utf8").read_bytes() == (tmp_path / "other").read_bytes()
    assert b"/".join([NAMES[0], NAMES[1]]) in paths(tmp_path / "other")


def test_a_tree_does_not_depend_on_the_locale(tree: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    snapshot, target = tmp_path / "s.dumont", tmp_path / "target"
    assert cli("pack", tree, "-o", snapshot, environment=UTF8).returncode == 0
    for policy in ("refuse", "if-changed", "always"):
        options = [] if policy == "refuse" else ["--overwrite", policy]
        restored = cli("restore", snapshot, target, *options, "--verify", environment=locale)
        assert (restored.returncode, restored.stderr) == (0, b"")
        assert listing(target) == listing(tree)


@pytest.mark.parametrize("command", [["ls", "-l"], ["ls"], ["ls", "--json"], ["info"], ["verify", "--content"]])
def test_names_are_shown_in_every_locale(
    tree: Path, tmp_path: Path, locale: dict[str, str], command: list[str]
) -> None:
    snapshot = tmp_path / "s.dumont"
    assert cli("pack", tree, "-o", snapshot, environment=UTF8).returncode == 0
    shown = cli(command[0], snapshot, *command[1:], environment=locale)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"\x1b" not in shown.stdout


def test_a_name_given_as_bytes_selects_its_entry(tree: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    snapshot, target = tmp_path / "s.dumont", tmp_path / "target"
    assert cli("pack", tree, "-o", snapshot, environment=UTF8).returncode == 0
    restored = cli("restore", snapshot, target, "--include", b"/" + NAMES[1] + b"/plain", environment=locale)
    assert (restored.returncode, restored.stderr) == (0, b"")
    assert set(listing(target)) == {b"/" + NAMES[1], b"/" + NAMES[1] + b"/plain"}


def test_the_api_does_not_depend_on_the_locale(tree: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    script = (
        "import sys; from dumont_gpu import SnapshotService as S\n"
        "S().create_snapshot(sys.argv[1], sys.argv[2]); S().restore_snapshot(sys.argv[2], sys.argv[3])"
    )
    result = python("-c", script, tree, tmp_path / "s.dumont", tmp_path / "target", environment=locale)
    assert (result.returncode, result.stderr) == (0, b"")
    assert listing(tmp_path / "target") == listing(tree)
    assert sorted(paths(tmp_path / "s.dumont")) == sorted(path[1:] for path in listing(tree))


def test_json_does_not_depend_on_the_locale(tree: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    snapshot = tmp_path / "s.dumont"
    assert cli("pack", tree, "-o", snapshot, environment=UTF8).returncode == 0
    listed = [cli("ls", snapshot, "--json", environment=environment).stdout for environment in (UTF8, locale)]
    assert listed[0] == listed[1]
    assert [json.loads(line) for line in listed[0].splitlines()]


def test_the_package_reads_and_writes_text_as_utf8() -> None:
    """A file of the package, or of a user, does not change its meaning with the locale."""
    calls = [
        f"{path.name}:{node.lineno}"
        for path in Path(dumont_gpu.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "write_text")
        and "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert calls == []
