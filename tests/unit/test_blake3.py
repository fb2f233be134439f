"""The library's own BLAKE3: the digests of the blake3 package, on every instruction set, for pieces of any size."""

from __future__ import annotations

import random
from array import array

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dumont_gpu import native

BLOCK, CHUNK = 64, 1024
SUBTREE = 256 * CHUNK  # what the library hashes at once
# Around every size at which the shape of a tree changes.
EDGES = (BLOCK, CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, 8 * CHUNK, 16 * CHUNK, 17 * CHUNK, 64 * CHUNK)
LARGE_EDGES = (SUBTREE, 2 * SUBTREE, 3 * SUBTREE, 4 * SUBTREE)
SIZES = sorted({0, 1, (1 << 20) + 3, *(edge + more for edge in EDGES + LARGE_EDGES for more in (-1, 0, 1))})

DATA = bytes(i % 251 for i in range((1 << 20) + 1024))  # the pattern of the official test vectors


def digests(data: bytes, pieces: list[tuple[int, int]]) -> list[str]:
    """Returns the digests of pieces, each given as its begin and its size; every instruction set must find the same."""
    begins, sizes = array("Q", [begin for begin, _ in pieces]), array("Q", [size for _, size in pieces])
    before = native.cpu_path()
    found = []
    try:
        for path in ("portable", "avx2", "avx512", "neon"):
            if native.select_cpu_path(path):
                out = bytearray(32 * len(pieces))
                native.digest_many(memoryview(data), begins, sizes, memoryview(out))
                found.append([out[i : i + 32].hex() for i in range(0, len(out), 32)])
    finally:
        native.select_cpu_path(before)
    assert all(other == found[0] for other in found)
    return found[0]


def expected(data: bytes, pieces: list[tuple[int, int]]) -> list[str]:
    return [blake3(data[begin : begin + size]).hexdigest() for begin, size in pieces]


def test_a_published_digest() -> None:
    """Of no bytes, as the paper's authors print it: the package is not the only witness."""
    assert digests(b"", [(0, 0)]) == ["af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"]


@pytest.mark.parametrize("begin", [0, 1, 7, 63])
def test_every_shape_of_tree_at_any_address(begin: int) -> None:
    for size in SIZES:
        pieces = [(begin, size)]
        assert expected(DATA, pieces) == digests(DATA, pieces), size


def test_every_number_of_blocks_and_of_chunks_side_by_side() -> None:
    pieces = [(size % 5, size) for size in (*range(0, 2 * CHUNK, 61), *range(0, 40 * CHUNK, 517))]
    random.Random(1).shuffle(pieces)
    assert expected(DATA, pieces) == digests(DATA, pieces)


@pytest.mark.parametrize("count", [*range(1, 36), 255, 256, 257])
def test_any_number_of_pieces(count: int) -> None:
    pieces = [(3 * i, 90) for i in range(count)]
    assert expected(DATA, pieces) == digests(DATA, pieces)


def test_large_pieces_between_small_ones() -> None:
    pieces = [(0, 5), (1, 3 * SUBTREE + 1), (2, 0), (3, SUBTREE), (4, 1500), (5, SUBTREE + 1), (6, 64)]
    assert expected(DATA, pieces) == digests(DATA, pieces)


SOME_SIZES = st.one_of(st.integers(0, 130), st.integers(0, 5000), st.sampled_from(SIZES))
PIECES = st.lists(st.tuples(st.integers(0, 1000), SOME_SIZES), max_size=60)


@settings(max_examples=60, deadline=None)
@given(pieces=PIECES, seed=st.integers(0, 99))
def test_any_pieces(pieces: list[tuple[int, int]], seed: int) -> None:
    data = random.Random(seed).randbytes(max((sum(piece) for piece in pieces), default=0))
    assert expected(data, pieces) == digests(data, pieces)


@pytest.mark.parametrize(
    "piece", [(101, 0), (100, 1), (0, 101), (1, 100), (2**64 - 1, 1), (50, 2**64 - 50), (0, 2**64 - 1)]
)
def test_a_piece_outside_the_buffer_is_refused_and_nothing_written(piece: tuple[int, int]) -> None:
    out = bytearray(b"\xaa" * 96)
    begins, sizes = array("Q", [0, piece[0], 7]), array("Q", [10, piece[1], 3])
    with pytest.raises(ValueError, match="leaves the buffer of 100 bytes"):
        native.digest_many(memoryview(DATA)[:100], begins, sizes, memoryview(out))
    assert bytearray(b"\xaa" * 96) == out


def test_pieces_may_end_with_the_buffer_and_overlap() -> None:
    data = DATA[:100]
    pieces = [(100, 0), (0, 100), (99, 1), (50, 50)]
    assert expected(data, pieces) == digests(data, pieces)


def test_only_the_digests_are_written() -> None:
    out = bytearray(b"\xaa" * 65)
    native.digest_many(memoryview(DATA), array("Q", [0]), array("Q", [5000]), memoryview(out)[16:])
    assert (b"\xaa" * 16 + blake3(DATA[:5000]).digest() + b"\xaa" * 17) == out


def test_no_pieces_are_no_work() -> None:
    assert digests(b"", []) == []


NUMBERS = array("Q", [1, 2])


@pytest.mark.parametrize(
    ("begins", "sizes", "room"),
    [
        (NUMBERS, NUMBERS[:1], 64),
        (array("I", [1, 2]), NUMBERS, 64),
        (NUMBERS, array("q", [1, 2]), 64),
        (NUMBERS, NUMBERS, 63),
    ],
)
def test_arrays_that_do_not_fit_are_refused(begins: array[int], sizes: array[int], room: int) -> None:
    with pytest.raises(ValueError, match="type Q|do not fit"):
        native.digest_many(memoryview(DATA), begins, sizes, memoryview(bytearray(room)))


def test_a_read_only_output_is_refused() -> None:
    with pytest.raises(BufferError):
        native.digest_many(memoryview(DATA), NUMBERS, NUMBERS, memoryview(bytes(64)))
