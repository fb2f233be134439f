"""What a caller decides about a pack, a restore and a verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dumont_gpu.format.digests import DEFAULT_DIGEST
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.plan.methods import DEFAULT_METHOD
from dumont_gpu.storage import NetworkOptions
from dumont_gpu.tree.target.options import Overwrite

DEFAULT_MAX_SIZE: Final = 1 << 44  # 16 TiB: no workspace, but what a hostile sparse file declares


@dataclass(frozen=True, slots=True)
class PackOptions:
    method: str = DEFAULT_METHOD
    chunk_size: int = DEFAULT_CHUNK_SIZE  # bytes
    exclude: Sequence[str] = ()  # patterns as in globs.py
    digest: str = DEFAULT_DIGEST  # of chunks and files: "sha256" or "blake3"
    owner: bool = False  # record user and group ids
    device: str = "auto"
    gpu_memory: int | None = None  # bytes of device memory to take at most; None: half of what is free
    paranoid: bool = False  # decode every chunk, and compare, before it is written
    jobs: int = 0  # threads that encode; 0: one per core, or fewer where the machine's limits ask for it
    memory: int = 0  # bytes for chunk buffers; 0: 512 MiB, or less where the machine's limits leave less
    force: bool = False  # replace what is at the output, though it is no snapshot
    follow_outside: bool = False  # store what links lead to that is not packed otherwise
    network: NetworkOptions = field(default_factory=NetworkOptions)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    include: Sequence[str] = ()  # patterns as in globs.py; empty: everything
    exclude: Sequence[str] = ()
    verify: bool = False  # also check the content of every file against its own digest
    expect: str | None = None  # the snapshot id it must have
    overwrite: Overwrite = "refuse"
    owner: bool = False
    preserve_special: bool = False
    sync: bool = True
    max_size: int = DEFAULT_MAX_SIZE  # bytes that all files together may declare
    device: str = "auto"
    gpu_memory: int | None = None  # bytes of device memory to take at most; None: half of what is free
    jobs: int = 0  # threads that check and decode; 0: as for a pack
    memory: int = 0  # bytes for chunk buffers; 0: 512 MiB, or less where the machine's limits leave less
    network: NetworkOptions = field(default_factory=NetworkOptions)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    content: bool = False  # also decode every chunk and check every file's content
    expect: str | None = None
    device: str = "auto"
    gpu_memory: int | None = None
    jobs: int = 0
    memory: int = 0  # bytes for chunk buffers; 0: 512 MiB, or less where the machine's limits leave less
    network: NetworkOptions = field(default_factory=NetworkOptions)
