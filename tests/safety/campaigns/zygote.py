"""The program, loaded once and forked for every command: a few hundredths of a second instead of a third.

`Program` starts a process of this module, in the locale, as the user and with the shim that a campaign asks for. That process
imports the command line, then forks for each command, so that a crash, a kill or a hang ends a single command.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

LIMIT = 60.0  # seconds; a command that takes longer hangs, even on a busy machine: commands take tenths of a second
MOST_OUTPUT = 1 << 20  # bytes of each stream that are kept


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int  # negative: the signal that ended the command
    out: bytes
    err: bytes
    peak: int  # bytes of memory
    seconds: float
    hung: bool = False

    @property
    def crashed(self) -> str | None:
        """Returns the defect in a command's outcome, whatever its input; None without a defect."""
        if self.hung:
            return f"hangs: ended after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by signal {-self.code}"
        if b"Traceback" in self.err or b"Warning:" in self.err or b"dumont_gpu/" in self.err:
            text = self.error
            return f"traceback or warning: {text.splitlines()[-1]}\n{text[-1500:]}"
        return None

    @property
    def error(self) -> str:
        return self.err.decode(errors="backslashreplace").strip()


class Program:
    """The command line of dumont-gpu, quickly started."""

    def __init__(
        self, env: Mapping[str, str] | None = None, user: int | None = None, preload: Path | None = None
    ) -> None:
        settings = dict(os.environ) | dict(env or {})
        if preload is not None:
            settings["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(preload or ""), "" if user is None else str(user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=settings,
            cwd="/",
        )

    def __call__(
        self,
        *arguments: str | bytes | Path,
        kill_after: float | None = None,
        failing: Sequence[int] | None = None,
        limit: float = LIMIT,
    ) -> Ran:
        """Runs a command.

        Args:
            kill_after: seconds until SIGKILL ends the command.
            failing: instructions for the shim: see `syscalls.py`.
            limit: seconds after which the command counts as hung.
        """
        request = {
            "arguments": [os.fsencode(argument).hex() for argument in arguments],
            "kill_after": kill_after,
            "failing": failing,
            "limit": limit,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        reply = json.loads(self._process.stdout.readline())
        out, err = bytes.fromhex(reply.pop("out")), bytes.fromhex(reply.pop("err"))
        self.counts: list[int] = reply.pop("counts")
        return Ran(out=out, err=err, **reply)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- the process ------------------------------------------------------------------------------------------------------


def serve(shim: str, user: str) -> None:
    """Answers requests on stdin until its end; as `user`, who need not be able to read the modules imported before."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    load()
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    failing = ctypes.CDLL(shim) if shim else None
    for line in requests:
        request = json.loads(line)
        arguments = [os.fsdecode(bytes.fromhex(argument)) for argument in request["arguments"]]
        reply = ran(arguments, request["kill_after"], request["limit"], failing, request["failing"])
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def load() -> None:
    """Runs some commands to import their modules: later, as another user, the installation may be out of reach."""
    import encodings.idna
    import encodings.raw_unicode_escape
    import encodings.unicode_escape  # noqa: F401
    import traceback  # noqa: F401

    import dumont_gpu.__main__
    import dumont_gpu.cli.endings
    import dumont_gpu.cli.main
    import dumont_gpu.storage.http
    import dumont_gpu.storage.server

    said = io.StringIO()
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        tree, snapshot, target = (os.path.join(place, name) for name in ("tree", "x.dumont", "target"))
        os.mkdir(tree)
        Path(tree, "file").write_bytes(b"a file")
        os.link(os.path.join(tree, "file"), os.path.join(tree, "link"))
        most = ("--device", "cpu", "--memory", "64MiB")
        for arguments in (
            ("--help",),
            ("pack", tree, "-o", snapshot, "--chunk-size", "1MiB", *most),
            ("pack", tree, "-o", tree, *most),  # refused
            ("info", snapshot),
            ("ls", "-l", snapshot),
            ("ls", "--json", snapshot, "fi*"),
            ("verify", "--content", snapshot, *most),
            ("restore", snapshot, target, "--include", "fi*", *most),
            ("restore", snapshot, target, "--overwrite", "always", *most),
        ):
            with contextlib.suppress(SystemExit, dumont_gpu.errors.DumontError):
                dumont_gpu.cli.main.app(list(arguments))


def ran(
    arguments: list[str], kill_after: float | None, limit: float, shim: Any, failing: Sequence[int] | None
) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            in_child(lambda: command(arguments, shim, failing), out.fileno(), err.fileno())
        ended, code, peak = wait(child, min(limit, kill_after if kill_after is not None else limit))
        return {
            "code": code,
            "out": read(out.fileno()).hex(),
            "err": read(err.fileno()).hex(),
            "peak": peak,
            "seconds": time.monotonic() - started,
            "hung": not ended and (kill_after is None or kill_after > limit),
            "counts": [shim.failing_count(number) for number in range(shim.failing_functions())] if shim else [],
        }


def in_child(work: Callable[[], None], out: int, err: int) -> NoReturn:
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 70
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def command(arguments: list[str], shim: Any, failing: Sequence[int] | None) -> None:
    from dumont_gpu.__main__ import main

    sys.argv = ["dumont-gpu", *arguments]
    if shim is not None:
        shim.failing_arm(*(failing or (-1, 0, 0, 0)))
    main()


def wait(child: int, limit: float) -> tuple[bool, int, int]:
    """Waits for a child, and kills it after `limit` seconds. Returns whether the child ended by itself, its status, and its peak."""
    descriptor = os.pidfd_open(child)
    ended = bool(select.select([descriptor], [], [], limit)[0])
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(descriptor)
    _, status, usage = os.wait4(child, 0)
    return ended, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def read(descriptor: int) -> bytes:
    return os.pread(descriptor, MOST_OUTPUT, 0)


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    serve(*sys.argv[1:])
