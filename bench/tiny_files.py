"""Builds a tree of very many tiny files: see dumont_gpu/bench/corpora/tiny_files.py."""

import sys

from dumont_gpu.bench.corpora.tiny_files import main

if __name__ == "__main__":
    main(sys.argv[1:])
