"""The original's figures: numbers of the document that this project began with, for comparison row by row.

Source: "Dumont Snapshot Module", changelog v2.0.0 of 2024-12-17, measured on a machine with an RTX 3060. The document
plans LZ4 and ZipNN on the GPU for later, so its figures are those of the machine's processor. Its ratios of text come
from one text repeated; the sizes of its inputs are not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "Dumont Snapshot Module, README v2.0.0, 2024-12-17, RTX 3060"
COLUMN: Final = "original's figure"  # the title of every column of these numbers: nobody may read them as ours


@dataclass(frozen=True, slots=True)
class OriginalRow:
    """One kind of file. Rates are MB/s of original bytes; None: the document gives none."""

    key: str
    title: str
    compressor: str
    ratio: float
    encode: float | None
    decode: float | None
    extensions: tuple[str, ...]  # of files of this kind


ROWS: Final = (
    OriginalRow("python", "Python code", "LZ4", 127, 9265, 1290, ("py", "pyi")),
    OriginalRow("json", "JSON / YAML", "LZ4", 175, 10191, 1281, ("json", "jsonl", "yaml", "yml")),
    OriginalRow("logs", "Logs, text", "LZ4", 218, 10458, 1303, ("log", "txt", "md", "rst")),
    OriginalRow("csv", "CSV", "LZ4", 3.6, 627, 2867, ("csv", "tsv")),
    OriginalRow("bf16", "bf16 model", "ZipNN", 1.5, 1518, 4642, ("safetensors",)),
    OriginalRow("pt", "Checkpoint .pt", "ZipNN", 1.2, 1095, 4942, ("pt", "pth", "bin", "ckpt")),
    OriginalRow("gguf", "GGUF", "none", 1.0, None, None, ("gguf", "ggml")),
    OriginalRow("images", "Images, video", "none", 1.0, None, None, ("png", "jpg", "jpeg", "gif", "webp", "mp4")),
)

CHUNKS: Final = 33  # of 64 MiB, of TinyLlama-1.1B as bf16
CHUNK_ZIPNN_RATIO: Final = 1.51  # "in all 33 chunks"
CHUNK_LZ4_RATIO: Final = 1.00
PROJECTED: Final = (("LLaMA-7B", 14, 9.3), ("LLaMA-13B", 26, 17.3), ("LLaMA-70B", 140, 93), ("Mixtral-8x7B", 90, 60))
