"""The guide's examples of loading: a run that dies and goes on, one layer over http, a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.servers import FaultServer
from support.tensors import floats, model, safetensors_bytes

import dumont_gpu
from dumont_gpu.sizes import MiB


class _DiedError(Exception):
    """The machine is gone."""


# --- a run that dies and goes on --------------------------------------------------------------------------------------


def run_with_numpy(workspace: Path, snapshot: Path, last: int, dies_at: int = -1) -> np.ndarray[Any, Any]:
    """Moves weights by a rule; saves, and packs, every third step."""
    weights, step = np.zeros((40, 30), np.float32), 0
    if snapshot.exists():
        saved = dumont_gpu.load(snapshot, "last.npz")
        weights, step = saved["weights"], int(saved["step"])
    while step < last:
        if step == dies_at:
            raise _DiedError
        step += 1
        weights = weights * np.float32(0.5) + np.random.default_rng(step).standard_normal((40, 30), np.float32)
        if step % 3 == 0:
            np.savez(workspace / "last.npz", weights=weights, step=step)
            dumont_gpu.SnapshotService().create_snapshot(workspace, snapshot)
    return weights


def test_a_run_of_numpy_goes_on(tmp_path: Path) -> None:
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
    expected = run_with_numpy(tmp_path / "undisturbed", tmp_path / "one.dumont", 10)
    with pytest.raises(_DiedError):
        run_with_numpy(tmp_path / "disturbed", tmp_path / "two.dumont", 10, dies_at=8)
    assert np.array_equal(expected, run_with_numpy(tmp_path / "disturbed", tmp_path / "two.dumont", 10))


def run_with_torch(workspace: Path, snapshot: Path, last: int, dies_at: int = -1) -> dict[str, Any]:
    """Trains a small model; saves, and packs, every third step."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 1))
    optimizer, step = torch.optim.AdamW(network.parameters(), lr=1e-2), 0
    if snapshot.exists():
        checkpoint = dumont_gpu.load_checkpoint(snapshot, "last.pt", framework="pt")
        network.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        step = checkpoint["step"]
    while step < last:
        if step == dies_at:
            raise _DiedError
        step += 1
        batch = torch.randn(8, 20, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (network(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if step % 3 == 0:
            saved = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(saved, workspace / "last.pt")
            dumont_gpu.SnapshotService().create_snapshot(workspace, snapshot)
    return dict(network.state_dict())


def test_a_run_of_pytorch_goes_on(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
    expected = run_with_torch(tmp_path / "undisturbed", tmp_path / "one.dumont", 10)
    with pytest.raises(_DiedError):
        run_with_torch(tmp_path / "disturbed", tmp_path / "two.dumont", 10, dies_at=8)
    resumed = run_with_torch(tmp_path / "disturbed", tmp_path / "two.dumont", 10)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in expected.items())


# --- parts of a workspace ---------------------------------------------------------------------------------------------


def test_one_layer_over_http(source: Path, snapshot: Path, fault_server: FaultServer) -> None:
    layers = {f"layer.{number}.weight": floats(700, 1000, seed=number) for number in range(6)}
    model(source / "models/m.safetensors", **layers)
    (source / "models/config.json").write_text(json.dumps({"layers": 6}))
    dumont_gpu.SnapshotService().create_snapshot(source, snapshot, chunk_size=MiB, method="none")
    fault_server.data = snapshot.read_bytes()
    assert json.loads(dumont_gpu.read(fault_server.url, "models/config.json")) == {"layers": 6}
    with dumont_gpu.open(fault_server.url, "models/*.safetensors") as tensors:
        fault_server.requests.clear()
        assert np.array_equal(layers["layer.4.weight"], tensors.get_tensor("layer.4.weight"))
        fetched = sum(end - start for start, end in fault_server.ranges)
    assert fetched < layers["layer.4.weight"].nbytes + 2 * MiB < snapshot.stat().st_size // 3


def test_what_the_typed_example_finds(source: Path, snapshot: Path) -> None:
    import typed_example

    for name, tensor in (("m", "w"), ("n", "v")):
        (source / f"{name}.safetensors").write_bytes(safetensors_bytes({tensor: ("F32", floats(9))}))
    dumont_gpu.SnapshotService().create_snapshot(source, snapshot)
    target = np.zeros(9, np.float32)
    with pytest.raises(dumont_gpu.DumontError, match="path"):
        typed_example.tensors_by_name(snapshot, {"w": target, "x": None})
    assert np.array_equal(floats(9), target)
