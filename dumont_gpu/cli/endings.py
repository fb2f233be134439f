"""How a job ends: its streams, its signals and its exit code, whether streams are closed or full, or a signal comes.

This module is imported first, so that a signal always finds its handler, and imports little itself.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn

from dumont_gpu.errors import DumontError, left_behind
from dumont_gpu.shortages import shortage

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNAL_EXIT: Final = 128  # plus the number of the signal
_GC_THRESHOLD: Final = 1_000_000  # entries are many and hold no cycles: collections would find nothing
_SOON: Final = 0.01  # seconds
_M_ARENA_MAX: Final = -8  # of mallopt


class Stopped(BaseException):
    """A signal asks the job to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def run(job: Callable[[], object]) -> NoReturn:
    """Runs `job` and exits with its code; an error becomes a line on stderr, and a traceback only with --debug."""
    _asked.clear()
    _instead.clear()
    _catch_signals()
    _open_missing_streams()
    sys.stdout, sys.stderr = _outlet(sys.stdout, 1), _outlet(sys.stderr, 2)
    _raise_open_files()
    _spare_address_space()
    _tell_uncaught_errors()
    gc.set_threshold(_GC_THRESHOLD)
    code = _exit_code(job)
    _set_signals(signal.SIG_DFL)  # nothing is left to clean up
    if code < _SIGNAL_EXIT:  # after a signal, a pipe that nobody reads might block for ever
        sys.stdout.flush()
    lost = _lost(sys.stdout)
    if lost is not None and not code:
        code = _tell(DumontError(f"cannot write what there is to say: {lost.strerror}"))
    sys.stderr.flush()
    os._exit(code)  # at once: freeing thousands of entries would take time and gain nothing


def _exit_code(job: Callable[[], object]) -> int:
    try:
        try:
            job()
            sys.stdout.flush()
        finally:
            _set_signals(signal.SIG_IGN)  # the job is over: nothing is left to stop
    except SystemExit as ended:  # as every command ends
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        return _tell(DumontError(str(ended.code)))
    except BaseException as error:
        return _tell(error)
    return 0


# --- messages ---------------------------------------------------------------------------------------------------------

_asked: Final[dict[str, bool]] = {}  # for --json and --debug, once the command line is parsed


def asked(*, as_json: bool, debug: bool) -> None:
    """Tells how the user wants to see errors, once the command line is parsed."""
    _asked.update({"--json": as_json, "--debug": debug})


_instead: Final[dict[int, int]] = {}  # exit code of an error -> the one that it has in this command


def replace_code(code: int, other: int) -> None:
    """Gives errors another exit code, for a command to which theirs means something else."""
    _instead[code] = other


def _wants(flag: str) -> bool:
    """Returns whether the user gave a flag; before the command line is parsed, any equal argument counts."""
    return _asked.get(flag, flag in sys.argv)


def _tell(error: BaseException) -> int:
    """Prints an error on stderr; returns its exit code."""
    code = _code(error)
    try:
        if _wants("--debug"):
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__)
        print(_line(error, code), file=sys.stderr)
    except Exception:  # no memory even for a message
        os.write(2, f"dumont-gpu: {shortage(MemoryError())}\n".encode())
    return code


def _code(error: BaseException) -> int:
    if isinstance(error, Stopped):
        return _SIGNAL_EXIT + error.number
    if isinstance(error, KeyboardInterrupt):
        return _SIGNAL_EXIT + signal.SIGINT
    code = error.exit_code if isinstance(error, DumontError) else DumontError.exit_code
    return _instead.get(code, code)


def _message(error: BaseException) -> str:
    if isinstance(error, Stopped | KeyboardInterrupt):
        return "stopped"
    if isinstance(error, DumontError):
        return str(error)
    if short := shortage(error):
        return short
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{place}{error.strerror}"
    return f"defect of dumont-gpu: {type(error).__name__}: {error}; --debug shows where"


