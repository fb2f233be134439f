"""Prints how two directory trees differ: `python bench/compare_trees.py A B` exits 0 if they do not, else 1."""

import sys

from dumont_gpu.bench.compare_trees import differences, main

__all__ = ["differences", "main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
