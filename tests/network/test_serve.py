"""dumont-gpu serve: ranges and conditions as in HTTP, one file and nothing else."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import PROGRAM, cli
from support.snapshots import assert_same_tree, pack_tree

from dumont_gpu.storage.server import Selected, SnapshotServer, select

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SnapshotServer]:
    (tmp_path / "x.dumont").write_bytes(CONTENT)
    (tmp_path / "secret").write_text("not for you")
    found = SnapshotServer(str(tmp_path / "x.dumont"), port=0)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.close()
    thread.join()


def ask(
    server: SnapshotServer, method: str = "GET", path: str = "/x.dumont", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@pytest.mark.parametrize(
    ("header", "selected"),
    [
        (None, Selected(200, 0, 10)),
        ("bytes=0-3", Selected(206, 0, 4)),
        ("bytes=4-", Selected(206, 4, 10)),
        ("bytes=9-9", Selected(206, 9, 10)),
        ("bytes=5-100", Selected(206, 5, 10)),
        ("bytes=-3", Selected(206, 7, 10)),
        ("bytes=-30", Selected(206, 0, 10)),
        ("bytes=-0", Selected(416, 0, 0)),
        ("bytes=10-", Selected(416, 0, 0)),
        ("bytes=10-12", Selected(416, 0, 0)),
        ("bytes=3-2", Selected(200, 0, 10)),
        ("bytes=0-1,4-5", Selected(200, 0, 10)),
        ("bytes=-", Selected(200, 0, 10)),
        ("lines=0-3", Selected(200, 0, 10)),
        ("bytes=" + "9" * 5000 + "-", Selected(200, 0, 10)),
    ],
)  # fmt: skip
def test_range_headers_mean_what_http_says(header: str | None, selected: Selected) -> None:
    assert select(header, 10) == selected


def test_ranges_conditions_and_heads(server: SnapshotServer) -> None:
    status, headers, body = ask(server)
    assert (status, body, headers["accept-ranges"]) == (200, CONTENT, "bytes")
    etag = headers["etag"]
    status, headers, body = ask(server, Range="bytes=10-19", If_Match=f'"other", {etag}')
    assert (status, body, headers["content-range"]) == (206, CONTENT[10:20], "bytes 10-19/1024")
    assert ask(server, Range="bytes=10-19", If_Match='"other"')[0] == 412
    assert ask(server, If_Match="*")[0] == 200
    assert ask(server, Range="bytes=2000-")[1]["content-range"] == "bytes */1024"
    status, headers, body = ask(server, "HEAD", Range="bytes=10-19")
    assert (status, headers["content-length"], body) == (206, "10", b"")


def test_nothing_but_the_snapshot_is_served(server: SnapshotServer) -> None:
    for path in ("/", "/secret", "/x.dumont/../secret", "/../x.dumont", "/%2e%2e/secret", "/X.DUMONT"):
        assert ask(server, path=path)[0] == 404
    for method in ("PUT", "POST", "DELETE"):
        assert ask(server, method)[0] == 501
    assert ask(server, path="/x%2Edumont?any")[0] == 200


def test_a_snapshot_that_is_replaced_or_removed_is_noticed(server: SnapshotServer) -> None:
    etag = ask(server, "HEAD")[1]["etag"]
    new = server.file.with_name("new")
    new.write_bytes(CONTENT[::-1])
    new.rename(server.file)
    assert ask(server, If_Match=etag)[0] == 412
    assert ask(server)[2] == CONTENT[::-1]
    server.file.unlink()
    assert ask(server)[0] == 404


def test_closing_ends_connections_that_wait(server: SnapshotServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request("HEAD", "/x.dumont")
    connection.getresponse().read()
    server.close()
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("HEAD", "/x.dumont")
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{tmp}/nothing"], 10, "no such snapshot"),
        (["{tmp}"], 2, "not a regular file"),
        (["{tmp}/x", "--host", "192.0.2.1"], 1, "cannot be listened on"),
        (["{tmp}/x", "--port", "70000"], 2, "port"),
    ],
)
def test_mistakes_are_clear_errors(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    ran = cli("serve", *(part.format(tmp=tmp_path) for part in arguments), TERM="dumb")
    assert ran.returncode == code
    assert said in ran.stderr


def test_two_machines_need_nothing_else(source: Path, snapshot: Path, target: Path) -> None:
    (source / "file").write_text("content")
    pack_tree(source, snapshot)
    command = [PROGRAM, "serve", str(snapshot), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout and process.stderr
        url = process.stdout.readline().split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/snapshot\.dumont", url)
        assert cli("restore", url, target).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr.read() == "dumont-gpu: stopped\n"
    assert_same_tree(source, target)