def _line(error: BaseException, code: int) -> str:
    """Returns the message: the error, then the files that it leaves behind and the command that goes on, if any."""
    message, left, command = _message(error), left_behind(error), getattr(error, "command", "")
    if _wants("--json"):
        import json

        record: dict[str, Any] = {"type": "error", "code": code, "message": message}
        record |= {"left": {"message": left.text, **left.facts, "goes_on": left.goes_on}} if left else {}
        return json.dumps(record | ({"command": command} if command else {}))
    from dumont_gpu.sizes import one_line

    clauses = (message, left.text if left else "", f"to go on: {command}" if command else "")
    return f"dumont-gpu: {one_line('; '.join(filter(None, clauses)))}"


# --- signals ----------------------------------------------------------------------------------------------------------

_caught: Final[list[signal.Signals]] = []


def _catch_signals() -> None:
    """Makes each signal raise Stopped in the main thread, unless our parent has the signal ignored (nohup)."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            _caught.append(number)
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None = None) -> None:
    _set_signals(signal.SIG_IGN)  # nothing may interrupt the clean-up; SIGQUIT still ends everything
    raise Stopped(number)


def _set_signals(action: signal.Handlers) -> None:
    for number in _caught:
        signal.signal(number, action)


# --- streams ----------------------------------------------------------------------------------------------------------


class _Outlet(io.FileIO):
    """A stream that nobody need read: text that cannot be written is dropped, and the first error is kept.

    The reader may have left, a disk may be full, a terminal hung up: no job fails for that.
    """

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        while self.lost is None:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self.lost = error
                break
            if written is not None:
                return written
            import select

            select.select((), (self.fileno(),), ())  # another program made the stream non-blocking
        return len(data)


_missing: Final[set[int]] = set()


def was_closed(number: int) -> bool:
    """Whether stdin (0), stdout (1) or stderr (2) was closed when the program began."""
    return number in _missing


def _open_missing_streams() -> None:
    """Opens /dev/null in place of a closed stdin, stdout or stderr: the next file would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _missing.add(number)
            try:
                os.open(os.devnull, os.O_RDWR)
            except OSError:
                os.open("/", os.O_RDONLY)  # can be neither read nor written
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115


def _outlet(stream: Any, number: int) -> Any:
    """Returns a stream to the same descriptor that raises no errors."""
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # a test or a debugger has put it there
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(number, "w", closefd=False)),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",  # paths need not fit the terminal's encoding
        line_buffering=number == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def write_bytes(data: memoryview) -> bool:
    """Writes bytes to stdout; returns False once nobody can have more: the reader has left, or there is no room."""
    sys.stdout.flush()  # text before it
    sys.stdout.buffer.write(data)
    return getattr(getattr(sys.stdout.buffer, "raw", None), "lost", None) is None


def _lost(stream: Any) -> OSError | None:
    """Returns the error that lost text of a stream; None too if the reader has left, who needs no text."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Outlet) else None
    return None if isinstance(lost, BrokenPipeError) else lost


# --- limits, and errors that nobody catches ---------------------------------------------------------------------------


def _raise_open_files() -> None:
    """Raises the soft limit of descriptors to the hard limit: the soft limit is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # the kernel may refuse its own hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_address_space() -> None:
    """Under `ulimit -v`, makes all threads share an arena: glibc sets 64 MiB of addresses aside for each arena."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        import ctypes

        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _tell_uncaught_errors() -> None:
    """Makes an error of a thread or a destructor a line, not a traceback, and keeps a signal that comes there."""

    def escaped_from_thread(escaped: threading.ExceptHookArgs) -> None:
        if escaped.exc_value is not None:
            os._exit(_tell(escaped.exc_value))  # waiting for that thread would never end

    def escaped_from_destructor(escaped: Any) -> None:
        if isinstance(escaped.exc_value, Stopped):
            number = escaped.exc_value.number
            signal.signal(signal.SIGALRM, lambda *_: _stop(number))
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        elif _wants("--debug"):
            sys.__unraisablehook__(escaped)

    threading.excepthook = escaped_from_thread
    sys.unraisablehook = escaped_from_destructor
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
