"""Builds a tree of many small text files: see dumont_gpu/bench/corpora/small_files.py."""

import sys

from dumont_gpu.bench.corpora.small_files import main

if __name__ == "__main__":
    main(sys.argv[1:])
