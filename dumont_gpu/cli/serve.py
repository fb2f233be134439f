"""The command `serve`."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    snapshot: Annotated[str, typer.Argument(metavar="SNAP", help="The snapshot to serve: a path.")],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0: on every network, for everybody.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: any free port.")] = 8700,
) -> None:
    """Serve a snapshot over http, for another machine or a test. Whoever reaches the address can read it.

    \b
    Examples:
    dumont-gpu serve workspace.dumont --host 0.0.0.0
    dumont-gpu restore http://that-machine:8700/workspace.dumont /workspace
    """
    from dumont_gpu.storage.server import SnapshotServer

    server = SnapshotServer(snapshot, host, port)
    print(f"serving {server.url}", flush=True)
    try:
        server.serve_forever()
    finally:
        server.close()
