"""Files of tensors for tests, packed into snapshots that lie where a test wants them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dumont_gpu.sizes import MiB
from dumont_gpu.storage.local import LocalSource
from dumont_gpu.tensors.dtypes import ELEMENT_TYPES
from support.places import upload
from support.snapshots import pack_tree

PLACES = ["local", "http", "s3"]


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def words(dtype: str, shape: tuple[int, ...], seed: int = 7) -> np.ndarray[Any, Any]:
    """Random elements of a type as raw words; bools are 0 and 1."""
    known = ELEMENT_TYPES[dtype]
    drawn = rng(seed).integers(0, 256, (*shape, known.size), np.uint8)
    if dtype == "BOOL":
        return (drawn[..., 0] & 1).astype(bool)
    return np.frombuffer(drawn.tobytes(), known.words).reshape(shape)


def floats(*shape: int, seed: int = 7) -> np.ndarray[Any, Any]:
    """Numbers like those of a model: what ZipNN is made for."""
    return (rng(seed).standard_normal(shape) * 0.02).astype(np.float32)


def safetensors_bytes(tensors: Mapping[str, tuple[str, np.ndarray[Any, Any]]], **metadata: str) -> bytes:
    """Returns a safetensors file of tensors: name -> element type, and elements or raw words."""
    import json

    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for _, array in tensors.values())


def model(path: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    """Writes float32 arrays as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes({name: ("F32", array) for name, array in arrays.items()}))
    return path


def packed(source: Path, snapshot: Path, **options: Any) -> str:
    """Packs a tree in chunks of 1 MiB; returns where the snapshot lies."""
    pack_tree(source, snapshot, **{"chunk_size": MiB, "device": "cpu"} | options)
    return str(snapshot)


@contextmanager
def placed(place: str, snapshot: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields the location of a snapshot in a place of PLACES."""
    if place == "local":
        yield str(snapshot)
    elif place == "http":
        server = request.getfixturevalue("nginx")
        file = server.root / f"{snapshot.parent.name}.dumont"
        file.write_bytes(snapshot.read_bytes())
        yield f"http://127.0.0.1:{server.port}/{file.name}"
    else:
        request.getfixturevalue("s3")
        yield upload(f"{snapshot.parent.name}/x.dumont", snapshot.read_bytes())


@contextmanager
def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Yields a list that every read of a local snapshot is added to: offset and size."""
    reads: list[tuple[int, int]] = []
    read_into = LocalSource.read_into

    def counting(self: LocalSource, offset: int, out: memoryview) -> None:
        reads.append((offset, len(out)))
        read_into(self, offset, out)

    with monkeypatch.context() as patched:
        patched.setattr(LocalSource, "read_into", counting)
        yield reads


def loading_threads() -> list[str]:
    """The threads that loading has started and that still run."""
    gc.collect()  # what other tests have left open
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dumont")]


def in_thread(act: Callable[[], object]) -> Callable[[], object]:
    """Starts `act` in a thread; returns a function that waits for it and returns what it returned or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(act())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> object:
        thread.join(50)
        assert found, "still running"
        return found[0]

    return result
