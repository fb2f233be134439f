"""The plugin of vLLM, against a stub of the two names that it builds on: it has not run with vLLM itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import struct
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dumont_gpu.errors import DumontError, SnapshotNotFoundError, UsageError
from dumont_gpu.jobs.options import PackOptions
from dumont_gpu.jobs.pack import pack

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")

NAMES = ("embed.weight", "layers.0.weight", "layers.1.weight")
LoaderClass = Callable[[Any], Any]


class LoadConfig:
    def __init__(self, **extra: object) -> None:
        self.load_format, self.model_loader_extra_config = "dumont", extra


class ModelConfig:
    quantization: str | None = None


class Model:
    """Has parameters, and takes weights as vLLM's models do: pairs, in any order; returns the names it knew."""

    def __init__(self, *more: str) -> None:
        self.parameters = {name: torch.zeros(4, 8, dtype=torch.bfloat16) for name in (*NAMES, *more)}

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self.parameters.items()

    def load_weights(self, weights: Iterator[tuple[str, Any]]) -> set[str]:
        loaded = set()
        for name, tensor in weights:
            self.parameters[name].copy_(tensor)
            loaded.add(name)
        return loaded


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, LoaderClass]]:
    """The load formats of a stub of vLLM, after the entry point has been loaded and called."""
    formats: dict[str, LoaderClass] = {}

    class BaseModelLoader:
        def __init__(self, load_config: LoadConfig) -> None:
            self.load_config = load_config

    def register_model_loader(load_format: str) -> Callable[[type], type]:
        def register(loader: type) -> type:
            assert issubclass(loader, BaseModelLoader)
            formats[load_format] = loader
            return loader

        return register

    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.model_loader"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    vars(sys.modules["vllm.model_executor.model_loader"]).update(
        BaseModelLoader=BaseModelLoader, register_model_loader=register_model_loader
    )
    monkeypatch.delitem(sys.modules, "dumont_gpu.vllm", raising=False)
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="dumont")
    register = entry.load()
    register()
    register()  # vLLM may
    yield formats
    sys.modules.pop("dumont_gpu.vllm", None)


def bf16_file(tensors: dict[str, Any]) -> bytes:
    header, at = {}, 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return (
        struct.pack("<Q", len(text)) + text + b"".join(t.view(torch.uint8).numpy().tobytes() for t in tensors.values())
    )


@pytest.fixture
def tensors() -> dict[str, Any]:
    torch.manual_seed(3)
    return {name: torch.randn(4, 8).to(torch.bfloat16) for name in NAMES}


@pytest.fixture
def snapshot(tmp_path: Path, tensors: dict[str, Any]) -> str:
    model = tmp_path / "workspace" / "model"
    model.mkdir(parents=True)
    (model / "1.safetensors").write_bytes(bf16_file({name: tensors[name] for name in NAMES[:2]}))
    (model / "2.safetensors").write_bytes(bf16_file({name: tensors[name] for name in NAMES[2:]}))
    path = str(tmp_path / "workspace.dumont")
    pack([str(tmp_path / "workspace")], path, PackOptions(device="cpu"))
    return path


@pytest.mark.parametrize("path", ["model/*.safetensors", ["model/1.safetensors", "model/2.safetensors"]])
def test_a_model_gets_its_weights(
    registered: dict[str, LoaderClass], snapshot: str, tensors: dict[str, Any], path: object
) -> None:
    loader = registered["dumont"](LoadConfig(snapshot=snapshot, path=path, ahead="1MiB", jobs=1))
    loader.download_model(ModelConfig())
    model = Model()
    loader.load_weights(model, ModelConfig())
    assert all(torch.equal(model.parameters[name], tensors[name]) for name in NAMES)


def test_without_a_path_all_safetensors_files_of_the_named_part_are_loaded(
    registered: dict[str, LoaderClass], snapshot: str, tensors: dict[str, Any]
) -> None:
    model = Model()
    registered["dumont"](LoadConfig(snapshot=f"{snapshot}:model")).load_weights(model, ModelConfig())
    assert all(torch.equal(model.parameters[name], tensors[name]) for name in NAMES)


def test_a_weight_that_no_file_has_is_an_error_unless_the_caller_says_otherwise(
    registered: dict[str, LoaderClass], snapshot: str
) -> None:
    given = {"snapshot": snapshot, "path": "model/*.safetensors"}
    with pytest.raises(UsageError, match=r"no tensor for head\.weight"):
        registered["dumont"](LoadConfig(**given)).load_weights(Model("head.weight"), ModelConfig())
    registered["dumont"](LoadConfig(**given, strict=False)).load_weights(Model("head.weight"), ModelConfig())
    quantised = ModelConfig()
    quantised.quantization = "fp8"
    registered["dumont"](LoadConfig(**given)).load_weights(Model("head.weight"), quantised)


def test_a_model_that_fails_leaves_no_thread(registered: dict[str, LoaderClass], snapshot: str) -> None:
    class Failing(Model):
        def load_weights(self, weights: Iterator[tuple[str, Any]]) -> set[str]:
            next(weights)
            raise RuntimeError("no room")

    import threading

    loader = registered["dumont"](LoadConfig(snapshot=snapshot, path="model/*.safetensors"))
    with pytest.raises(RuntimeError, match="no room"):
        loader.load_weights(Failing(), ModelConfig())
    assert not [thread for thread in threading.enumerate() if thread.name == "dumont-prefetch"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({}, "needs --model-loader-extra-config"),
        ({"path": "*.safetensors"}, "needs --model-loader-extra-config"),
        ({"snapshot": "x.dumont", "shards": 3}, "unknown: shards"),
        ({"snapshot": "x.dumont", "ahead": "much"}, "much"),
    ],
)
def test_wrong_extra_configuration_is_refused(
    registered: dict[str, LoaderClass], extra: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        registered["dumont"](LoadConfig(**extra))


def test_a_snapshot_that_is_not_there_is_noticed_before_the_model_is_made(
    registered: dict[str, LoaderClass], tmp_path: Path
) -> None:
    with pytest.raises(SnapshotNotFoundError):
        registered["dumont"](LoadConfig(snapshot=str(tmp_path / "none.dumont"))).download_model(ModelConfig())


def test_without_vllm_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "dumont_gpu.vllm", raising=False)
    with pytest.raises(ImportError, match="is a plugin of vLLM, which cannot be imported here") as raised:
        importlib.import_module("dumont_gpu.vllm")
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_errors_of_the_plugin_are_those_of_the_package(registered: dict[str, LoaderClass]) -> None:
    with pytest.raises(DumontError):
        registered["dumont"](LoadConfig())
