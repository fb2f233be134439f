"""Entry points of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dumont_gpu import endings


def main() -> None:
    """dumont-gpu"""
    # Without the 0.2 s that importing typer takes.
    endings.run(_version if sys.argv[1:] in (["--version"], ["-V"]) else _command_line("app"))


def pack_main() -> None:
    """dumont-pack"""
    endings.run(_command_line("pack_app"))


def restore_main() -> None:
    """dumont-restore"""
    endings.run(_command_line("restore_app"))


def _version() -> None:
    from dumont_gpu import __version__

    print(f"dumont-gpu {__version__}")


def _command_line(name: str) -> Callable[[], object]:
    """Imports the command line only when it runs: by then, whatever happens ends as it should."""

    def job() -> None:
        from dumont_gpu import cli

        getattr(cli, name)()

    return job


if __name__ == "__main__":
    main()
