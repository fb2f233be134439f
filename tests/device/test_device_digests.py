"""BLAKE3 digests that a device computes, emulated or real, against the blake3 package."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

import pytest
from blake3 import blake3
from support.devices import cuda_device
from support.emulated_device import EmulatedDevice
from support.real_device import RecordedDevice

from dumont_gpu.backends.launches import RegionDigests, run
from dumont_gpu.native import layout
from dumont_gpu.sizes import KiB, MiB, align_up

CHUNK = KiB  # of BLAKE3
GROUP = layout("kBlake3GroupSize")
EDGES = [0, 1, 64, CHUNK, 32 * CHUNK, GROUP, 2 * GROUP, 3 * GROUP, 64 * KiB, MiB]
SIZES = sorted({max(0, edge + more) for edge in EDGES for more in (-1, 0, 1)})
DATA = random.Random(8).randbytes(MiB + 64)


@pytest.fixture
def device() -> Iterator[EmulatedDevice | RecordedDevice]:
    device = cuda_device()
    yield device
    device.close()


def digests(device: EmulatedDevice | RecordedDevice, regions: list[tuple[int, int]]) -> list[str]:
    """Returns what the device finds for regions of DATA, each given as its begin and its size."""
    stream = device.new_stream()
    sizes = [len(DATA), *RegionDigests.sizes(sum(size for _, size in regions), len(regions))]
    memory = device.allocate(sum(align_up(size) for size in sizes))
    data, *addresses = (memory + sum(align_up(size) for size in sizes[:i]) for i in range(len(sizes)))
    table, found = (memoryview(bytearray(size)) for size in (sizes[3], sizes[1]))
    launches = RegionDigests(*addresses).describe(
        array("Q", [data + begin for begin, _ in regions]), array("Q", [size for _, size in regions]), table
    )
    stream.copy_in(data, memoryview(bytearray(DATA)))
    stream.copy_in(addresses[2], table)
    run(stream, launches)
    stream.copy_out(found, addresses[0])
    stream.synchronize()
    device.free(memory)
    return [found[32 * i : 32 * i + 32].hex() for i in range(len(regions))]


def expected(regions: list[tuple[int, int]]) -> list[str]:
    return [blake3(DATA[begin : begin + size]).hexdigest() for begin, size in regions]


@pytest.mark.parametrize("begin", [0, 16, 1, 31])
def test_every_shape_of_tree_at_any_address(begin: int, device: EmulatedDevice) -> None:
    for size in SIZES:
        assert digests(device, [(begin, size)]) == expected([(begin, size)]), size


def test_regions_of_all_sizes_at_once(device: EmulatedDevice) -> None:
    regions = [(number % 50, size) for number, size in enumerate(SIZES)]
    random.Random(2).shuffle(regions)
    assert digests(device, regions) == expected(regions)


def test_many_regions_that_overlap(device: EmulatedDevice) -> None:
    regions = [(37 * number, 11 * number) for number in range(300)]
    assert digests(device, regions) == expected(regions)
