"""The functions of the Python API that read tensors and files out of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dumont_gpu.errors import UsageError
from dumont_gpu.jobs import arguments as take
from dumont_gpu.jobs.arguments import Duration, Size, StrPath
from dumont_gpu.jobs.options import DEFAULT_PATIENCE, DEFAULT_READ_SIZE, ReadOptions
from dumont_gpu.jobs.parameters import checked
from dumont_gpu.jobs.read_file import read_bytes
from dumont_gpu.loading.chunk_loader import KEPT, ChunkLoader
from dumont_gpu.loading.files import SnapshotFiles
from dumont_gpu.loading.frameworks import select_framework
from dumont_gpu.loading.host_memory import HostMemory
from dumont_gpu.loading.on_device import device_number, open_on_device
from dumont_gpu.loading.opened import OpenedSnapshot
from dumont_gpu.loading.tensor_files import TensorFiles, Unmatched
from dumont_gpu.loading.tensor_load import TensorLoads
from dumont_gpu.tensors.record import TensorRef


def open(  # noqa: A001
    snapshot_path: StrPath,
    path: StrPath | Sequence[StrPath],
    *,
    framework: str = "np",
    device: object = None,
    verify: bool = False,
    expect: str | None = None,
    jobs: int = 0,
    memory: Size = 0,
    patience: Duration = DEFAULT_PATIENCE,
    connections: int = 0,
    limit_rate: Size = 0,
) -> TensorFiles:
    """Opens files of tensors in a snapshot: safetensors, PyTorch's zip (`.pt`, `.pth`, `.bin`), `.npy` and `.npz`.

    >>> with dumont_gpu.open("s3://bucket/workspace.dumont", "models/*.safetensors", framework="pt") as tensors:
    ...     weight = tensors.get_tensor("model.embed_tokens.weight")
    ...     rows = tensors.get_slice("lm_head.weight")[0:4096]  # fetches only the chunks of these rows

    Nothing of a file is executed: a checkpoint that holds more than tensors and plain data is refused.

    Args:
        snapshot_path: a path or an address, perhaps with `:path` of a directory in the snapshot.
        path: a file of tensors in the snapshot, a pattern (`shards/*.safetensors`), or several.
        framework: what tensors become: "np" (NumPy), "pt" (PyTorch), "jax" or "cupy"; imported only here.
        device: where tensors are: "cpu", or "cuda:N", or the number of a CUDA device, or a `torch.device`; None: the
            host, but for "cupy" device 0. On a device, encoded bytes cross PCIe, and are checked and decoded there.
        verify: also compare the content of files with its digests; the digests of chunks are compared in any case.
        expect: refuse any snapshot but the one with this id, "sha256:…".
        jobs: threads that decode; 0: one per core, or fewer where the machine's limits ask.
        memory: bytes for chunks on their way; 0: as many as the threads can use.
        patience: how long to keep trying while a server sends nothing: seconds, or "5m"; 0: not at all.
        connections: connections to a server; 0: 16 (4 nearby), and more if that helps.
        limit_rate: bytes per second to download, at most; 0: no limit.

    Raises:
        SnapshotNotFoundError: nothing is at `snapshot_path`, or the snapshot holds no such file.
        UsageError: two of the files have a tensor of one name; or an argument makes no sense.
        UnsupportedError: a file holds no tensors that are known, or more than plain data.
        DeviceError: the device cannot be used.
        DamagedError, DumontError: the snapshot, or a file's table of tensors, cannot be read.
    """
    options = checked(
        ReadOptions,
        expect=expect,
        jobs=jobs,
        memory=memory,
        patience=patience,
        connections=connections,
        limit_rate=limit_rate,
    )
    verify = take.flag("verify", verify)
    made, number = select_framework(framework), device_number(framework, device)
    opened = OpenedSnapshot(take.path("snapshot_path", snapshot_path), options)
    try:
        paths, reader = take.paths("path", path), _host_loader(opened, verify=verify)
        if number is not None:
            return open_on_device(opened, paths, made, number, reader, verify=verify)
        loads = TensorLoads(reader, HostMemory(), made)
        return TensorFiles(opened, paths, loads, lambda: _host_loader(opened, verify=verify, kept=0), reader)
    except BaseException:
        opened.close()
        raise


def _host_loader(opened: OpenedSnapshot, *, verify: bool, kept: int = KEPT) -> ChunkLoader:
    """Returns a loader; for a prefetch, which asks for each chunk once, with `kept` 0."""
    return ChunkLoader(opened.snapshot, opened.options, verify=verify, kept=kept, reading=opened.reading)


def load(snapshot_path: StrPath, path: StrPath | Sequence[StrPath], **options: Any) -> dict[str, Any]:
    """Returns all tensors of files in a snapshot by name, as arrays of their own.

    >>> state = dumont_gpu.load("workspace.dumont", "runs/7/model.safetensors", framework="pt")

    Args:
        snapshot_path, path: as for `open`.
        options: the named parameters of `open`.

    Raises: as `open`, and as `TensorFiles.get_tensor`.
    """
    with open(snapshot_path, path, **options) as tensors:
        return tensors.get_tensors()


def load_into(
    targets: Mapping[str, Any],
    snapshot_path: StrPath,
    path: StrPath | Sequence[StrPath],
    *,
    strict: bool = True,
    **options: Any,
) -> Unmatched:
    """Loads tensors into a caller's tensors of the same names; no second copy is made.

    >>> dumont_gpu.load_into(model.state_dict(), "workspace.dumont", "runs/7/*.safetensors")

    Args:
        targets: name -> a NumPy array or a PyTorch tensor of the same shape and element type.
        snapshot_path, path: as for `open`.
        strict: whether every target must have a tensor in the files, and every tensor of the files a target.
        options: the named parameters of `open`, but for the framework.

    Returns the names that only one side has. Raises: as `TensorFiles.load_into`.
    """
    with open(snapshot_path, path, **options) as tensors:
        return tensors.load_into(targets, strict=take.flag("strict", strict))


def load_checkpoint(snapshot_path: StrPath, path: StrPath, **options: Any) -> Any:
    """Returns what a checkpoint of PyTorch holds, as `torch.load(weights_only=True)` does: containers, with tensors.

    >>> checkpoint = dumont_gpu.load_checkpoint("workspace.dumont", "runs/7/last.pt", framework="pt")
    >>> model.load_state_dict(checkpoint["model"])

    Of a file that is a plain list of tensors, a dict of them. Element types and devices in the checkpoint are PyTorch's
    where the tensors are, and names (`TorchDtype`, `TorchDevice`) in other frameworks.

    Args:
        snapshot_path, path: as for `open`; one file.
        options: the named parameters of `open`.

    Raises: as `load`; UsageError for several files.
    """
    with open(snapshot_path, path, **options) as tensors:
        structures = list(tensors.structures())
        if len(structures) != 1:
            raise UsageError(f"path names {len(structures)} files: a checkpoint is one")
        arrays = tensors.get_tensors()
    if structures[0] is None:
        return arrays
    return _filled(structures[0], arrays, select_framework(options.get("framework", "np")).plain)


def read(
    snapshot_path: StrPath,
    path: StrPath = "",
    *,
    max_size: Size = DEFAULT_READ_SIZE,
    expect: str | None = None,
    patience: Duration = DEFAULT_PATIENCE,
    connections: int = 0,
    limit_rate: Size = 0,
) -> bytes:
    """Returns the content of one file of a snapshot. `SnapshotService.read` says what the arguments are.

    >>> config = json.loads(dumont_gpu.read("workspace.dumont", "runs/7/config.json"))
    """
    options = checked(ReadOptions, expect=expect, patience=patience, connections=connections, limit_rate=limit_rate)
    name = take.path("path", path) if path != "" else ""
    return read_bytes(take.path("snapshot_path", snapshot_path), name, take.size("max_size", max_size), options)


def open_files(
    snapshot_path: StrPath,
    *,
    expect: str | None = None,
    jobs: int = 0,
    memory: Size = 0,
    patience: Duration = DEFAULT_PATIENCE,
    connections: int = 0,
    limit_rate: Size = 0,
) -> SnapshotFiles:
    """Opens a snapshot whose files can be read as file objects, at any offset: for any library that reads one.

    >>> with dumont_gpu.open_files("https://host/workspace.dumont") as files:
    ...     table = pandas.read_csv(files.open_file("data/train.csv"))

    Args: as for `open`. Every byte is compared with the digest of its file's content, too.

    Raises:
        SnapshotNotFoundError, DamagedError, UnsupportedError, DumontError: as for `open`.
    """
    options = checked(
        ReadOptions,
        expect=expect,
        jobs=jobs,
        memory=memory,
        patience=patience,
        connections=connections,
        limit_rate=limit_rate,
    )
    return SnapshotFiles(take.path("snapshot_path", snapshot_path), options)


def _filled(structure: Any, arrays: Mapping[str, Any], plain: Callable[[object], object]) -> Any:
    """Returns a checkpoint's structure with its tensors. Its depth is bounded by the reader of its pickle."""
    if isinstance(structure, TensorRef):
        return arrays[structure.name]
    if isinstance(structure, dict):
        filled = type(structure)()
        filled.update((key, _filled(value, arrays, plain)) for key, value in structure.items())
        return filled
    if isinstance(structure, (list, tuple)):
        return type(structure)(_filled(value, arrays, plain) for value in structure)
    return plain(structure)
