"""A server of files over http at the rate of a link, in a process of its own; counts the bytes that it sends.

A client in the server's process would share its core, and Python's lock, with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from dumont_gpu.bench.measure.links import Link
from dumont_gpu.sizes import KiB
from dumont_gpu.storage.server import Answers, SnapshotServer

_PIECE: Final = 256 * KiB  # bytes that arrive at once


class PacedServer:
    """Serves files until `close`.

    Args:
        files: each is served under its own name.
        rate: bits per second of the link that all connections share.
    """

    def __init__(self, files: Sequence[Path], rate: float) -> None:
        command = [
            sys.executable,
            "-m",
            "dumont_gpu.bench.measure.paced_server",
            str(rate),
            *(str(file.resolve()) for file in files),
        ]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd="/"
        )  # not beside some sources
        self.urls: list[str] = json.loads(self._answer())

    def __enter__(self) -> PacedServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def sent(self) -> int:
        """Returns the bytes of content sent so far."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return int(self._answer())

    def close(self) -> None:
        self._process.communicate()  # the end of its input ends it

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class _Shared:
    """The link, and what has crossed it; shared by the threads of all connections."""

    link: Link
    sent = 0
    lock = threading.Lock()


class _PacedAnswers(Answers):
    def send_content(self, file: BinaryIO, start: int, size: int) -> int:
        for at in range(0, size, _PIECE):
            piece = min(_PIECE, size - at)
            _Shared.link.wait_for(piece)
            with _Shared.lock:
                _Shared.sent += piece
            if super().send_content(file, start + at, piece) < piece:
                return at
        return size


def main() -> None:
    """Serves the files of the command line; answers each line of stdin with the bytes sent so far."""
    rate, *files = sys.argv[1:]
    _Shared.link = Link(float(rate))
    servers = [SnapshotServer(file, port=0, answers=_PacedAnswers) for file in files]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    print(json.dumps([server.url for server in servers]), flush=True)
    for _ in sys.stdin:
        print(_Shared.sent, flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
