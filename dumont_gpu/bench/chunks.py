"""Is a model's ratio the same in every chunk? And what would that ratio make of larger models?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dumont_gpu.bench.corpora import Corpus
from dumont_gpu.bench.rows import Room, scanned
from dumont_gpu.bench.seed_table import PROJECTED
from dumont_gpu.codecs import Lz4, ZipNN
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.sizes import MiB

_LZ4: Final = Lz4()
_SMALL_CHUNKS: Final = 8 * MiB  # for a model that is no more than one chunk
_MOST: Final = 512 * MiB  # of the model, from its start


@dataclass(slots=True)
class ChunkFigures:
    """Chunk by chunk of one model: original bytes, and bytes as ZipNN and as LZ4 (as they are, if that is less)."""

    corpus: str
    origin: str
    generated: bool
    chunk_size: int
    sizes: list[int]
    zipnn: list[int]
    lz4: list[int]

    @property
    def ratio(self) -> float:
        return sum(self.sizes) / sum(self.zipnn)


@dataclass(slots=True)
class Projection:
    """Not a measurement: a size that the seed names, divided by a ratio measured here."""

    model: str
    gigabytes: float
    seed_gigabytes: float
    by_corpus: dict[str, float]  # corpus -> gigabytes


def measure_chunks(corpus: Corpus, chunk_size: int = DEFAULT_CHUNK_SIZE) -> ChunkFigures | None:
    """Encodes the largest bf16 model of `corpus`, chunk by chunk; None if it has none.

    A model of a single chunk is cut into smaller ones as well as it can be.
    """
    content = next((content for content in corpus.contents if content.key == "bf16"), None)
    if content is None:
        return None
    path = max(content.files, key=lambda file: file.stat().st_size)
    size = path.stat().st_size
    chunk_size = chunk_size if size > chunk_size else min(chunk_size, _SMALL_CHUNKS)
    room = Room(1, min(size, _MOST), chunk_size, None)
    with scanned(corpus) as files:
        chunks = [c for c in room.load([files[str(path.relative_to(corpus.root))]]) if isinstance(c.codec, ZipNN)]
    if not chunks:
        return None
    figures = ChunkFigures(corpus.name, content.origin, content.generated, chunk_size, [], [], [])
    for chunk in chunks:
        original = len(chunk.content)
        figures.sizes.append(original)
        for codec, found in ((chunk.codec, figures.zipnn), (_LZ4, figures.lz4)):
            found.append(codec.encode(chunk.content, room.outputs[0][:original]) or original)
    return figures


def project(figures: Sequence[ChunkFigures]) -> list[Projection]:
    """Divides the seed's model sizes by the measured ratios."""
    return [
        Projection(model, size, seed, {found.corpus: size / found.ratio for found in figures})
        for model, size, seed in PROJECTED
    ]
