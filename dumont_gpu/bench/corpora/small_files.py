"""Builds the benchmark's tree of many small text files: `python bench/small_files.py DIR [FILES] [DIRECTORIES]`.

Words are made up, and drawn by rank as in natural text (Zipf); no two files are equal. The same NumPy gives the same
tree.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SEED = 20_240_608
FILES, DIRECTORIES = 50_000, 500
FILE_SIZE = 4096  # bytes
VOCABULARY = 20_000  # words
MEAN_WORD = 5  # bytes at least, with its space: enough words to fill a file


def vocabulary(rng: np.random.Generator) -> list[str]:
    """Words of two to four syllables, all different; short words, which are drawn most, come first."""
    syllables = [c + v for c in "bcdfglmnprstv" for v in "aeiou"]
    words = [syllables[i] + syllables[j] for i, j in itertools.product(range(len(syllables)), repeat=2)]
    rng.shuffle(words)
    long = rng.integers(0, len(words), (2 * VOCABULARY, 2))
    return list(dict.fromkeys([*words[:2000], *(words[i] + words[j] for i, j in long.tolist())]))[:VOCABULARY]


def build(root: Path, files: int, directories: int) -> None:
    """Builds the tree in `root`, which is absent or empty."""
    rng = np.random.default_rng(SEED)
    words = np.array(vocabulary(rng))
    weight = 1 / (np.arange(len(words)) + 2.7)  # Zipf-Mandelbrot
    cumulative = np.cumsum(weight / weight.sum())
    for number in range(directories):
        folder = root / f"part-{number // 25:02d}" / f"{number:04d}"
        folder.mkdir(parents=True)
        for file in range(number, files, directories):
            ranks = np.searchsorted(cumulative[:-1], rng.random(FILE_SIZE // MEAN_WORD))
            text = " ".join(words[ranks].tolist()).encode()
            (folder / f"note-{file:05d}.txt").write_bytes(text[: FILE_SIZE - 1] + b"\n")


def main(arguments: Sequence[str]) -> None:
    build(Path(arguments[0]), *(int(number) for number in arguments[1:3] or (FILES, DIRECTORIES)))


if __name__ == "__main__":
    main(sys.argv[1:])
