"""The cache of compiled kernels: whole files of this user's own, or nothing. Nobody else decides what a device runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dumont_gpu.backends import kernel_cache
from dumont_gpu.backends.kernel_cache import KernelCache

KEY, CODE = "0123abcd", b"code of a kernel" * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "caches" / "kernels"


@pytest.fixture
def cache(folder: Path) -> KernelCache:
    cache = KernelCache(folder)
    cache.store(KEY, CODE)
    return cache


def test_what_was_stored_is_loaded_and_is_nobody_elses(cache: KernelCache, folder: Path) -> None:
    assert cache.load(KEY) == CODE
    assert cache.load("another") is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder) == [KEY]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_ignored(mode: int, cache: KernelCache, folder: Path) -> None:
    folder.chmod(mode)
    assert cache.load(KEY) is None
    cache.store("more", CODE)
    assert os.listdir(folder) == [KEY]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to_is_ignored(mode: int, cache: KernelCache, folder: Path) -> None:
    (folder / KEY).chmod(mode)
    assert cache.load(KEY) is None


def test_what_belongs_to_another_user_is_ignored(
    cache: KernelCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert cache.load(KEY) is None
    cache.store("more", CODE)
    assert os.listdir(folder) == [KEY]


def test_a_file_of_another_user_in_the_own_folder_is_ignored(cache: KernelCache, folder: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(folder / KEY, 1234, -1)
    assert cache.load(KEY) is None


def test_links_are_not_followed(cache: KernelCache, folder: Path, tmp_path: Path) -> None:
    (folder / KEY).rename(tmp_path / "elsewhere")
    (folder / KEY).symlink_to(tmp_path / "elsewhere")
    assert cache.load(KEY) is None
    cache.store(KEY, b"new")  # replaces the link, and not the file behind it
    assert cache.load(KEY) == b"new"
    assert (tmp_path / "elsewhere").read_bytes().endswith(CODE)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert cache.load(KEY) is None


def test_what_is_no_file_is_not_waited_for(cache: KernelCache, folder: Path) -> None:
    (folder / KEY).unlink()
    os.mkfifo(folder / KEY, 0o600)
    assert cache.load(KEY) is None


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 100, None])
def test_a_damaged_file_counts_as_missing(content: bytes | None, cache: KernelCache, folder: Path) -> None:
    stored = (folder / KEY).read_bytes()
    (folder / KEY).write_bytes(stored[:-1] + b"X" if content is None else content)
    assert cache.load(KEY) is None
    cache.store(KEY, CODE)
    assert cache.load(KEY) == CODE


def test_a_huge_file_is_not_read(cache: KernelCache, folder: Path) -> None:
    os.truncate(folder / KEY, 1 << 40)
    assert cache.load(KEY) is None


def test_a_cache_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = KernelCache(tmp_path / "file" / "kernels")
    cache.store(KEY, CODE)
    assert cache.load(KEY) is None


def test_a_full_disk_leaves_no_part_of_a_file(
    cache: KernelCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel_cache.os, "rename", full)
    cache.store("more", CODE)
    assert os.listdir(folder) == [KEY]
    assert cache.load("more") is None


def test_the_oldest_files_go(cache: KernelCache, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "_MAX_FILES", 3)
    os.utime(folder / KEY, (1, 1))
    for number in range(5):
        cache.store(f"{number}", CODE)
        os.utime(folder / f"{number}", (100 + number, 100 + number))
    assert sorted(os.listdir(folder)) == ["2", "3", "4"]


def test_the_users_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, place in (("", "home/.cache"), ("relative", "home/.cache"), (str(tmp_path / "c"), "c")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        cache = KernelCache.of_user()
        assert cache is not None
        cache.store(KEY, CODE)
        assert (tmp_path / place / "dumont-gpu" / "kernels" / KEY).exists()


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert KernelCache.of_user() is None
