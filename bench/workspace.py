"""Builds the mixed ML workspace that the benchmarks pack: see dumont_gpu/bench/corpora/workspace.py."""

from dumont_gpu.bench.corpora.workspace import main

if __name__ == "__main__":
    main()
