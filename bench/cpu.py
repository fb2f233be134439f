"""Measures codecs and whole jobs on the CPU, against their peers: see dumont_gpu/bench/thorough.py."""

import sys
from pathlib import Path

from dumont_gpu.bench.thorough import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
