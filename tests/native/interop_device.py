"""Checks that the real `zipnn` package reads the streams that the CUDA kernels encode, here on the PTX machine.

    python tests/native/interop_device.py LIBDUMONT_PTX_MACHINE LIBDUMONT_CPU

needs numpy and zipnn_core (`pip install --no-deps zipnn==0.5.4`). Prints a summary line and exits 1 on a difference.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from device_codec import DeviceCodec
from interop_zipnn import SIZES, samples
from native_codec import NativeCodec
from zipnn_peer import ELEMENT_TYPES, ZipnnPeer

LARGE = 20_001  # elements; above it every third kind of data, else every second


def main() -> int:
    device = DeviceCodec(Path(sys.argv[1]), Path(sys.argv[2]))
    host = NativeCodec(Path(sys.argv[2]))
    peer = ZipnnPeer()
    rng = np.random.default_rng(2)
    good = same = failures = 0
    for kind in ELEMENT_TYPES:
        for count in SIZES:
            for number, (name, data) in enumerate(samples(kind, count, rng)):
                if (number + count) % (3 if count > LARGE else 2):
                    continue
                block_log2 = 17 if count > LARGE else int(rng.integers(10, 18))
                device.set_order(int(rng.integers(0, 1 << 30)))
                stream = device.encode(kind.dtype, kind.planes, data, block_log2)
                same += stream == host.encode(kind.dtype, data, block_log2)
                try:
                    read = peer.decode(kind, stream) == data
                except EOFError:
                    read = False
                good += read
                failures += not read
                if not read:
                    print(f"zipnn does not read {kind.name} {name} {count} elements, block 2^{block_log2}")
    peer.close()
    print(f"zipnn read {good} streams that the device encoded, {same} of them as the CPU does; {failures} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
