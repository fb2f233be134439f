"""Restores over http, against real servers: see dumont_gpu/bench/measure/network.py."""

from dumont_gpu.bench.measure.network import main

if __name__ == "__main__":
    main()
