"""Entry points of the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """dumont-gpu"""
    if sys.argv[1:] in (["--version"], ["-V"]):  # without the 0.2 s that importing typer takes
        from dumont_gpu import __version__

        print(f"dumont-gpu {__version__}")
        return
    from dumont_gpu.cli import app, run

    run(app)


def pack_main() -> None:
    """dumont-pack"""
    from dumont_gpu.cli import pack_app, run

    run(pack_app)


def restore_main() -> None:
    """dumont-restore"""
    from dumont_gpu.cli import restore_app, run

    run(restore_app)


if __name__ == "__main__":
    main()
