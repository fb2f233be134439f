"""The options of jobs, each declared once: for the command line, for the Python API and for the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dumont_gpu.format.digests import DEFAULT_DIGEST, DIGESTS
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.jobs.arguments import MAX_CONNECTIONS, MAX_JOBS
from dumont_gpu.jobs.parameters import (
    DEVICE,
    DURATION,
    FLAG,
    PATTERNS,
    RATE,
    SIZE,
    TEXT,
    choice,
    group,
    option,
    whole,
)

if TYPE_CHECKING:  # the command line reads this module at every start
    from dumont_gpu.storage import NetworkOptions
    from dumont_gpu.tree.target.options import Overwrite

# As plan/methods.py and codecs/zstd.py have them, which load the codecs; a test compares both.
DEFAULT_METHOD: Final = "hybrid_v3"
DEFAULT_LINK: Final = 125_000_000  # bytes per second: 1 Gbit/s
DEFAULT_LEVEL: Final = 3
MAX_LEVEL: Final = 19
DEFAULT_MAX_SIZE: Final = 1 << 44  # 16 TiB: no workspace, but what a hostile sparse file declares
DEFAULT_READ_SIZE: Final = 1 << 30  # of one file in memory, for a Python caller
MAX_STRIP: Final = 16384  # names: no path has more
DEFAULT_PATIENCE: Final = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Network:
    """How a job may use the network, as far as a user decides that."""

    connections: int = option(
        0, whole(MAX_CONNECTIONS, "N"), "Connections to a server; 0: 16 (4 nearby), and more if that helps."
    )
    limit_rate: int = option(0, SIZE, "Bytes per second to download, at most; 0: no limit.")
    patience: float = option(
        DEFAULT_PATIENCE, DURATION, "How long to keep trying while a server sends nothing: 90, 90s, 5m."
    )
    discard: bool = option(
        False, FLAG, "Leave no parts of a stopped publish at the server: of this publish, or of an earlier one."
    )

    def made(self) -> NetworkOptions:
        """Returns the options that the storage takes; only here is the storage imported."""
        from dumont_gpu.storage import NetworkOptions
        from dumont_gpu.storage.retry import RetryPolicy

        return NetworkOptions(
            connections=self.connections,
            limit_rate=self.limit_rate,
            retry=RetryPolicy(patience=self.patience),
            discard=self.discard,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where a job runs, and how much of the machine the job takes."""

    device: str = option("auto", DEVICE, "Where to encode and decode; N: a GPU.", envvar="DUMONT_DEVICE")
    gpu_memory: int | None = option(
        None, SIZE, "Device memory to take at most; half of what is free if not given.", shown=""
    )
    jobs: int = option(
        0,
        whole(MAX_JOBS),
        "Threads that encode or decode; 0: one per core, fewer where limits ask.",
        envvar="DUMONT_JOBS",
    )
    memory: int = option(
        0, SIZE, "Memory for chunk buffers; if not given, what the threads use, up to a quarter of what is left.",
        shown="",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions(RunOptions):
    # The methods of plan/methods.py, which loads the codecs; a test compares both.
    method: str = option(
        DEFAULT_METHOD, TEXT, "How codecs are chosen.", metavar="hybrid_v3|hybrid_v2|lz4|lz4_hc|none|zstd"
    )
    link: int = option(
        DEFAULT_LINK, RATE, "The link that the snapshot will cross, for hybrid_v3: 1Gbit, 125MB a second, local."
    )
    level: int = option(DEFAULT_LEVEL, whole(MAX_LEVEL, "N", lowest=1), "The level of zstd, where zstd encodes.")
    chunk_size: int = option(DEFAULT_CHUNK_SIZE, SIZE, "Raw bytes in a chunk, at most.")
    exclude: Sequence[str] = option(
        (), PATTERNS, "Leave out the entries that match; may be repeated.",
        files="Files with more such patterns, one a line.",
    )  # fmt: skip
    digest: str = option(DEFAULT_DIGEST, choice(*DIGESTS, default=DEFAULT_DIGEST), "The digest of chunks and files.")
    owner: bool = option(False, FLAG, "Record user and group ids.")
    follow_outside: bool = option(
        False, FLAG, "Replace links that lead out of the sources by the entries they lead to."
    )
    force: bool = option(False, FLAG, "Replace a file at OUT that is no snapshot, unless a SOURCE holds it.")
    paranoid: bool = option(False, FLAG, "Decode every chunk, and compare, before the chunk is written.")
    with_reader: bool = option(
        False, FLAG, "Put dumont_reader.py beside the snapshot: any machine with Python 3.9 can restore it with that."
    )
    network: NetworkOptions = group(Network, "patience", "discard")  # noqa: RUF009


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions(RunOptions):
    """The options of every job that reads a snapshot."""

    expect: str | None = option(None, TEXT, "Refuse any snapshot but the one with this id.", metavar="sha256:…")
    network: NetworkOptions = group(Network, "connections", "limit_rate", "patience")  # noqa: RUF009


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions(ReadOptions):
    verify: bool = option(False, FLAG, "Also check the content of every file: new files before they are written.")
    include: Sequence[str] = option((), PATTERNS, "Restore only the entries that match; may be repeated.")
    exclude: Sequence[str] = option((), PATTERNS, "Leave out the entries that match; may be repeated.")
    # The choices of tree/target/options.py, which loads the entries; a test compares both.
    overwrite: Overwrite = option(  # noqa: RUF009
        "refuse",
        choice("refuse", "always", "if-changed", "never", default="refuse"),
        "How to treat files that the target holds already. refuse: restore into an empty directory only. always: write "
        "over files that the snapshot has, too. if-changed: keep those of the same size and time, write over the "
        "others, newer ones too, which are named. never: keep every file, write what is missing. Others always stay.",
    )
    strip: int = option(0, whole(MAX_STRIP, "N"), "Leave out the first N names of every path, as tar does.")
    owner: bool = option(False, FLAG, "Restore user and group ids.")
    preserve_special: bool = option(False, FLAG, "Restore setuid, setgid and sticky bits.")
    keep_going: bool = option(
        False, FLAG, "Restore what no damaged chunk holds; the other files are named, and the exit code is 4."
    )
    sync: bool = option(True, FLAG, "Do not wait until everything is on disk.", flags=("--no-sync",), negative=True)
    max_size: int = option(DEFAULT_MAX_SIZE, SIZE, "Refuse to restore more bytes than this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    content: bool = option(False, FLAG, "Read the files that no digests compare; without this, their time decides.")
    network: NetworkOptions = group(Network, "connections", "limit_rate", "patience")  # noqa: RUF009


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions(ReadOptions):
    content: bool = option(False, FLAG, "Also decode every chunk and check the content of every file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions(ReadOptions):
    include: Sequence[str] = option((), PATTERNS, "Export only the entries that match; may be repeated.")
    exclude: Sequence[str] = option((), PATTERNS, "Leave out the entries that match; may be repeated.")
