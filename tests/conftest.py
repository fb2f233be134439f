"""Fixtures and small tools that many tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support import ptx_machine
from support.servers import (
    CERTIFICATE_VARIABLES,
    PROXY_VARIABLES,
    FaultServer,
    Gcs,
    Moto,
    Nginx,
    Rclone,
    RcloneHttp,
    S3Server,
)
from support.swift import Swift

# Who starts the tests by `nohup … &` has these ignored; every program that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

T = TypeVar("T")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the PTX machine, if a test wants it, before the first test's time runs."""
    wanted = any(hasattr(getattr(item, "module", None), "emulated_device") for item in session.items)
    if wanted and not session.config.option.collectonly and ptx_machine.missing() is None:
        ptx_machine.library()


@pytest.fixture(scope="session", autouse=True)
def _outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A child that runs `python -c` imports the package that is installed, not the checkout's, which has no kernels."""
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path.cwd() / ".hypothesis"))
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("working-directory"))
    yield
    os.chdir(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty directory to fill and pack."""
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Where a snapshot may be written."""
    return tmp_path / "snapshot.dumont"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a tree may be restored; does not exist yet."""
    return tmp_path / "target"


# --- servers: started when a test first needs them, stopped at the end ------------------------------------------------


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the machine's proxies, certificates and accounts from tests, whose servers run on 127.0.0.1."""
    accounts = [name for name in os.environ if name.startswith("AWS_")]
    for name in (*PROXY_VARIABLES, *(name.upper() for name in PROXY_VARIABLES), *CERTIFICATE_VARIABLES, *accounts):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where unfinished uploads are remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/dumont-gpu/uploads"


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    server = FaultServer()
    yield server
    server.close()


def _running(kind: type[T], factory: pytest.TempPathFactory) -> Iterator[T]:
    program = kind(factory.mktemp(kind.__name__))  # type: ignore[call-arg]
    yield program
    program.stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    yield from _running(Nginx, tmp_path_factory)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    yield from _running(Moto, tmp_path_factory)


@pytest.fixture
def s3(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """An S3 server that the environment names."""
    moto.use(monkeypatch)
    return moto


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcs]:
    yield from _running(Gcs, tmp_path_factory)


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    yield from _running(Rclone, tmp_path_factory)


@pytest.fixture(params=["moto", "rclone", "swift"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Every S3 server in turn, found by the environment."""
    found: S3Server = request.getfixturevalue(request.param)
    found.use(monkeypatch)
    return found


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    yield from _running(Swift, tmp_path_factory)


@pytest.fixture(scope="session")
def rclone_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneHttp]:
    yield from _running(RcloneHttp, tmp_path_factory)
