"""Builds a tree of very many tiny files: `python bench/tiny_files.py DIR [FILES] [FOLDERS] [CONTENTS]`.

A file has 15 to 160 bytes of text. CONTENTS: how many different contents there are; 0: no two files are equal. The same
arguments give the same tree, but for its times, which are those of its making.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

SEED = 20_261_129
FILES, FOLDERS, CONTENTS = 1_000_000, 2_100, 8_793
SMALLEST, LARGEST = 15, 160  # bytes


def build(root: Path, files: int, folders: int, contents: int) -> None:
    """Builds the tree in `root`, which is absent or empty."""
    chance = random.Random(SEED)
    words = [f"{chance.getrandbits(40):x}" for _ in range(5000)]

    def text(number: int) -> bytes:
        size = chance.randint(SMALLEST, LARGEST)
        return f"{number} {' '.join(chance.choices(words, k=size // 8))}".encode()[:size]

    shared = [text(number) for number in range(contents)]
    for folder in range(folders):
        path = root / f"part-{folder // 100:02d}" / f"{folder:05d}"
        path.mkdir(parents=True)
        for number in range(folder, files, folders):
            fd = os.open(path / f"item-{number:07d}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, chance.choice(shared) if shared else text(number))
            os.close(fd)


def main(arguments: Sequence[str]) -> None:
    numbers = [int(number) for number in arguments[1:4]]
    build(Path(arguments[0]), *numbers, *(FILES, FOLDERS, CONTENTS)[len(numbers) :])


if __name__ == "__main__":
    main(sys.argv[1:])
