"""Is a model's ratio the same in every chunk? And how small would that ratio make larger models?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dumont_gpu.bench.corpora.corpus import Content, Corpus
from dumont_gpu.bench.corpora.original import PROJECTED
from dumont_gpu.bench.measure.room import Chunk, Room, scanned
from dumont_gpu.codecs import Lz4, ZipNN
from dumont_gpu.format.header import DEFAULT_CHUNK_SIZE
from dumont_gpu.native import Dtype
from dumont_gpu.plan.methods import DEFAULT_METHOD
from dumont_gpu.sizes import MiB

_LZ4: Final = Lz4()
_SMALL_CHUNKS: Final = 8 * MiB  # for a model that fits one chunk
_MOST: Final = 512 * MiB  # of the model, from its start


@dataclass(slots=True)
class ChunkFigures:
    """One model chunk by chunk: original bytes, and bytes as ZipNN and as LZ4 (raw, where that is less)."""

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
    """Not a measurement: a model size named by the original, divided by a ratio measured here."""

    model: str
    gigabytes: float
    seed_gigabytes: float
    by_corpus: dict[str, float]  # corpus -> gigabytes


def measure_chunks(corpus: Corpus, chunk_size: int = DEFAULT_CHUNK_SIZE) -> ChunkFigures | None:
    """Encodes the largest bf16 model of `corpus`, chunk by chunk; None if the corpus has no such model.

    A model that fits one chunk is cut into chunks of 8 MiB instead.
    """
    content = _bf16(corpus)
    if content is None:
        return None
    size = _largest_size(content)
    chunk_size = chunk_size if size > chunk_size else min(chunk_size, _SMALL_CHUNKS)
    room = Room(1, min(size, _MOST), chunk_size, None)
    chunks = _zipnn_chunks(corpus, content, room)
    if not chunks:
        return None
    figures = ChunkFigures(corpus.name, content.origin, content.generated, chunk_size, [], [], [])
    for chunk in chunks:
        original = len(chunk.content)
        figures.sizes.append(original)
        for codec, found in ((chunk.codec, figures.zipnn), (_LZ4, figures.lz4)):
            found.append(codec.encode(chunk.content, room.outputs[0][:original]) or original)
    return figures


def first_bf16_chunk(corpus: Corpus) -> memoryview | None:
    """Returns the first bf16 chunk of the largest model of `corpus`; None if the corpus has no such model."""
    content = _bf16(corpus)
    room = Room(1, DEFAULT_CHUNK_SIZE, DEFAULT_CHUNK_SIZE, None)
    chunks = _zipnn_chunks(corpus, content, room) if content else []
    return next((chunk.content for chunk in chunks if chunk.codec == ZipNN(Dtype.BF16)), None)


def project(figures: Sequence[ChunkFigures]) -> list[Projection]:
    """Divides the original's model sizes by the measured ratios."""
    return [
        Projection(model, size, seed, {found.corpus: size / found.ratio for found in figures})
        for model, size, seed in PROJECTED
    ]


def _bf16(corpus: Corpus) -> Content | None:
    return next((content for content in corpus.contents if content.key == "bf16"), None)


def _largest_size(content: Content) -> int:
    return max(file.stat().st_size for file in content.files)


def _zipnn_chunks(corpus: Corpus, content: Content, room: Room) -> list[Chunk]:
    path = max(content.files, key=lambda file: file.stat().st_size)
    with scanned(corpus) as files:
        loaded = room.load([files[str(path.relative_to(corpus.root))]], DEFAULT_METHOD)
    return [chunk for chunk in loaded if isinstance(chunk.codec, ZipNN)]
