"""The figures of the document that this project began with: what every run is compared with, row by row.

Source: "Dumont Snapshot Module", changelog v2.0.0 of 2024-12-17, measured on a machine with an RTX 3060. It plans
LZ4 and ZipNN on the GPU for later, so these are figures of that machine's processor. Ratios of text come from one text
repeated; how large the inputs were it does not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "Dumont Snapshot Module, README v2.0.0, 2024-12-17, RTX 3060"


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One kind of file. Rates are MB/s of original bytes; None: the document gives none."""

    key: str
    title: str
    compressor: str
    ratio: float
    encode: float | None
    decode: float | None
    extensions: tuple[str, ...]  # which files of a tree are of this kind


ROWS: Final = (
    SeedRow("python", "Python code", "LZ4", 127, 9265, 1290, ("py", "pyi")),
    SeedRow("json", "JSON / YAML", "LZ4", 175, 10191, 1281, ("json", "jsonl", "yaml", "yml")),
    SeedRow("logs", "Logs, text", "LZ4", 218, 10458, 1303, ("log", "txt", "md", "rst")),
    SeedRow("csv", "CSV", "LZ4", 3.6, 627, 2867, ("csv", "tsv")),
    SeedRow("bf16", "bf16 model", "ZipNN", 1.5, 1518, 4642, ("safetensors",)),
    SeedRow("pt", "Checkpoint .pt", "ZipNN", 1.2, 1095, 4942, ("pt", "pth", "bin", "ckpt")),
    SeedRow("gguf", "GGUF", "none", 1.0, None, None, ("gguf", "ggml")),
    SeedRow("images", "Images, video", "none", 1.0, None, None, ("png", "jpg", "jpeg", "gif", "webp", "mp4")),
)

CHUNKS: Final = 33  # of 64 MiB, of TinyLlama-1.1B as bf16
CHUNK_ZIPNN_RATIO: Final = 1.51  # "in all 33 chunks"
CHUNK_LZ4_RATIO: Final = 1.00
PROJECTED: Final = (("LLaMA-7B", 14, 9.3), ("LLaMA-13B", 26, 17.3), ("LLaMA-70B", 140, 93), ("Mixtral-8x7B", 90, 60))
