"""The command `reader`."""

from __future__ import annotations

from typing import Annotated

import typer

from dumont_gpu.reader import NAME


def reader(
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The file to write; -: print it.")
    ] = NAME,
) -> None:
    """Write a reader of snapshots that any machine with Python 3.9 runs: one file, nothing to install.

    It lists, verifies and restores snapshots, and checks every byte as verify --content does. It needs neither this
    package nor a compiler, and is slow; faster where NumPy or the C libraries of zstd and lz4 happen to be. A reader
    at FILE is replaced, any other file is not. pack --with-reader puts one beside the snapshot.

    \b
    Examples:
    dumont-gpu reader
    python3 dumont_reader.py restore workspace.dumont /workspace
    """
    import sys

    from dumont_gpu.jobs.reader_file import write_reader
    from dumont_gpu.reader import reader_source
    from dumont_gpu.sizes import one_line
    from dumont_gpu.storage import NetworkOptions

    if output == "-":
        sys.stdout.write(reader_source().decode())
        return
    write_reader(output, NetworkOptions())
    print(one_line(f"wrote {output}: python3 {output} -h says what it does"))
