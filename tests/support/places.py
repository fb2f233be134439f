"""The places that the suites of sources and sinks run over. A new scheme adds a row to `SOURCES`, and to `SINKS`."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dumont_gpu.storage import MemorySink, Sink, open_sink
from dumont_gpu.storage.object_store import ObjectSigner
from dumont_gpu.storage.s3_requests import S3Requests
from dumont_gpu.storage.server import SnapshotServer
from dumont_gpu.storage.tls import tls_context
from support.servers import FaultServer, Gcs, Nginx, RcloneHttp, S3Server, at_once, chunked

Put = Callable[[bytes], str]  # puts a snapshot's bytes somewhere and returns its location


@dataclass(frozen=True)
class Where:
    """What a row may use to make a place of one test's own."""

    request: pytest.FixtureRequest
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def name(self) -> str:
        return re.sub("[^a-z0-9]+", "-", self.request.node.name)


@dataclass(frozen=True)
class SourceRow:
    """A place that snapshots are read from."""

    schemes: tuple[str, ...]  # that the place covers
    place: Callable[[Where], AbstractContextManager[Put]]


@dataclass(frozen=True)
class SinkPlace:
    """A place that snapshots are written to."""

    location: str
    open: Callable[[], Sink]
    read: Callable[[], bytes | None]  # what is there; None: nothing
    leftovers: Callable[[], list[str]]  # what is there beside a snapshot
    put: Callable[[bytes], object] | None = None  # as another program does; None: no other program can
    no_room: Callable[[], AbstractContextManager[None]] | None = None  # for more than a MiB; None: cannot be had
    path: Path | None = None  # of the snapshot; None: no file of this machine


@dataclass(frozen=True)
class SinkRow:
    schemes: tuple[str, ...]
    place: Callable[[Where], SinkPlace]


# --- sources ----------------------------------------------------------------------------------------------------------


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@contextmanager
def local_file(where: Where) -> Iterator[Put]:
    yield lambda content: str(written(where.folder / "x.dumont", content))


@contextmanager
def own_server(where: Where) -> Iterator[Put]:
    """What `dumont-gpu serve` starts."""
    path = written(where.folder / "x y.dumont", b"")
    server = SnapshotServer(str(path), port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield lambda content: written(path, content) and server.url
    server.close()
    thread.join()


@contextmanager
def chunked_bodies(where: Where) -> Iterator[Put]:
    """A server whose answers have no length."""
    server: FaultServer = where.request.getfixturevalue("fault_server")
    server.script = lambda made: chunked if made.end else None

    def put(content: bytes) -> str:
        server.data = content
        if not content:
            pytest.skip("a body in pieces has at least one")
        return server.url

    yield put


def web_server(fixture: str) -> Callable[[Where], AbstractContextManager[Put]]:
    @contextmanager
    def place(where: Where) -> Iterator[Put]:
        server: Nginx | RcloneHttp = where.request.getfixturevalue(fixture)
        name = f"{where.name}.dumont"
        yield lambda content: written(server.root / name, content) and f"http://127.0.0.1:{server.port}/{name}"

    return place


def s3_objects(fixture: str) -> Callable[[Where], AbstractContextManager[Put]]:
    @contextmanager
    def place(where: Where) -> Iterator[Put]:
        server: S3Server = where.request.getfixturevalue(fixture)
        server.use(where.monkeypatch)
        yield lambda content: upload(f"{where.name}/x ü+?.dumont", content)

    return place


@contextmanager
def google_objects(where: Where) -> Iterator[Put]:
    server: Gcs = where.request.getfixturevalue("gcs")
    for name, value in server.environment().items():
        where.monkeypatch.setenv(name, value)

    def put(content: bytes) -> str:
        if not content:
            pytest.skip("this server takes no empty object")
        return server.put(f"{where.name}/x ü.dumont", content)

    yield put


# az:// has no row: no server for it is small enough to come with the tests. Its source module is that of gs:// and s3://.
SOURCES = {
    "local": SourceRow(("",), local_file),
    "serve": SourceRow(("http",), own_server),
    "chunked": SourceRow(("http",), chunked_bodies),
    "nginx": SourceRow(("http",), web_server("nginx")),
    "rclone_http": SourceRow(("http",), web_server("rclone_http")),
    "moto": SourceRow(("s3",), s3_objects("moto")),
    "swift": SourceRow(("s3",), s3_objects("swift")),
    "gs": SourceRow(("gs",), google_objects),
}


# --- sinks ------------------------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def file_sink(where: Where) -> SinkPlace:
    folder = where.folder / "place"
    folder.mkdir()
    path = folder / "x.dumont"
    return SinkPlace(
        location=str(path),
        open=lambda: open_sink(str(path)),
        read=lambda: path.read_bytes() if path.exists() else None,
        leftovers=lambda: sorted(set(os.listdir(folder)) - {path.name}),
        put=path.write_bytes,
        no_room=file_size_limit,
        path=path,
    )


def memory_sink(where: Where) -> SinkPlace:
    opened: list[MemorySink] = []

    def open_one() -> Sink:
        opened.append(MemorySink())
        return opened[-1]

    def read() -> bytes | None:
        return next((bytes(sink.data) for sink in reversed(opened) if sink.committed), None)

    return SinkPlace(
        "<memory>", open_one, read, lambda: [sink.location for sink in opened if sink.data and not sink.committed]
    )


def s3_sink(fixture: str) -> Callable[[Where], SinkPlace]:
    def place(where: Where) -> SinkPlace:
        server: S3Server = where.request.getfixturevalue(fixture)
        server.use(where.monkeypatch)
        key = f"sinks/{where.name}"
        location = f"s3://bucket/{key}"
        return SinkPlace(
            location=location,
            open=lambda: open_sink(location, at_once()),
            read=lambda: downloaded(key),
            leftovers=lambda: [upload.id for upload in s3_requests(location).uploads()],
            put=lambda content: upload(key, content),
        )

    return place


SINKS = {
    "local": SinkRow(("",), file_sink),
    "memory": SinkRow((), memory_sink),
    "moto": SinkRow(("s3",), s3_sink("moto")),
    "rclone": SinkRow(("s3",), s3_sink("rclone")),
    "swift": SinkRow(("s3",), s3_sink("swift")),
}


# --- objects in S3, as another program sees them ----------------------------------------------------------------------


def upload(key: str, content: bytes) -> str:
    import obstore
    from obstore.store import S3Store

    obstore.put(S3Store("bucket", client_options={"allow_http": True}), key, content)
    return f"s3://bucket/{key}"


def downloaded(key: str) -> bytes | None:
    import obstore
    from obstore.store import S3Store

    with contextlib.suppress(FileNotFoundError):
        return bytes(obstore.get(S3Store("bucket", client_options={"allow_http": True}), key).bytes())
    return None


def s3_requests(location: str) -> S3Requests:
    options = at_once()
    return S3Requests(ObjectSigner(location), options, options.patience(location), tls_context(), threading.Event())
