"""Makes the golden checkpoints that do not exist yet: `PYTHONPATH=tests python tests/golden/tensors/make.py`.

Needs torch and safetensors. NAME.json has what torch reads back of NAME.pt, and not what this project reads.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save
from support.checkpoints import CHECKPOINTS, as_json, expected, loaded, saved

HERE = Path(__file__).parent


def deflated(data: bytes) -> bytes:
    """Returns a zip packed again, with every member compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), old.read(info), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def keep(name: str, data: bytes, root: object) -> None:
    path = HERE / name
    if path.exists():
        return
    path.write_bytes(data)
    tensors, structure = expected(root)
    described = {"tensors": tensors, "structure": as_json(structure)}
    path.with_suffix(".json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    for name, make in CHECKPOINTS.items():
        data = saved(make())
        keep(f"{name}.pt", data, loaded(data, weights_only=name != "plain-data"))
    root = CHECKPOINTS["plain-data"]()
    for protocol in (3, 4, 5):
        keep(f"protocol-{protocol}.pt", saved(root, pickle_protocol=protocol), root)
    keep("deflated.pt", deflated(saved(CHECKPOINTS["views"]())), CHECKPOINTS["views"]())
    torch.serialization.set_crc32_options(False)
    keep("no-crc.pt", saved(CHECKPOINTS["bare"]()), CHECKPOINTS["bare"]())
    tensors = {name: tensor.clone() for name, tensor in CHECKPOINTS["element-types"]().items() if name != "complex128"}
    keep("every-type.safetensors", save(tensors, {"format": "pt"}), tensors)


if __name__ == "__main__":
    main()
