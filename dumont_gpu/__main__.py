"""Entry points of the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Python's handler would end the imports with a traceback; `endings` installs its own handler later.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """dumont-gpu"""
    # --version skips the 0.2 s that importing typer takes.
    _run(_version if sys.argv[1:] in (["--version"], ["-V"]) else _command_line("app"))


def pack_main() -> None:
    """dumont-pack"""
    _run(_command_line("pack_app"))


def restore_main() -> None:
    """dumont-restore"""
    _run(_command_line("run_dumont_restore"))


def _run(job: Callable[[], object]) -> None:
    from dumont_gpu.cli import endings

    endings.run(job)


def _version() -> None:
    from dumont_gpu import __version__

    print(f"dumont-gpu {__version__}")


def _command_line(name: str) -> Callable[[], object]:
    """Returns a job that imports the command line: the import then fails under the handlers of `endings`."""

    def job() -> None:
        from dumont_gpu.cli import main

        getattr(main, name)()

    return job


if __name__ == "__main__":
    main()
