#!/usr/bin/env python3
"""Reads a .dumont snapshot on any machine with Python 3.9 or later: one file, nothing to install, nothing to compile.

    python3 dumont_reader.py ls workspace.dumont
    python3 dumont_reader.py verify workspace.dumont
    python3 dumont_reader.py restore workspace.dumont /a/new/folder

It is slow and safe. Every byte is checked against its digest before a file gets its name; nothing is written outside
the folder; a size is checked before memory is taken for it. `verify` and `restore` check all that dumont-gpu's
`verify --content` does. If NumPy, blake3, lz4, zstandard or the C libraries lz4 and zstd happen to be there, they do
their part faster; `--pure` does without them.

It is documentation, too: each part of this file names the section of FORMAT.md that it reads ("section 5.2").

Exit codes: 0 done, 1 failed, 2 usage, 3 done but some entries could not be restored as they were, 4 damaged,
6 no space left, 8 needs a newer reader, 10 no such snapshot, 130 stopped.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # no module comes from the folder of this file: other people's files may lie beside a snapshot

import argparse
import base64
import contextlib
import datetime
import errno
import functools
import hashlib
import importlib
import io
import json
import re
import stat
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Optional, Union

Buffer = Union[bytes, bytearray, memoryview]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PROGRAM = "dumont_reader"


# --- Errors -----------------------------------------------------------------------------------------------------------


class ReaderError(Exception):
    """The command failed. The message is one line."""

    exit_code = 1


class UsageError(ReaderError):
    exit_code = 2


class DamagedError(ReaderError):
    """The snapshot breaks a rule of FORMAT.md."""

    exit_code = 4


class NoSpaceError(ReaderError):
    exit_code = 6


class UnsupportedError(ReaderError):
    """The snapshot needs something that this reader does not know."""

    exit_code = 8


class NotFoundError(ReaderError):
    exit_code = 10


def must(holds: object, rule: str) -> None:
    """Raises DamagedError with the broken `rule` unless it holds."""
    if not holds:
        raise DamagedError(f"damaged: {rule}")


def printable(name: Buffer) -> str:
    """Returns a name for a terminal: what is not printable is escaped."""
    text = os.fsdecode(bytes(name))
    return "".join(char if char.isprintable() and char != "\\" else escaped(char) for char in text)


def escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # os.fsdecode turns a byte that is not UTF-8 into a surrogate
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


# --- Packages and libraries that make this reader faster where they happen to be -----------------------------------


class Faster:
    """Faster ways to do what this file does itself, and does itself where an attribute is None."""

    def __init__(self) -> None:
        self.numpy: Any = None
        self.blake3: Optional[Callable[[Buffer], bytes]] = None
        self.lz4_block: Optional[Callable[[Buffer, int], Buffer]] = None  # ValueError: damaged
        self.zstd: Optional[Callable[[Buffer, int], Buffer]] = None  # of exactly one frame; ValueError: damaged

    def find(self) -> None:
        self.numpy = module("numpy")
        blake3 = module("blake3")
        if blake3:
            self.blake3 = lambda data: bytes(blake3.blake3(data).digest())
        self.lz4_block = lz4_of_module(module("lz4.block")) or lz4_of_library(library("lz4"))
        self.zstd = zstd_of_module(module("zstandard")) or zstd_of_library(library("zstd"))


def module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:  # a broken installation raises anything: this file does without
        return None


ctypes = module("ctypes")  # a minimal Python lacks it


def library(name: str) -> Any:
    """Loads a C library, of a place where the system keeps them; None without one."""
    for file in (f"lib{name}.so.1", f"lib{name}.1.dylib"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(file) if ctypes else None
    return None


def lz4_of_module(lz4: Any) -> Optional[Callable[[Buffer, int], Buffer]]:
    def decode(data: Buffer, most: int) -> Buffer:
        try:
            return bytes(lz4.decompress(data, uncompressed_size=most))
        except lz4.LZ4BlockError as error:
            raise ValueError(str(error)) from None

    return decode if hasattr(lz4, "LZ4BlockError") else None


def lz4_of_library(lz4: Any) -> Optional[Callable[[Buffer, int], Buffer]]:
    def decode(data: Buffer, most: int) -> Buffer:
        out = bytearray(most)
        size = lz4.LZ4_decompress_safe(bytes(data), (ctypes.c_char * most).from_buffer(out), len(data), most)
        if size < 0:
            raise ValueError("LZ4 block")
        return out[:size]

    return decode if hasattr(lz4, "LZ4_decompress_safe") else None


def zstd_of_module(zstandard: Any) -> Optional[Callable[[Buffer, int], Buffer]]:
    def decode(frame: Buffer, size: int) -> Buffer:
        try:
            return bytes(zstandard.ZstdDecompressor().stream_reader(frame).read(size + 1))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None

    return decode if hasattr(zstandard, "ZstdDecompressor") else None


def zstd_of_library(zstd: Any) -> Optional[Callable[[Buffer, int], Buffer]]:
    if not hasattr(zstd, "ZSTD_decompress"):
        return None
    number = ctypes.c_size_t
    zstd.ZSTD_decompress.restype, zstd.ZSTD_decompress.argtypes = (
        number,
        (ctypes.c_void_p, number, ctypes.c_char_p, number),
    )
    zstd.ZSTD_isError.restype, zstd.ZSTD_isError.argtypes = ctypes.c_uint, (number,)

    def decode(frame: Buffer, size: int) -> Buffer:
        out = bytearray(max(1, size))
        found = zstd.ZSTD_decompress((ctypes.c_char * len(out)).from_buffer(out), size, bytes(frame), len(frame))
        if zstd.ZSTD_isError(found):
            raise ValueError("zstd frame")
        return memoryview(out)[:found]

    return decode


faster = Faster()


# --- Digests: section 4 -----------------------------------------------------------------------------------------------
#
# BLAKE3 cuts its input into chunks of 1 KiB, which a binary tree joins. All chunks are alike, so many of them, of many
# pieces, go through each step side by side: as 32-bit lanes of NumPy's arrays or, without NumPy, of Python's long
# integers. There a lane takes 64 bits, so that no carry of a sum and no bit of a shift reaches the lane above.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8  # flags of a compression
RUN = 1024  # chunks of a piece, from which on they need not be gathered
LANES, ARRAY_LANES = 1024, 4096  # at once: state and message of so many stay in a core's cache


def schedule() -> list[list[int]]:
    """Returns which message word each place of each of the 7 rounds takes."""
    rounds = [list(range(16))]
    for _ in range(6):
        rounds.append([rounds[-1][place] for place in PERMUTATION])
    return rounds


SCHEDULE = schedule()
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))  # fmt: skip


class Lanes(NamedTuple):
    """What a compression takes beside values and blocks: a number for each lane."""

    counters: array[int]
    lengths: array[int]
    flags: array[int]


def compress(values: Optional[bytes], data: Buffer, first: int, stride: int, lanes: Lanes) -> bytes:
    """Returns the chaining values (32 bytes a lane) after a block more.

    Args:
        values: the chaining values before; None: the initial value in every lane.
        data: lane n's block of 64 bytes begins at `first + n * stride`, counted in words of 4 bytes.
    """
    if faster.numpy:
        return compress_arrays(faster.numpy, values, data, first, stride, lanes)
    return compress_integers(values, data, first, stride, lanes)


@functools.lru_cache(maxsize=64)
def every_lane(count: int, number: int) -> int:
    return int.from_bytes(number.to_bytes(8, "little") * count, "little")


def widened(words: memoryview) -> int:
    """Returns 32-bit words as a long integer of 64-bit lanes."""
    wide = bytearray(8 * len(words))
    memoryview(wide).cast("I")[::2] = words
    return int.from_bytes(wide, "little")


def compress_integers(values: Optional[bytes], data: Buffer, first: int, stride: int, lanes: Lanes) -> bytes:
    count = len(lanes.counters)
    mask = every_lane(count, 0xFFFFFFFF)
    words = memoryview(data).cast("I")
    end = first + stride * (count - 1) + 1
    message = [widened(words[first + place : end + place : stride]) for place in range(16)]
    if values is None:
        state = [every_lane(count, word) for word in IV]
    else:
        before = memoryview(values).cast("I")
        state = [widened(before[place::8]) for place in range(8)]
    state += [every_lane(count, word) for word in IV[:4]]
    state += [widened(memoryview(numbers)) for numbers in (lanes.counters, array("I", bytes(4 * count)), *lanes[1:])]
    for places in SCHEDULE:
        for quarter, (a, b, c, d) in enumerate(QUARTERS):
            for place, (right_d, right_b) in enumerate(((16, 12), (8, 7)), 2 * quarter):
                va = state[a] = (state[a] + state[b] + message[places[place]]) & mask
                vd = state[d] ^ va
                vd = state[d] = (vd >> right_d | vd << 32 - right_d) & mask
                vc = state[c] = (state[c] + vd) & mask
                vb = state[b] ^ vc
                state[b] = (vb >> right_b | vb << 32 - right_b) & mask
    out = bytearray(32 * count)
    result = memoryview(out).cast("I")
    for place in range(8):
        wide = (state[place] ^ state[place + 8]).to_bytes(8 * count, "little")
        result[place::8] = memoryview(wide).cast("I")[::2]
    return bytes(out)


def compress_arrays(numpy: Any, values: Optional[bytes], data: Buffer, first: int, stride: int, lanes: Lanes) -> bytes:
    count, word = len(lanes.counters), numpy.dtype("<u4")
    end = first + stride * (count - 1) + 16
    blocks = numpy.lib.stride_tricks.as_strided(
        numpy.frombuffer(data, word)[first:end], (count, 16), (4 * stride, 4), writeable=False
    )
    message = numpy.ascontiguousarray(blocks.T, dtype=numpy.uint32)
    start = numpy.array(IV, numpy.uint32).reshape(8, 1)
    before = numpy.repeat(start, count, 1) if values is None else numpy.frombuffer(values, word).reshape(count, 8).T
    # The state is four rows of four words each, and each step does four quarters at once.
    a, b = (numpy.array(rows, numpy.uint32, order="C") for rows in (before[:4], before[4:]))
    c = numpy.repeat(start[:4], count, 1)
    d = numpy.zeros((4, count), numpy.uint32)
    d[0], d[2], d[3] = (numpy.frombuffer(numbers, numpy.uint32) for numbers in lanes)
    spare, taken = numpy.empty_like(a), numpy.empty_like(a)
    bits = {count: numpy.uint32(count) for count in (7, 8, 12, 16, 20, 24, 25)}

    def turn_right(rows: Any, count: int) -> None:
        numpy.left_shift(rows, bits[32 - count], out=spare)
        numpy.right_shift(rows, bits[count], out=rows)
        numpy.bitwise_or(rows, spare, out=rows)

    def mix(places: list[int]) -> None:
        nonlocal a, b, c, d
        for half, right_d, right_b in ((0, 16, 12), (1, 8, 7)):
            numpy.take(message, places[half::2], 0, out=taken, mode="clip")
            a += b
            a += taken
            d ^= a
            turn_right(d, right_d)
            c += d
            b ^= c
            turn_right(b, right_b)

    for places in SCHEDULE:
        mix(places[:8])
        b, c, d = (numpy.concatenate((rows[up:], rows[:up])) for rows, up in ((b, 1), (c, 2), (d, 3)))  # to diagonals
        mix(places[8:])
        b, c, d = (numpy.concatenate((rows[up:], rows[:up])) for rows, up in ((b, 3), (c, 2), (d, 1)))
    out = numpy.empty((count, 8), word)
    out[:, :4], out[:, 4:] = (a ^ c).T, (b ^ d).T
    return bytes(out.tobytes())


def blake3_many(pieces: Sequence[Buffer]) -> list[bytes]:
    """Returns the BLAKE3 digest of each piece."""
    if faster.blake3:
        return [faster.blake3(piece) for piece in pieces]
    lanes = ARRAY_LANES if faster.numpy else LANES
    values = [bytearray(32 * max(1, -(-len(piece) // KIB))) for piece in pieces]
    chunks: list[tuple[int, int]] = []  # number of the piece, offset in it
    ends: list[tuple[int, int]] = []  # the same, of chunks that have less than 1 KiB
    for number, piece in enumerate(pieces):
        run = len(piece) // KIB // RUN * RUN  # chunks that are hashed where they lie
        for start in range(0, run, lanes):
            stop = min(run, start + lanes)
            every, flags = [KIB] * (stop - start), [CHUNK_END] * (stop - start)
            counters = array("I", range(start, stop))
            values[number][32 * start : 32 * stop] = chunk_values(
                piece[KIB * start : KIB * stop], counters, every, flags
            )
        chunks += [(number, at) for at in range(KIB * run, len(piece) - KIB + 1, KIB)]
        if len(piece) % KIB or not piece:
            ends.append((number, len(piece) // KIB * KIB))
    chunks += sorted(
        ends, key=lambda end: end[1] - len(pieces[end[0]])
    )  # lanes end from the last on: the longest first
    for start in range(0, len(chunks), lanes):
        batch = [(number, at, bytes(pieces[number][at : at + KIB])) for number, at in chunks[start : start + lanes]]
        data = b"".join(chunk.ljust(KIB, b"\0") for _, _, chunk in batch)
        flags = [CHUNK_END | (ROOT if len(pieces[number]) <= KIB else 0) for number, _, _ in batch]
        counters = array("I", [at // KIB for _, at, _ in batch])
        found = chunk_values(data, counters, [len(chunk) for _, _, chunk in batch], flags)
        for lane, (number, at, _) in enumerate(batch):
            values[number][at // 32 : at // 32 + 32] = found[32 * lane : 32 * lane + 32]
    join_values(values)
    return [bytes(value) for value in values]


def chunk_values(data: Buffer, counters: array[int], sizes: Sequence[int], last_flags: Sequence[int]) -> bytes:
    """Returns the chaining values of chunks.

    Args:
        data: the chunks, each in 1 KiB.
        counters: the number of each chunk in its piece.
        sizes: bytes of each chunk; they do not ascend.
        last_flags: the flags of each chunk's last block.
    """
    values: Optional[bytes] = None
    count = len(counters)
    done = bytearray(32 * count)
    for block in range(16):
        going_on = count
        while going_on and sizes[going_on - 1] <= 64 * (block + 1):
            going_on -= 1
        begin = 0 if block else CHUNK_START
        lengths, flags = array("I", [64]) * count, array("I", [begin]) * count
        lengths[going_on:] = array("I", [size - 64 * block for size in sizes[going_on:count]])
        flags[going_on:] = array("I", [begin | flag for flag in last_flags[going_on:count]])
        values = compress(values, data, 16 * block, KIB // 4, Lanes(counters[:count], lengths, flags))
        done[32 * going_on : 32 * count] = values[32 * going_on :]
        values, count = values[: 32 * going_on], going_on
        if not count:
            break
    return bytes(done)


def join_values(values: list[bytearray]) -> None:
    """Replaces the chaining values of each piece's chunks by the piece's digest: pairs join, an odd one goes up."""
    pending = [number for number, value in enumerate(values) if len(value) > 32]
    while pending:
        blocks = b"".join(bytes(values[number][: len(values[number]) // 64 * 64]) for number in pending)
        flags = array("I")
        for number in pending:
            flags.extend([PARENT | ROOT] if len(values[number]) == 64 else [PARENT] * (len(values[number]) // 64))
        joined = bytearray()
        for start in range(0, len(flags), LANES):
            some = flags[start : start + LANES]
            lanes = Lanes(array("I", bytes(4 * len(some))), array("I", [64]) * len(some), some)
            joined += compress(None, blocks, 16 * start, 16, lanes)
        at = 0
        for number in pending:
            pairs, odd = divmod(len(values[number]), 64)
            values[number] = joined[at : at + 32 * pairs] + (values[number][-32:] if odd else b"")
            at += 32 * pairs
        pending = [number for number in pending if len(values[number]) > 32]


def xxh32(data: Buffer) -> int:
    """The checksum of LZ4 frames."""
    mask = 0xFFFFFFFF
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393

    def turned(value: int, bits: int) -> int:
        return (value << bits | value >> 32 - bits) & mask

    end = len(data) & ~15
    if end:
        sums = [(p1 + p2) & mask, p2, 0, -p1 & mask]
        for stripe in struct.iter_unpack("<4I", data[:end]):
            sums = [turned((one + word * p2) & mask, 13) * p1 & mask for one, word in zip(sums, stripe)]
        state = sum(turned(one, bits) for one, bits in zip(sums, (1, 7, 12, 18)))
    else:
        state = p5
    state = (state + len(data)) & mask
    words = end + (len(data) - end) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[end:words]):
        state = turned((state + word * p3) & mask, 17) * p4 & mask
    for byte in data[words:]:
        state = turned((state + byte * p5) & mask, 11) * p1 & mask
    state = (state ^ state >> 15) * p2 & mask
    state = (state ^ state >> 13) * p3 & mask
    return state ^ state >> 16


def xxh64(data: Buffer) -> int:
    """The checksum of zstd frames, which have its low 32 bits."""
    mask = (1 << 64) - 1
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def turned(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & mask

    def step(one: int, word: int) -> int:
        return turned((one + word * p2) & mask, 31) * p1 & mask

    end = len(data) & ~31
    if end:
        sums = [(p1 + p2) & mask, p2, 0, -p1 & mask]
        for stripe in struct.iter_unpack("<4Q", data[:end]):
            sums = [step(one, word) for one, word in zip(sums, stripe)]
        state = sum(turned(one, bits) for one, bits in zip(sums, (1, 7, 12, 18))) & mask
        for one in sums:
            state = ((state ^ step(0, one)) * p1 + p4) & mask
    else:
        state = p5
    state = (state + len(data)) & mask
    rest = data[end:]
    eights = len(rest) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", rest[:eights]):
        state = (turned(state ^ step(0, word), 27) * p1 + p4) & mask
    if len(rest) - eights >= 4:
        (word,) = struct.unpack_from("<I", rest, eights)
        state = (turned(state ^ word * p1 & mask, 23) * p2 + p3) & mask
        eights += 4
    for byte in rest[eights:]:
        state = turned(state ^ byte * p5 & mask, 11) * p1 & mask
    state = (state ^ state >> 33) * p2 & mask
    state = (state ^ state >> 29) * p3 & mask
    return state ^ state >> 32


# --- Bit streams, FSE and Huffman codes: section 5.2, and RFC 8878, section 4 -----------------------------------------

MOST_SYMBOLS = 256  # of any code: a symbol is a byte
MULTIPLE = 2 * KIB  # symbols of a stream from which a table of several symbols a look-up pays


def backward_bits(stream: Buffer) -> str:
    """Returns the bits of a stream that is read backwards, in reading order, as digits; the marker is left out."""
    must(len(stream) and stream[-1], "end mark of a bit stream")
    return f"{int.from_bytes(stream, 'little'):b}"[1:]


class Counts(NamedTuple):
    """The normalised counts of an FSE table; -1 means "less than one"."""

    accuracy: int
    counts: Sequence[int]


class Cell(NamedTuple):
    """A state of an FSE table: its symbol, and how many bits, added to what base, make the next state."""

    symbol: int
    bits: int
    base: int


def fse_counts(data: Buffer, most_symbols: int, most_accuracy: int) -> tuple[Counts, int]:
    """Returns the counts at the start of `data`, and the bytes that they take."""
    data = bytes(data[:512])  # the longest description is shorter
    number, size = int.from_bytes(data, "little"), 8 * len(data)
    accuracy = (number & 15) + 5
    must(accuracy <= most_accuracy, "accuracy of an FSE table")
    at = 4
    counts: list[int] = []
    left = 1 << accuracy
    while left > 0:
        must(len(counts) < most_symbols and at < size, "symbols of an FSE table")
        width = (left + 1).bit_length()
        spare = (1 << width) - 1 - (left + 1)  # so many values take a bit less
        value = number >> at & (1 << width) - 1
        low = value & (1 << width - 1) - 1
        if low < spare:
            value, width = low, width - 1
        elif value != low:
            value -= spare
        at += width
        counts.append(value - 1)
        left -= abs(value - 1)
        repeat = 3 if value == 1 else 0
        while repeat == 3:
            repeat = number >> at & 3
            at += 2
            must(at <= size, "end of an FSE table")
            counts += [0] * repeat
    must(left == 0 and at <= size and len(counts) <= most_symbols, "FSE table")
    return Counts(accuracy, counts), -(-at // 8)


def fse_table(table: Counts) -> list[Cell]:
    """Returns the cell of each state."""
    size = 1 << table.accuracy
    step = (size >> 1) + (size >> 3) + 3
    symbols = [-1] * size
    rare = [symbol for symbol, count in enumerate(table.counts) if count == -1]
    symbols[size - len(rare) :] = reversed(rare)
    at = 0
    for symbol, count in enumerate(table.counts):
        for _ in range(count):
            symbols[at] = symbol
            at = (at + step) % size
            while at >= size - len(rare):
                at = (at + step) % size
    following = [abs(count) for count in table.counts]
    cells = []
    for symbol in symbols:
        bits = table.accuracy + 1 - following[symbol].bit_length()
        cells.append(Cell(symbol, bits, (following[symbol] << bits) - size))
        following[symbol] += 1
    return cells


def fse_weights(data: Buffer) -> list[int]:
    """Decodes weights that two states read in turn from a backward stream, until an update finds too few bits."""
    table, used = fse_counts(data, MOST_SYMBOLS, 6)
    cells = fse_table(table)
    bits = backward_bits(data[used:])
    at = 2 * table.accuracy
    must(at <= len(bits), "states of weights")
    states = [int(bits[: table.accuracy], 2), int(bits[table.accuracy : at], 2)]
    weights: list[int] = []
    while True:
        must(len(weights) < 255, "number of weights")
        cell = cells[states[0]]
        weights.append(cell.symbol)
        if at + cell.bits > len(bits):
            return [*weights, cells[states[1]].symbol]
        states = [states[1], cell.base + int("0" + bits[at : at + cell.bits], 2)]
        at += cell.bits


class Code(NamedTuple):
    """A Huffman code: a table of 2^width cells, each (symbol, bits of its code)."""

    width: int
    cells: list[tuple[int, int]]


def huffman_code(data: Buffer, most_width: int) -> tuple[Code, int]:
    """Returns the code of the tree description at the start of `data`, and the bytes that it takes."""
    must(len(data), "a tree description is missing")
    first = data[0]
    used = 1 + first if first < 128 else 1 + (first - 127 + 1) // 2
    must(used <= len(data), "end of a tree description")
    if first < 128:
        weights = fse_weights(data[1:used])
    else:
        weights = [half for byte in data[1:used] for half in (byte >> 4, byte & 15)][: first - 127]
    must(len(weights) < MOST_SYMBOLS and all(weight < 12 for weight in weights), "weights")
    total = sum(1 << weight >> 1 for weight in weights)
    must(total, "a tree without symbols")
    width = total.bit_length()
    rest = (1 << width) - total
    must(width <= most_width and rest & (rest - 1) == 0, "sum of weights")
    weights.append(rest.bit_length())
    must(weights.count(1) >= 2 and weights.count(1) % 2 == 0, "symbols of weight 1")
    cells = []
    for weight in range(1, width + 1):
        for symbol, own in enumerate(weights):
            if own == weight:
                cells += [(symbol, width + 1 - weight)] * (1 << weight - 1)
    return Code(width, cells), used


@functools.lru_cache(maxsize=16)
def digits_of(width: int) -> list[str]:
    return [f"{number:0{width}b}" for number in range(1 << width)]


class SymbolReader:
    """Decodes the backward streams of a Huffman code, several symbols a look-up."""

    def __init__(self, code: Code) -> None:
        self._code = code
        single = [(bytes((symbol,)), bits) for symbol, bits in code.cells]
        self._single = dict(zip(digits_of(code.width), single))
        self._several: Optional[dict[str, tuple[bytes, int]]] = None

    def read(self, stream: Buffer, count: int) -> bytes:
        """Returns the `count` symbols of a stream, which must hold exactly these."""
        bits = backward_bits(stream)
        end, width, at = len(bits), self._code.width, 0
        must(count <= end, "symbols of a bit stream")
        if count >= MULTIPLE and self._several is None:
            self._several = dict(zip(digits_of(width), self._several_symbols()))
        table = self._several if count >= MULTIPLE and self._several else self._single
        out: list[bytes] = []
        append, last = out.append, end - width
        while at <= last:  # every bit of the look-up is the stream's own
            symbols, used = table[bits[at : at + width]]
            append(symbols)
            at += used
        bits += "0" * width
        while at < end:
            symbols, used = self._single[bits[at : at + width]]
            append(symbols)
            at += used
        decoded = b"".join(out)
        must(at == end and len(decoded) == count, "symbols of a bit stream")
        return decoded

    def _several_symbols(self) -> list[tuple[bytes, int]]:
        """Returns for each window of bits all symbols that lie in it as a whole, and their bits."""
        width, cells = self._code.width, self._code.cells
        known: list[list[tuple[bytes, int]]] = [[(b"", 0)]]  # by the number of bits that are there
        names = [bytes((symbol,)) for symbol in range(MOST_SYMBOLS)]
        for there in range(1, width + 1):
            row = []
            for window in range(1 << there):
                symbol, bits = cells[window << width - there]
                if bits > there:
                    row.append((b"", 0))
                else:
                    rest, more = known[there - bits][window & (1 << there - bits) - 1]
                    row.append((names[symbol] + rest, bits + more))
            known.append(row)
        return known[width]


# --- LZ4 frames: section 5.1 ------------------------------------------------------------------------------------------

LZ4_BLOCK = 64 * KIB


def lz4_blocks(frame: Buffer, most: int) -> Iterator[Buffer]:
    """Yields the decoded blocks of a frame that holds at most `most` bytes; all is checked when the last has come."""
    must(len(frame) >= 15 and frame[:4] == b"\x04\x22\x4d\x18", "magic of an LZ4 frame")
    # Version 1, independent blocks, content size, no dictionary; bits 4 and 2 are the checksums. Blocks of 64 KiB.
    must(frame[4] & 0b11101011 == 0b01101000 and frame[5] == 0x40, "kind of LZ4 frame")
    of_blocks, of_content = frame[4] & 16, frame[4] & 4
    left = int.from_bytes(frame[6:14], "little")
    must(left <= most, "content size of an LZ4 frame")
    must(xxh32(frame[4:14]) >> 8 & 0xFF == frame[14], "header checksum of an LZ4 frame")
    at = 15
    content = bytearray()  # only if it has a checksum
    while True:
        size, at = u32(frame, at), at + 4
        if size == 0:
            break
        packed, size = size < 1 << 31, size & 0x7FFFFFFF
        block = frame[at : at + size]
        must(size <= LZ4_BLOCK and len(block) == size, "size of an LZ4 block")
        at += size
        if of_blocks:
            must(xxh32(block) == u32(frame, at), "checksum of an LZ4 block")
            at += 4
        decoded = lz4_block(block) if packed else block
        left -= len(decoded)
        must(left >= 0, "content size of an LZ4 frame")
        if of_content:
            content += decoded
        yield decoded
    must(left == 0, "content size of an LZ4 frame")
    if of_content:
        must(xxh32(content) == u32(frame, at), "checksum of an LZ4 frame")
        at += 4
    must(at == len(frame), "end of an LZ4 frame")


def u32(data: Buffer, at: int) -> int:
    must(at + 4 <= len(data), "four bytes are missing")
    return int.from_bytes(data[at : at + 4], "little")


def lz4_block(block: Buffer) -> Buffer:
    """Decodes a block to at most 64 KiB."""
    try:
        return faster.lz4_block(block, LZ4_BLOCK) if faster.lz4_block else lz4_sequences(bytes(block))
    except (ValueError, IndexError):  # IndexError: the block ends within a sequence
        raise DamagedError("damaged: LZ4 block") from None


def lz4_sequences(block: bytes) -> bytearray:
    out = bytearray()
    at, end = 0, len(block)
    while True:
        token = block[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            literals, at = longer(block, literals, at)
        out += block[at : at + literals]
        at += literals
        must(at <= end and len(out) <= LZ4_BLOCK, "literals of an LZ4 block")
        if at == end:
            return out
        offset = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            length, at = longer(block, length, at)
        must(0 < offset <= len(out), "offset in an LZ4 block")
        repeat(out, offset, length + 4)
        must(len(out) <= LZ4_BLOCK, "size of an LZ4 block")


def longer(block: bytes, length: int, at: int) -> tuple[int, int]:
    """Returns a length to which bytes are added, the last of them below 255, and the offset behind them."""
    while True:
        byte = block[at]
        length, at = length + byte, at + 1
        if byte != 255:
            return min(length, 2 * LZ4_BLOCK), at  # whatever is longer is refused, before memory is taken


def repeat(out: bytearray, offset: int, length: int) -> None:
    """Appends `length` bytes that begin `offset` bytes before the end, and may be those that are being appended."""
    start = len(out) - offset
    if offset >= length:
        out += out[start : start + length]
    else:
        out += (out[start:] * (length // offset + 1))[:length]


# --- zstd frames: section 5.3, and RFC 8878, section 3.1.1 ------------------------------------------------------------

ZSTD_BLOCK = 128 * KIB
SHORT_LITERALS = (*((base, 0) for base in range(16)), (16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3),
                  (40, 3), (48, 4), (64, 6), *((1 << bits, bits) for bits in range(7, 17)))  # fmt: skip
SHORT_MATCHES = (*((base, 0) for base in range(3, 35)), (35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3),
                 (59, 3), (67, 4), (83, 4), (99, 5), *(((1 << bits) + 3, bits) for bits in range(7, 17)))  # fmt: skip
OFFSETS = tuple((1 << bits, bits) for bits in range(32))
USUAL_LITERALS = Counts(6, (4, 3, *[2] * 11, 1, 1, 1, *[2] * 9, 3, 2, *[1] * 5, *[-1] * 4))
USUAL_OFFSETS = Counts(5, (*[1] * 6, 2, 2, 2, *[1] * 15, *[-1] * 5))
USUAL_MATCHES = Counts(6, (1, 4, 3, *[2] * 6, *[1] * 37, *[-1] * 7))
# For lengths of literals, offsets and lengths of matches: (base, bits) of each code, the most bits of a state, and the
# table that a frame need not bring.
FIELDS = ((SHORT_LITERALS, 9, USUAL_LITERALS), (OFFSETS, 8, USUAL_OFFSETS), (SHORT_MATCHES, 9, USUAL_MATCHES))
State = tuple[int, int, int, int]  # base and bits of the value, bits and base of the next state


def decode_zstd(frame: Buffer, size: int) -> Buffer:
    """Decodes exactly one frame, of exactly `size` bytes."""
    must(len(frame) >= 6 and frame[:4] == b"\x28\xb5\x2f\xfd", "magic of a zstd frame")
    flags = frame[4]
    must(flags & 0b1011 == 0, "dictionary or reserved bit of a zstd frame")
    single = flags >> 5 & 1
    start = 6 - single
    width = (single, 2, 4, 8)[flags >> 6]
    at = start + width
    must(width and at <= len(frame), "content size of a zstd frame is missing")
    must(int.from_bytes(frame[start:at], "little") + (256 if width == 2 else 0) == size, "content size of a zstd frame")
    window = size if single else (8 + (frame[5] & 7) << 10 + (frame[5] >> 3)) // 8
    must(window <= 128 * MIB, "window of a zstd frame")
    blocks = list(zstd_blocks(frame, at))
    end = blocks[-1][1] + blocks[-1][2]
    must(end + (4 if flags & 4 else 0) == len(frame), "end of a zstd frame")
    if faster.zstd:
        try:
            out = faster.zstd(frame, size)
        except ValueError:
            raise DamagedError("damaged: zstd frame") from None
    else:
        out = decode_zstd_blocks(frame, blocks, size, min(window, ZSTD_BLOCK))
        must(not flags & 4 or xxh64(out) & 0xFFFFFFFF == u32(frame, end), "checksum of a zstd frame")
    must(len(out) == size, "content size of a zstd frame")
    return out


def zstd_blocks(frame: Buffer, at: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields each block's type, where it begins, how many bytes it takes there, and its size as written."""
    last = 0
    while not last:
        must(at + 3 <= len(frame), "last block of a zstd frame")
        header = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        must(kind < 3, "type of a zstd block")
        taken = 1 if kind == 1 else size
        yield kind, at + 3, taken, size
        at += 3 + taken


def decode_zstd_blocks(frame: Buffer, blocks: list[tuple[int, int, int, int]], size: int, most: int) -> bytearray:
    decoder = ZstdDecoder(size, most)
    for kind, at, taken, length in blocks:
        data = bytes(frame[at : at + taken])
        must(len(data) == taken and length <= most, "size of a zstd block")
        if kind == 2:
            try:
                decoder.block(data)
            except IndexError:  # a field lies beyond the end
                raise DamagedError("damaged: a zstd block is cut short") from None
        else:
            decoder.plain(data * length if kind == 1 else data)
    return decoder.out


class ZstdDecoder:
    """Decodes the blocks of a frame in turn: later blocks refer to earlier bytes, offsets and tables."""

    def __init__(self, size: int, most: int) -> None:
        self.out = bytearray()
        self._size, self._most = size, most
        self._offsets = [1, 4, 8]
        self._symbols: Optional[SymbolReader] = None
        self._tables: list[Optional[list[State]]] = [None, None, None]

    def plain(self, data: bytes) -> None:
        must(len(self.out) + len(data) <= self._size, "content size of a zstd frame")
        self.out += data

    def block(self, data: bytes) -> None:
        """Decodes a compressed block."""
        literals, at = self._literals(data)
        count, at = self._count(data, at)
        if count == 0:
            must(at == len(data), "end of a zstd block")
            self.plain(literals)
            return
        modes = data[at]
        must(modes & 3 == 0, "modes of a zstd block")
        at += 1
        for field in range(3):
            at = self._table(field, modes >> 6 - 2 * field & 3, data, at)
        self._sequences(literals, data[at:], count)

    def _literals(self, data: bytes) -> tuple[bytes, int]:
        """Returns the literals of a block, and where the sequences begin."""
        kind, width = data[0] & 3, data[0] >> 2 & 3
        if kind < 2:  # as they are, or one byte repeated
            taken = (1, 2, 1, 3)[width]
            size = int.from_bytes(data[:taken], "little") >> (4 if width & 1 else 3)
            must(size <= self._most, "number of literals")
            end = taken + (1 if kind else size)
            must(end <= len(data), "literals of a zstd block")
            return data[taken:end] * (size if kind else 1), end
        taken, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[width]
        number = int.from_bytes(data[:taken], "little") >> 4
        size, end = number & (1 << bits) - 1, taken + (number >> bits)
        must(size <= self._most and end <= len(data), "literals of a zstd block")
        if kind == 2:
            code, used = huffman_code(data[taken:end], 11)
            self._symbols = SymbolReader(code)
            taken += used
        symbols = self._symbols
        if symbols is None:
            raise DamagedError("damaged: literals without a tree")
        if width == 0:
            return symbols.read(data[taken:end], size), end
        return four_streams(symbols, data[taken:end], size), end

    def _count(self, data: bytes, at: int) -> tuple[int, int]:
        """Returns the number of sequences, and where their tables begin."""
        first = data[at]
        if first < 128:
            return first, at + 1
        if first < 255:
            return (first - 128 << 8) + data[at + 1], at + 2
        return data[at + 1] + (data[at + 2] << 8) + 0x7F00, at + 3

    def _table(self, field: int, mode: int, data: bytes, at: int) -> int:
        """Takes over the table of a field; returns where the next begins."""
        codes, accuracy, usual = FIELDS[field]
        if mode == 3:
            must(self._tables[field] is not None, "a zstd block repeats a table that was not there")
            return at
        if mode == 1:
            must(data[at] < len(codes), "code of a zstd sequence")
            self._tables[field] = [(*codes[data[at]], 0, 0)]
            return at + 1
        used = 0
        if mode == 2:
            usual, used = fse_counts(data[at:], len(codes), accuracy)
        self._tables[field] = [(*codes[cell.symbol], cell.bits, cell.base) for cell in fse_table(usual)]
        return at + used

    def _sequences(self, literals: bytes, stream: bytes, count: int) -> None:
        """Carries out the sequences: each copies literals, then earlier bytes."""
        must(stream and stream[-1], "end mark of a bit stream")
        lengths, offsets, matches = (table or [] for table in self._tables)
        out, history = self.out, self._offsets
        limit = min(self._size, len(out) + self._most)
        at = 0  # in the literals
        # `bits` holds the next `have` bits of the stream, the first on top; `left` bytes are not yet in it.
        left = max(0, len(stream) - 32)
        bits = int.from_bytes(stream[left:], "little")
        have = bits.bit_length() - 1
        states = []
        for table in (lengths, offsets, matches):
            width = len(table).bit_length() - 1
            have -= width
            must(have >= 0, "states of zstd sequences")
            states.append(bits >> have & (1 << width) - 1)
        state_l, state_o, state_m = states
        for sequence in range(count, 0, -1):
            if have < 96 and left:  # a sequence takes at most 31 + 16 + 16 bits, and 9 + 9 + 8 for the next states
                more = min(32, left)
                left -= more
                bits = (bits & (1 << have) - 1) << 8 * more | int.from_bytes(stream[left : left + more], "little")
                have += 8 * more
            value, extra_o, next_o, base_o = offsets[state_o]
            length, extra_m, next_m, base_m = matches[state_m]
            run, extra_l, next_l, base_l = lengths[state_l]
            have -= extra_o
            must(have >= 0, "bits of zstd sequences")
            value += bits >> have & (1 << extra_o) - 1
            if extra_m or extra_l:
                have -= extra_m + extra_l
                must(have >= 0, "bits of zstd sequences")
                length += bits >> have + extra_l & (1 << extra_m) - 1
                run += bits >> have & (1 << extra_l) - 1
            if sequence > 1:
                have -= next_l + next_m + next_o
                must(have >= 0, "bits of zstd sequences")
                state_l = base_l + (bits >> have + next_m + next_o & (1 << next_l) - 1)
                state_m = base_m + (bits >> have + next_o & (1 << next_m) - 1)
                state_o = base_o + (bits >> have & (1 << next_o) - 1)
            if value > 3:
                value -= 3
                history[:] = value, history[0], history[1]
            else:
                value = earlier_offset(history, value - 1 + (run == 0))
            out += literals[at : at + run]
            at += run
            must(0 < value <= len(out) and at <= len(literals), "offset or literals of a zstd sequence")
            must(len(out) + length <= limit, "size of a zstd block")
            start = len(out) - value
            if value >= length:
                out += out[start : start + length]
            else:
                out += (out[start:] * (length // value + 1))[:length]
        must(have == 0 and left == 0, "end of zstd sequences")
        out += literals[at:]
        must(len(out) <= limit, "size of a zstd block")


def earlier_offset(history: list[int], which: int) -> int:
    """Returns one of the last three offsets, or the last less one, and moves it to the front."""
    if which == 0:
        return history[0]
    value = history[which] if which < 3 else history[0] - 1
    history[:] = (value, history[0], history[2]) if which == 1 else (value, history[0], history[1])
    return value


def jump_table(data: Buffer) -> list[Buffer]:
    """Returns the four streams behind a jump table."""
    must(len(data) >= 6, "jump table")
    streams = []
    at = 6
    for size in struct.unpack_from("<3H", data):
        must(at + size <= len(data), "jump table")
        streams.append(data[at : at + size])
        at += size
    return [*streams, data[at:]]


def four_streams(symbols: SymbolReader, data: Buffer, count: int) -> bytes:
    """Decodes a jump table and four streams of Huffman codes to `count` symbols."""
    quarter = -(-count // 4)
    counts = (quarter, quarter, quarter, max(0, count - 3 * quarter))
    decoded = b"".join(symbols.read(stream, number) for stream, number in zip(jump_table(data), counts))
    must(len(decoded) == count, "symbols of four streams")
    return decoded


# --- ZipNN streams: section 5.2 ---------------------------------------------------------------------------------------

ZIPNN = struct.Struct("<2s2sBBBBB4sBBBQQ")
HUFF0_BLOCK = 128 * KIB


class Dtype(NamedTuple):
    """An element type. In `word`, 32 bits after the sign was moved, lie the exponents, the signs and the mantissas."""

    element: int
    byte_order: int = 10
    sign_moved: Optional[int] = None
    word: Optional[tuple[int, int, int]] = None


FP32 = Dtype(4, 220, 1, (0xFF000000, 0x00800000, 0x007FFFFF))
BF16 = Dtype(2, 10, 1, (0xFF00FF00, 0x00800080, 0x007F007F))
FP16, FP8 = Dtype(2, 10, 0), Dtype(1)
DTYPES = {1: FP32, 2: FP32, 4: FP16, 5: FP16, 6: BF16, 29: FP8, 30: FP8}


def decode_zipnn(stored: Buffer, size: int) -> Buffer:
    """Decodes a stream of `size` raw bytes, or a sequence of streams."""
    out = bytearray()
    at = 0
    while at < len(stored) or at == 0:
        dtype, sequence, block_log2, raw, total = zipnn_header(stored[at:])
        must(sequence or (at == 0 and total == len(stored)), "bytes after a ZipNN stream that stands alone")
        must(raw <= size - len(out), "raw bytes of a ZipNN stream")
        out += zipnn_stream(stored[at : at + total], dtype, block_log2, raw)
        at += total
    must(len(out) == size, "raw bytes of a ZipNN stream")
    return out


def zipnn_header(stream: Buffer) -> tuple[Dtype, int, int, int, int]:
    """Returns dtype, byte 13, log2 of the block size, raw bytes and bytes of the stream that begins here."""
    must(len(stream) >= ZIPNN.size, "a ZipNN header is cut short")
    fields = ZIPNN.unpack_from(stream)
    magic, version, _, order, moved, method, plain, zero, sequence, block_log2, number, raw, total = fields
    must(magic == b"ZN", "magic of a ZipNN stream")
    dtype = DTYPES.get(number)
    if dtype is None or version != b"\x00\x05" or method > 1 or plain != 1 or any(zero) or 0 < sequence < 128:
        raise UnsupportedError("this kind of ZipNN stream is not supported")
    if order != dtype.byte_order or dtype.sign_moved not in (moved, None):
        raise UnsupportedError("bytes 5 and 6 of a ZipNN stream are not supported for its dtype")
    if not dtype.element <= 1 << block_log2 <= 1 << 62:
        raise UnsupportedError("the block size of a ZipNN stream is not supported")
    must(ZIPNN.size <= total <= len(stream), "bytes of a ZipNN stream")
    return dtype, sequence, block_log2, raw, total


class Plane(NamedTuple):
    """A block of a group: where its raw bytes go, how many they are, and their encoded bytes."""

    start: int
    symbols: int
    huff0: bool
    stored: Buffer


def zipnn_stream(stream: Buffer, dtype: Dtype, block_log2: int, size: int) -> bytearray:
    """Decodes the tables and blocks of a stream whose header has been checked."""
    groups = dtype.element
    block_size = min(1 << block_log2, HUFF0_BLOCK) if groups == 1 else 1 << block_log2
    blocks = -(-size // block_size)
    tables_end = ZIPNN.size + groups * blocks * 9
    must(tables_end <= len(stream), "ZipNN tables are cut short")
    types = stream[ZIPNN.size : ZIPNN.size + groups * blocks]
    ends = struct.unpack_from(f"<{groups * blocks}Q", stream, ZIPNN.size + groups * blocks)
    planes = []
    at = tables_end
    for group in range(groups):
        start = at
        for block in range(blocks):
            number, length = group * blocks + block, min(block_size, size - block * block_size)
            end = start + ends[number]
            must(at <= end <= len(stream), "bounds of a ZipNN block")
            must(types[number] < 2, "type of a ZipNN block")
            count = length // groups + (group < length % groups)
            planes.append(Plane(block * block_size + group, count, types[number] == 1, stream[at:end]))
            at = end
    must(at == len(stream), "bytes left over in a ZipNN stream")
    out = bytearray(size)
    decode_planes(planes, out, groups)
    if dtype.word is not None and block_size >= 4:  # words count from the start of a block: none lies in two of them
        restore_signs(out, dtype.word)
    return out


def decode_planes(planes: list[Plane], out: bytearray, groups: int) -> None:
    """Decodes blocks of groups into every `groups`-th byte of `out`."""
    coded = []
    for plane in planes:
        size, count = len(plane.stored), plane.symbols
        if size == count:
            raw = plane.stored
        else:
            must(plane.huff0 and 1 <= size < count, "size of a ZipNN block")
            if size > 1:
                must(count <= HUFF0_BLOCK, "size of a Huff0 block")
                coded.append(plane)
                continue
            raw = bytes(plane.stored) * count
        place(out, plane.start, groups, raw)
    for start in range(0, len(coded), SIDE_BY_SIDE):
        some = coded[start : start + SIDE_BY_SIDE]
        for plane, raw in zip(some, decode_huff0([(plane.stored, plane.symbols) for plane in some])):
            place(out, plane.start, groups, raw)


def place(out: bytearray, start: int, step: int, data: Buffer) -> None:
    """Puts `data` into every `step`-th byte of `out`."""
    if faster.numpy and step > 1:
        numpy = faster.numpy
        numpy.frombuffer(out, numpy.uint8)[start : start + step * len(data) : step] = numpy.frombuffer(
            data, numpy.uint8
        )
    else:
        out[start : start + step * len(data) : step] = data


def restore_signs(out: bytearray, word: tuple[int, int, int]) -> None:
    """Moves the sign bits of all words back to the top."""
    if faster.numpy:
        words = faster.numpy.frombuffer(out, "<u4", len(out) // 4)
        for start in range(0, len(words), 64 * KIB):
            some = words[start : start + 64 * KIB]
            some[:] = (some & word[0]) >> 1 | (some & word[1]) << 8 | some & word[2]
        return
    for start in range(0, len(out) // 4 * 4, 64 * KIB):  # so many words at once, as one long integer
        some = out[start : start + 64 * KIB]
        count = len(some) // 4
        exponents, signs, mantissas = (int.from_bytes(mask.to_bytes(4, "little") * count, "little") for mask in word)
        moved = int.from_bytes(some[: 4 * count], "little")
        restored = (moved & exponents) >> 1 | (moved & signs) << 8 | moved & mantissas
        out[start : start + 4 * count] = restored.to_bytes(4 * count, "little")


# Huff0: a tree description, a jump table and four streams.

SIDE_BY_SIDE = 512  # blocks; their streams are decoded side by side where NumPy is
FEW = 8  # blocks, for which NumPy does not pay


def decode_huff0(blocks: list[tuple[Buffer, int]]) -> Iterable[Buffer]:
    """Decodes blocks, each (encoded bytes, number of symbols)."""
    if faster.numpy and len(blocks) > FEW:
        return decode_huff0_arrays(faster.numpy, blocks)
    return [decode_huff0_block(stored, count) for stored, count in blocks]


def decode_huff0_block(stored: Buffer, count: int) -> bytes:
    code, used = huffman_code(stored, 12)
    return four_streams(SymbolReader(code), stored[used:], count)


def decode_huff0_arrays(numpy: Any, blocks: list[tuple[Buffer, int]]) -> list[Buffer]:
    """Decodes blocks at once: a lane for each stream, and in each step a look-up of up to four symbols in every lane.

    The bits before a stream are its neighbour's, not zeros. That changes nothing: a code that needs them is damage
    either way, and a code that does not need them is the same.
    """
    codes: list[Code] = []
    streams: list[Buffer] = []
    counts: list[int] = []
    for stored, count in blocks:
        code, used = huffman_code(stored, 12)
        codes.append(code)
        streams += jump_table(stored[used:])
        quarter = -(-count // 4)
        counts += [quarter, quarter, quarter, max(0, count - 3 * quarter)]
    for stream, count in zip(streams, counts):
        must(len(stream) and stream[-1], "end mark of a bit stream")
        must(count <= 8 * len(stream), "symbols of a bit stream")
    width = max(code.width for code in codes)
    tables = HuffmanTables(numpy, codes, width)
    sizes = numpy.array([len(stream) for stream in streams], numpy.int64)
    data = numpy.frombuffer(b"".join((bytes(4), *streams, bytes(4))), numpy.uint8)
    words = sum(data[place : len(data) - 3 + place].astype(numpy.uint32) << 8 * place for place in range(4))
    last = 8 * (4 + numpy.cumsum(sizes) - sizes)  # each lane's last bit
    markers = numpy.array([stream[-1].bit_length() - 1 for stream in streams], numpy.int64)
    bits = last + 8 * (sizes - 1) + markers  # each lane's next bit is the one below
    left = numpy.array(counts, numpy.int64)
    begins = numpy.cumsum(left + 4) - left - 4  # a look-up writes four bytes, also where fewer symbols are left
    out = numpy.zeros(int((left + 4).sum()), numpy.uint8)
    overlapping = numpy.lib.stride_tricks.as_strided(out.view(numpy.uint8)[:-3].view(), (len(out) - 3, 4), (1, 1))
    places = begins.copy()
    table = numpy.repeat(numpy.arange(len(codes), dtype=numpy.int64) << width, 4)

    def look_up(lanes: Any, steps: int, cells: Any) -> None:
        """Takes so many look-ups in each of these lanes."""
        at, to, base = bits[lanes], places[lanes], table[lanes]
        for _ in range(steps):
            at -= width
            window = (words.take(at >> 3) >> (at & 7)) & (1 << width) - 1
            cell = cells.take(base + window)
            overlapping[to] = cell.view(numpy.uint8).reshape(-1, 8)[:, :4]
            to += cell >> 40
            at += width - (cell >> 32 & 0xFF)
        left[lanes] -= to - places[lanes]
        bits[lanes], places[lanes] = at, to

    while True:
        # As long as four symbols and a whole window of bits are left for each step, no step has to be checked.
        steps = numpy.minimum(left >> 2, (bits - last) // width)
        lanes = numpy.flatnonzero(steps >= 4)
        if not len(lanes):
            break
        look_up(lanes, int(steps[lanes].min()), tables.several)
    while len(lanes := numpy.flatnonzero((left > 0) & (bits > last))):
        look_up(lanes, 1, tables.single)
    must(not left.any() and (bits == last).all(), "symbols of a bit stream")
    parts = [out[begin : begin + count] for begin, count in zip(begins.tolist(), counts)]
    return [numpy.concatenate(parts[at : at + 4]).data for at in range(0, len(parts), 4)]


class HuffmanTables:
    """The cells of many codes, one code after another, each for windows of `width` bits.

    A cell has up to four symbols in its lowest bytes, the first in the lowest; above them, the bits of their codes, and
    their number. `several` has all symbols that lie in the window as a whole, `single` the first of them.
    """

    def __init__(self, numpy: Any, codes: list[Code], width: int) -> None:
        size = 1 << width
        cells = numpy.empty((len(codes), size, 2), numpy.int64)
        for row, code in zip(cells, codes):
            row[:] = numpy.repeat(numpy.array(code.cells, numpy.int64), size >> code.width, 0)
        symbol, length = (numpy.ascontiguousarray(cells[:, :, half]).ravel() for half in (0, 1))
        window = numpy.tile(numpy.arange(size, dtype=numpy.int64), len(codes))
        base = numpy.repeat(numpy.arange(len(codes), dtype=numpy.int64) << width, size)
        symbols, used, numbers = symbol.copy(), length.copy(), numpy.ones_like(length)
        for more in range(1, 4):
            following = base + ((window << used) & (size - 1))
            fits = (numbers == more) & (used + length[following] <= width)
            symbols |= numpy.where(fits, symbol[following] << 8 * more, 0)
            used += numpy.where(fits, length[following], 0)
            numbers += fits
        self.single = symbol | length << 32 | 1 << 40
        self.several = symbols | used << 32 | numbers << 40


# --- Codecs: section 5 ------------------------------------------------------------------------------------------------


def decode_none(stored: Buffer, size: int) -> Buffer:
    must(len(stored) == size, "size of a raw chunk")
    return stored


def decode_lz4(stored: Buffer, size: int) -> Buffer:
    out = bytearray()
    for block in lz4_blocks(stored, size):
        out += block
    must(len(out) == size, "content size of an LZ4 frame")
    return out


DECODERS: dict[int, Callable[[Buffer, int], Buffer]] = {
    0: decode_none,
    1: decode_lz4,
    2: decode_lz4,
    3: decode_zipnn,
    4: decode_zstd,
}


# --- The file, its header and its chunk index: sections 3 and 4 -------------------------------------------------------

ALIGNMENT = 4 * KIB
HEADER = struct.Struct("<8s4I5Q32s32s352s32s")
CHUNK = struct.Struct("<QIIB8s")
BLAKE3_FLAG, COLUMNS_FLAG, STREAM_FLAG = 1, 2, 4
NONCE = 32  # random bytes, after the header in the first block and in the last block of a stream


class File:
    """A snapshot's bytes."""

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | NONBLOCK | getattr(os, "O_BINARY", 0))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such snapshot") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError("not a regular file")
        self.size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        data = b""
        while len(data) < size:
            more = os.read(self._descriptor, size - len(data))
            must(more, f"ends at byte {offset + len(data)}, {size - len(data)} are missing")
            data = data + more if data else more
        return data


NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a fifo in the snapshot's place must not block


class Header(NamedTuple):
    num_chunks: int
    num_files: int
    total_size_compressed: int
    total_size_original: int
    chunk_size: int
    manifest_offset: int
    manifest_size: int
    index_sha256: bytes
    manifest_sha256: bytes
    flags: int
    snapshot_id: str

    @property
    def is_stream(self) -> bool:
        return bool(self.flags & STREAM_FLAG)

    @property
    def manifest_end(self) -> int:
        return self.manifest_offset + self.manifest_size

    @property
    def index_start(self) -> int:
        return self.manifest_end if self.is_stream else HEADER.size

    @property
    def index_end(self) -> int:
        return self.index_start + CHUNK.size * self.num_chunks

    @property
    def first_chunk(self) -> int:
        """Where the first chunk may start, at the earliest."""
        return ALIGNMENT if self.is_stream else aligned(self.index_end)

    @property
    def file_size(self) -> int:
        return aligned(self.index_end) + ALIGNMENT if self.is_stream else self.manifest_end

    @property
    def digest_name(self) -> str:
        return "blake3" if self.flags & BLAKE3_FLAG else "sha256"

    @property
    def most_json(self) -> int:
        """The M of section 6.1."""
        return min(GIB, MIB + 80 * self.num_chunks + 16 * MIB * (self.num_files + 1))

    @property
    def most_head(self) -> int:
        """The L of section 6.2."""
        return min(512 * MIB, MIB + 32 * self.num_chunks + 32_818 * self.num_files)

    def digests(self, pieces: Sequence[Buffer]) -> list[bytes]:
        """Returns the digests of pieces of chunks."""
        if self.flags & BLAKE3_FLAG:
            return blake3_many(pieces)
        return [hashlib.sha256(piece).digest() for piece in pieces]


class Chunk(NamedTuple):
    offset: int
    size_compressed: int
    size_original: int
    codec: int
    checksum: bytes


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def read_header(file: File) -> Header:
    header = header_fields(file.read(0, min(HEADER.size, file.size)))
    if header.is_stream:
        header = closing_header(file, header)
    must(header.file_size == file.size, "the file is not as long as its header says")
    if header.flags & COLUMNS_FLAG:
        most = header.most_head + GIB + 8 * MIB
    else:
        most = header.most_json + header.most_json // 128 + 64 * KIB
    must(header.manifest_size <= most, "size of the manifest")
    room = header.manifest_offset - header.first_chunk
    must(room >= 0 and header.total_size_compressed <= room, "room for the chunks")
    return header


def closing_header(file: File, opening: Header) -> Header:
    """Reads the header in the last block of a stream, and checks that it ends this stream: section 3.1."""
    at = file.size - ALIGNMENT
    must(file.size >= 2 * ALIGNMENT, "the stream has no end: it was cut short")
    must(file.read(HEADER.size, NONCE) == file.read(at + HEADER.size, NONCE), "the end of the stream is of another")
    try:
        header = header_fields(file.read(at, HEADER.size))
    except (DamagedError, UnsupportedError):  # bytes of a chunk, say, which may look like anything
        raise DamagedError("the stream has no end: it was cut short, or is damaged there") from None
    known = (0, 0, 0, 0, header.chunk_size, 0, 0, bytes(32), bytes(32), header.flags)
    must(opening[:-1] == known, "the first block of the stream contradicts the last")
    return header


def header_fields(data: bytes) -> Header:
    """Checks the 512 bytes of a header, but not where the parts of the file lie."""
    if data[:8] != b"DUMONT02":
        if re.fullmatch(rb"DUMONT[0-9]{2}", data[:8]):
            raise UnsupportedError("a snapshot of another version of the format")
        raise DamagedError("not a .dumont snapshot")
    must(len(data) == HEADER.size, "the header is cut short")
    _, version, flags, *numbers, index_sha256, manifest_sha256, reserved, own_sha256 = HEADER.unpack(data)
    must(hashlib.sha256(data[:480]).digest() == own_sha256, "digest of the header")
    if version != 2:
        raise UnsupportedError(f"version {version} of the format is not supported")
    if flags & 0xFFFF & ~(BLAKE3_FLAG | COLUMNS_FLAG | STREAM_FLAG):
        raise UnsupportedError(f"flags {flags:#x} are not supported")
    header = Header._make((*numbers, index_sha256, manifest_sha256, flags, f"sha256:{own_sha256.hex()}"))
    must(not any(reserved), "reserved bytes of the header")
    must(header.num_chunks <= 4_194_304 and header.num_files <= 16_777_216, "counts in the header")
    must(4 * KIB <= header.chunk_size <= GIB, "chunk size")
    return header


def read_index(file: File, header: Header) -> list[Chunk]:
    index = file.read(header.index_start, CHUNK.size * header.num_chunks)
    must(hashlib.sha256(index).digest() == header.index_sha256, "digest of the chunk index")
    chunks = [Chunk(*fields) for fields in CHUNK.iter_unpack(index)]
    for number, chunk in enumerate(chunks):
        must(chunk.offset % ALIGNMENT == 0, f"offset of chunk {number}")
        must(1 <= chunk.size_compressed <= chunk.size_original <= header.chunk_size, f"sizes of chunk {number}")
    must(sum(chunk.size_compressed for chunk in chunks) == header.total_size_compressed, "sum of the chunks' sizes")
    must(all(end <= start for end, start in gaps(header, chunks)), "parts of the file overlap")
    for chunk in chunks:
        if chunk.codec not in DECODERS:
            raise UnsupportedError(f"codec {chunk.codec} is not supported")
    return chunks


def gaps(header: Header, chunks: list[Chunk]) -> Iterator[tuple[int, int]]:
    """Yields where each part ends and the next begins, from the index (or the first block) to the manifest."""
    end = ALIGNMENT if header.is_stream else header.index_end
    for start, size in sorted((chunk.offset, chunk.size_compressed) for chunk in chunks):
        yield end, start
        end = start + size
    yield end, header.manifest_offset


# --- Manifest: section 6 ----------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A run of bytes in a chunk."""

    chunk: int
    chunk_offset: int
    length: int
    digest: bytes


class Extent(NamedTuple):
    file_offset: int
    piece: Piece


class Entry(NamedTuple):
    path: bytes
    kind: str
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    extents: tuple[Extent, ...] = ()
    target: bytes = b""


class Snapshot(NamedTuple):
    file: File
    header: Header
    chunks: list[Chunk]
    digests: list[bytes]  # of the chunks
    root: Optional[Entry]  # the packed directory itself
    entries: list[Entry]


MOST_NAMES, MOST_EXTENTS = GIB, 1 << 25  # of a whole manifest: section 6.2, and no more of JSON's fits its bounds


def read_snapshot(path: str, expect: Optional[str] = None) -> Snapshot:
    """Reads the table of contents, and checks every rule of the format that does not need the chunks.

    Raises:
        DamagedError: the file is damaged, no snapshot, or not the one with the id `expect`.
        UnsupportedError: it needs another reader.
    """
    file = File(path)
    header = read_header(file)
    if expect is not None and header.snapshot_id != snapshot_id(expect):
        raise DamagedError(f"this is another snapshot: its id is {header.snapshot_id}")
    chunks = read_index(file, header)
    read = read_columns if header.flags & COLUMNS_FLAG else read_json
    root, digests, entries = read(file, header, chunks)
    check_tree(entries)
    must(len(entries) == header.num_files, "number of entries")
    must(sum(entry.size for entry in entries) == header.total_size_original, "sum of the files' sizes")
    return Snapshot(file, header, chunks, digests, root, entries)


def snapshot_id(text: str) -> str:
    digits = text.lower()
    digits = digits[len("sha256:") :] if digits.startswith("sha256:") else digits
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise UsageError(f"{text!r} is no snapshot id: sha256: and 64 hexadecimal digits")
    return f"sha256:{digits}"


# Section 6.3: what holds for both kinds of manifest.


def check_tree(entries: list[Entry]) -> None:
    """Checks what holds between entries."""
    kinds: dict[bytes, str] = {b"": "dir"}
    before = b""
    for entry in entries:
        must(before < entry.path, "order of paths")
        must(kinds.get(entry.path.rpartition(b"/")[0]) == "dir", "directory of an entry")
        must(entry.kind != "hardlink" or kinds.get(entry.target) == "file", "target of a hard link")
        kinds[entry.path] = entry.kind
        before = entry.path


def checked_path(path: bytes) -> bytes:
    """Returns a path below the target that leads nowhere else."""
    must(len(path) <= 32 * KIB and b"\0" not in path, "path of an entry")
    for component in path.split(b"/"):
        must(component not in (b"", b".", b"..") and len(component) <= 255, "component of a path")
    return path


def checked_target(target: bytes) -> bytes:
    must(1 <= len(target) <= 32 * KIB and b"\0" not in target, "target of a symlink")
    return target


def checked_extent(extent: Extent, end: int, size: int, chunks: list[Chunk]) -> int:
    """Checks an extent that follows another, which ends at `end`, in a file of `size` bytes; returns its own end."""
    piece = extent.piece
    must(piece.length > 0 and end <= extent.file_offset, "order of extents")
    end = extent.file_offset + piece.length
    must(end <= size and 0 <= piece.chunk < len(chunks), "an extent outside its file, or of no chunk")
    room = chunks[piece.chunk].size_original - piece.length
    must(0 <= piece.chunk_offset <= room, "an extent outside its chunk")
    return end


def checked_facts(facts: dict[str, Any]) -> Optional[Entry]:
    """Checks what is said of the whole snapshot; returns the root's mode and time."""
    string(facts.get("method"))
    string(facts.get("tool"))
    integer(facts.get("created_ns"), -(1 << 63), (1 << 63) - 1)
    if "root" not in facts:
        return None
    root = facts["root"]
    must(isinstance(root, dict), "root")
    return Entry(b"", "dir", *metadata(root))


# Section 6.1: JSON.


def read_json(file: File, header: Header, chunks: list[Chunk]) -> tuple[Optional[Entry], list[bytes], list[Entry]]:
    stored = file.read(header.manifest_offset, header.manifest_size)
    must(hashlib.sha256(stored).digest() == header.manifest_sha256, "digest of the manifest")
    lines = manifest_lines(stored, header)
    first = next(lines, b"")
    must(first.endswith(b'"entries":['), "first line of the manifest")
    facts = json_object(first + b"]}")
    root = checked_facts(facts)
    digests = [digest(value) for value in array_of(facts.get("chunks"))]
    must([chunk.checksum for chunk in chunks] == [value[:8] for value in digests], "digests of the chunks")
    entries: list[Entry] = []
    line, extents = next(lines, b""), 0
    while line != b"]}":
        must(len(entries) < header.num_files, "number of entries")
        following = next(lines, b"")
        must(line.endswith(b",") == (following != b"]}"), "comma after an entry")
        entries.append(json_entry(json_object(line[:-1] if line.endswith(b",") else line), header, chunks))
        extents += len(entries[-1].extents)
        must(extents <= MOST_EXTENTS, "number of extents in all")
        line = following
    must(next(lines, None) is None, "end of the manifest")
    return root, digests, entries


def manifest_lines(stored: bytes, header: Header) -> Iterator[bytes]:
    """Yields the lines of a manifest, none of which takes much memory before it is found too long."""
    most = MIB + 80 * header.num_chunks
    pending: list[Buffer] = []
    size = 0
    for block in lz4_blocks(stored, header.most_json):
        *ends, rest = bytes(block).split(b"\n")
        for end in ends:
            must(size + len(end) <= most, "length of a line of the manifest")
            yield b"".join((*pending, end))
            pending, size, most = [], 0, 16 * MIB
        pending.append(rest)
        size += len(rest)
        must(size <= most, "length of a line of the manifest")
    must(size == 0, "last line of the manifest")


def json_entry(record: dict[str, Any], header: Header, chunks: list[Chunk]) -> Entry:
    path = checked_path(name(record, "path"))
    kind = string(record.get("type"))
    must(kind in KINDS, "type of an entry")
    if kind == "hardlink":
        return Entry(path, kind, target=name(record, "target"))
    mode, mtime_ns = metadata(record)
    if kind == "dir":
        return Entry(path, kind, mode, mtime_ns)
    if kind == "symlink":
        return Entry(path, kind, mode, mtime_ns, target=checked_target(name(record, "target")))
    size = integer(record.get("size"), 0, (1 << 63) - 1)
    must(type(record.get("changed", False)) is bool, "changed")
    return Entry(path, kind, mode, mtime_ns, size, json_extents(record, size, header, chunks))


def json_extents(record: dict[str, Any], size: int, header: Header, chunks: list[Chunk]) -> tuple[Extent, ...]:
    places, digests = array_of(record.get("extents")), array_of(record.get(header.digest_name))
    must(len(places) == len(digests) and len(places) <= 100_000, "one digest per extent, 100,000 extents")
    extents = []
    end = 0
    for numbers, text in zip(places, digests):
        must(len(array_of(numbers)) == 4, "fields of an extent")
        at, chunk, chunk_offset, length = (integer(number, 0, (1 << 63) - 1) for number in numbers)
        extent = Extent(at, Piece(chunk, chunk_offset, length, digest(text)))
        end = checked_extent(extent, end, size, chunks)
        extents.append(extent)
    return tuple(extents)


def metadata(record: dict[str, Any]) -> tuple[int, int]:
    """Returns mode and time of an entry, or of the root."""
    if "owner" in record:
        owner = array_of(record["owner"])
        must(len(owner) == 2, "owner")
        for number in owner:
            integer(number, 0, (1 << 32) - 2)
    return integer(record.get("mode"), 0, 0o7777), integer(record.get("mtime_ns"), -(1 << 63), (1 << 63) - 1)


def json_object(text: bytes) -> dict[str, Any]:
    must(text[:1] == b"{" and text[-1:] == b"}", "a JSON object, and nothing around it")
    try:
        value = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=no_json, parse_int=bounded)
    except RecursionError:
        raise DamagedError("damaged: JSON is nested too deeply") from None
    except ValueError:
        raise DamagedError("damaged: what should be JSON is not") from None
    must(isinstance(value, dict), "a JSON object")
    return dict(value)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    must(len(found) == len(pairs), "a key twice in a JSON object")
    return found


def no_json(constant: str) -> NoReturn:
    raise DamagedError(f"damaged: {constant} is not JSON")


def bounded(digits: str) -> Optional[int]:
    """Returns a number; None, which no key may have, for one that is too large for any key and slow to convert."""
    return int(digits) if len(digits) <= 20 else None


def array_of(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise DamagedError("damaged: a JSON array is missing")
    return value


def string(value: object) -> str:
    if not isinstance(value, str):
        raise DamagedError("damaged: a JSON string is missing")
    return value


def integer(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:  # a bool is an int, but not here
        raise DamagedError("damaged: a JSON number is missing or out of bounds")
    return value


def digest(value: object) -> bytes:
    text = string(value)
    must(re.fullmatch("[0-9a-f]{64}", text), "digits of a digest")
    return bytes.fromhex(text)


def name(record: dict[str, Any], key: str) -> bytes:
    """Returns the bytes of `key`, or of its Base64 field if they are not UTF-8."""
    must((key in record) != (f"{key}_b64" in record), f"{key} is missing or doubled")
    try:
        if key in record:
            return string(record[key]).encode()
        encoded = string(record[f"{key}_b64"]).encode()
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise DamagedError(f"damaged: {key} is no text") from None
    must(base64.b64encode(decoded) == encoded, f"{key}_b64 is spelled in another way")
    return decoded


# Section 6.2: columns.

HEAD = struct.Struct("<3I")
PAGE = struct.Struct("<4I32sH")
KINDS = ("file", "dir", "symlink", "hardlink")
COLUMNS = ("prefix", "suffix", "type", "mode", "mtime", "size", "extents",
           "gap", "piece", "chunk", "at", "rest", "digest", "target")  # fmt: skip
OPTIONAL_COLUMNS = ("changed", "uid", "gid")


class PageRecord(NamedTuple):
    frame_size: int
    page_size: int
    num_entries: int
    num_pieces: int
    frame_sha256: bytes
    first_path: bytes


def read_columns(file: File, header: Header, chunks: list[Chunk]) -> tuple[Optional[Entry], list[bytes], list[Entry]]:
    root, digests, records, offset = read_head(file, header, chunks)
    entries: list[Entry] = []
    pieces: list[Piece] = []  # of all pages: a later page may share those of an earlier one
    names = extents = 0
    for record in records:
        frame = file.read(offset, record.frame_size)
        must(hashlib.sha256(frame).digest() == record.frame_sha256, "digest of a page")
        page = PageReader(decode_zstd(frame, record.page_size), record, pieces, chunks)
        entries += page.entries()
        names, extents = names + page.names, extents + page.extents
        must(names <= MOST_NAMES and extents <= MOST_EXTENTS, "bytes of names, or extents in all")
        offset += record.frame_size
    return root, digests, entries


def read_head(
    file: File, header: Header, chunks: list[Chunk]
) -> tuple[Optional[Entry], list[bytes], list[PageRecord], int]:
    """Returns the root, the digests of the chunks, the page records, and where the first page begins."""
    must(header.manifest_size >= HEAD.size, "the head of the manifest is cut short")
    head_size, facts_size, num_pages = HEAD.unpack(file.read(header.manifest_offset, HEAD.size))
    must(HEAD.size <= head_size <= min(header.most_head + 12, header.manifest_size), "size of the manifest's head")
    head = file.read(header.manifest_offset, head_size)
    must(hashlib.sha256(head).digest() == header.manifest_sha256, "digest of the manifest's head")
    at = HEAD.size + facts_size
    must(facts_size <= MIB and at + 32 * header.num_chunks <= head_size, "size of the manifest's facts")
    must(num_pages <= 1 << 20, "number of pages")
    root = checked_facts(json_object(head[HEAD.size : at]))
    digests = [head[start : start + 32] for start in range(at, at + 32 * header.num_chunks, 32)]
    must([chunk.checksum for chunk in chunks] == [value[:8] for value in digests], "digests of the chunks")
    at += 32 * header.num_chunks
    records: list[PageRecord] = []
    raw, count, before, end = 0, 0, b"", header.manifest_offset + head_size
    for _ in range(num_pages):
        must(at + PAGE.size <= head_size, "page records")
        *numbers, frame_sha256, path_size = PAGE.unpack_from(head, at)
        at += PAGE.size
        record = PageRecord._make((*numbers, frame_sha256, head[at : at + path_size]))
        at += path_size
        must(at <= head_size and 1 <= path_size <= 32 * KIB and before < record.first_path, "first path of a page")
        must(record.page_size <= 16 * MIB and record.num_entries >= 1, "size of a page, or its number of entries")
        records.append(record)
        raw, count, before = raw + record.page_size, count + record.num_entries, record.first_path
        end += record.frame_size
    must(at == head_size and raw <= GIB and count == header.num_files, "page records")
    must(end == header.manifest_offset + header.manifest_size, "end of the pages")
    return root, digests, records, header.manifest_offset + head_size


class Column:
    """The values of a column, in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        must(self.at + count <= len(self.data), "a column ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                must(value < 1 << 64 and (byte or shift == 7), "spelling of a number")
                return value
            must(shift < 70, "length of a number")

    def difference(self, before: int) -> int:
        """Returns the 64-bit number that differs from `before` by the column's next value."""
        value = self.number()
        return (before + (-(value + 1) // 2 if value & 1 else value // 2)) % (1 << 64)

    def text(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        must(end >= 0, "a text without an end")
        return self.take(end + 1 - self.at)[:-1]


class PageReader:
    """Reads the entries of a page; appends the page's pieces to those of the pages before."""

    def __init__(self, page: Buffer, record: PageRecord, pieces: list[Piece], chunks: list[Chunk]) -> None:
        self._record, self._pieces, self._first_piece, self._chunks = record, pieces, len(pieces), chunks
        self._columns = split_columns(bytes(page))
        self._path, self._mtime = b"", 0
        self.names = 0  # bytes that paths and targets take, each with a NUL
        self.extents = 0

    def entries(self) -> list[Entry]:
        entries = []
        for _ in range(self._record.num_entries):
            entries.append(self._entry())
            must(self.names <= MOST_NAMES and self.extents <= MOST_EXTENTS, "bytes of names, or extents in all")
        must(all(column.at == len(column.data) for column in self._columns.values()), "a column is not used up")
        must(len(self._pieces) - self._first_piece == self._record.num_pieces, "number of new pieces")
        must(entries[0].path == self._record.first_path, "first path of a page")
        return entries

    def _entry(self) -> Entry:
        columns = self._columns
        shared, suffix = columns["prefix"].number(), columns["suffix"].text()
        must(shared <= len(self._path), "prefix of a path")
        must(not suffix or suffix[:1] != self._path[shared : shared + 1], "a prefix is not all that is equal")
        path = self._path = checked_path(self._path[:shared] + suffix)
        self.names += len(path) + 1
        number = columns["type"].byte()
        must(number < len(KINDS), "type of an entry")
        kind = KINDS[number]
        mode = 0
        if kind != "hardlink":
            mode = columns["mode"].number()
            must(mode <= 0o7777, "mode")
            self._mtime = columns["mtime"].difference(self._mtime)
            self._skip_owner()
        mtime_ns = self._mtime - (1 << 64) if self._mtime >> 63 else self._mtime
        if kind in ("symlink", "hardlink"):
            target = columns["target"].text()
            self.names += len(target) + 1
            return Entry(path, kind, mode, mtime_ns, target=target if kind == "hardlink" else checked_target(target))
        if kind == "dir":
            return Entry(path, kind, mode, mtime_ns)
        must("changed" not in columns or columns["changed"].byte() < 2, "changed")
        size = columns["size"].number()
        must(size < 1 << 63, "size of a file")
        return Entry(path, kind, mode, mtime_ns, size, self._extents(size))

    def _skip_owner(self) -> None:
        if "uid" in self._columns:
            uid, gid = self._columns["uid"].number(), self._columns["gid"].number()
            must(max(uid, gid) < 1 << 32 and (uid == 0) == (gid == 0), "owner")

    def _extents(self, size: int) -> tuple[Extent, ...]:
        count = self._columns["extents"].number()
        must(count <= 100_000, "number of extents")
        self.extents += count
        extents = []
        end = 0
        for _ in range(count):
            offset = end + self._columns["gap"].number()
            must(offset < size, "gap before an extent")
            extent = Extent(offset, self._piece(size - offset))
            end = checked_extent(extent, end, size, self._chunks)
            extents.append(extent)
        return tuple(extents)

    def _piece(self, left: int) -> Piece:
        """Returns the piece of an extent that begins `left` bytes before the end of its file."""
        back = self._columns["piece"].number()
        if back:
            must(back <= len(self._pieces), "number of a piece")
            return self._pieces[-back]
        before = self._pieces[-1] if len(self._pieces) > self._first_piece else Piece(0, 0, 0, b"")
        chunk = self._columns["chunk"].difference(before.chunk)
        end = before.chunk_offset + before.length if chunk == before.chunk else 0
        at, rest = self._columns["at"].difference(end), self._columns["rest"].number()
        piece = Piece(chunk, at, left - rest, self._columns["digest"].take(32))
        self._pieces.append(piece)
        return piece


def split_columns(page: bytes) -> dict[str, Column]:
    """Returns the columns of a page that section 6.2 knows."""
    table = Column(page)
    rows = []
    for _ in range(int.from_bytes(table.take(2), "little")):
        column = table.take(table.byte())
        rows.append((column, int.from_bytes(table.take(4), "little")))
    must(len(rows) <= 64 and len(dict(rows)) == len(rows), "names of columns")
    found = {column: Column(table.take(size)) for column, size in rows}
    must(table.at == len(page), "sizes of columns")
    must(all(column.encode() in found for column in COLUMNS), "a column is missing")
    must((b"uid" in found) == (b"gid" in found), "uid without gid")
    return {key: found[key.encode()] for key in (*COLUMNS, *OPTIONAL_COLUMNS) if key.encode() in found}


# --- Content: sections 4 and 6.3 --------------------------------------------------------------------------------------


class Use(NamedTuple):
    """A place in a file that an extent fills."""

    entry: int
    file_offset: int
    piece: Piece


def uses_of_chunks(snapshot: Snapshot) -> list[list[Use]]:
    """Returns for each chunk the places that it fills."""
    uses: list[list[Use]] = [[] for _ in snapshot.chunks]
    for number, entry in enumerate(snapshot.entries):
        for extent in entry.extents:
            uses[extent.piece.chunk].append(Use(number, extent.file_offset, extent.piece))
    return uses


def read_chunk(snapshot: Snapshot, number: int, uses: list[Use]) -> memoryview:
    """Returns the raw bytes of a chunk: checks the encoded bytes, decodes them, then checks the content of files."""
    chunk, header = snapshot.chunks[number], snapshot.header
    stored = snapshot.file.read(chunk.offset, chunk.size_compressed)
    must(header.digests([stored])[0] == snapshot.digests[number], "digest of its encoded bytes")
    raw = memoryview(DECODERS[chunk.codec](memoryview(stored), chunk.size_original))
    must(len(raw) == chunk.size_original, "number of raw bytes")
    owners: dict[Piece, int] = {}
    for use in uses:  # equal files share a piece
        owners.setdefault(use.piece, use.entry)
    places = [raw[piece.chunk_offset : piece.chunk_offset + piece.length] for piece in owners]
    for piece, found in zip(owners, header.digests(places)):
        if piece.digest != found:
            path = printable(snapshot.entries[owners[piece]].path)
            raise DamagedError(f"{path}: its content does not match its digest")
    return raw


def check_padding(snapshot: Snapshot) -> None:
    """Checks that zeros stand between the parts of the file: no digest covers them."""
    header, size = snapshot.header, snapshot.file.size
    between = list(gaps(header, snapshot.chunks))
    if header.is_stream:
        between += [(HEADER.size + NONCE, ALIGNMENT), (header.index_end, size - ALIGNMENT)]
        between.append((size - ALIGNMENT + HEADER.size + NONCE, size))
    for end, start in between:
        for at in range(end, start, MIB):
            must(not any(snapshot.file.read(at, min(MIB, start - at))), f"the padding before byte {start} is not zero")


# --- Restore: section 7 -----------------------------------------------------------------------------------------------

SAFELY = getattr(os, "O_NOFOLLOW", 0)
READ_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | SAFELY
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY
OPEN_FOLDERS = 100  # kept open; a common limit for a process is 256
PERMISSIONS = 0o777  # neither setuid nor setgid nor sticky bits
UNFINISHED = b".dumont-reader-unfinished"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# A file system refuses an entry that it cannot hold: a problem of that entry. Anything else ends the restore.
REFUSALS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.ENOSYS,
            errno.EFBIG, errno.EMLINK, errno.EXDEV, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # fmt: skip
NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Folders:
    """Opens folders below a root, each from its parent and never through a symlink: whatever another program puts
    there meanwhile, nothing leads out of the root.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[bytes, int] = {}  # recently used last

    def at(self, path: bytes) -> int:
        """Returns the descriptor of a folder, valid until the next call."""
        known = path
        while known and known not in self._open:
            known = known.rpartition(b"/")[0]
        descriptor = self._root
        if known:
            descriptor = self._open[known] = self._open.pop(known)
        for component in path[len(known) :].split(b"/"):
            if component:
                descriptor = os.open(component, READ_FOLDER, dir_fd=descriptor)
                known = known + b"/" + component if known else component
                self._open[known] = descriptor
                if len(self._open) > OPEN_FOLDERS:
                    os.close(self._open.pop(next(iter(self._open))))
        return descriptor

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


class Restore:
    """Fills a new or empty folder.

    A file is written in a folder of its own, `.dumont-reader-unfinished`, and gets its name and place when its last
    byte is there and checked. While that folder stands in the target, the tree is not complete.
    """

    def __init__(self, snapshot: Snapshot, target: str) -> None:
        self._snapshot, self._entries = snapshot, snapshot.entries
        self._missing: dict[int, int] = {}  # number of an entry -> extents that are still to come
        self._refused: set[bytes] = set()  # paths that will not be in the target
        self.problems: list[str] = []  # of entries that are not in the target, or not as they were
        self.lost: list[str] = []  # files of damaged chunks
        self._root = open_target(target)
        self._folders = Folders(self._root)
        self._work_name = UNFINISHED
        while any(entry.path == self._work_name for entry in snapshot.entries):
            self._work_name += b"-"
        os.mkdir(self._work_name, 0o700, dir_fd=self._root)
        self._work = os.open(self._work_name, READ_FOLDER, dir_fd=self._root)

    def make_folders(self) -> None:
        for number, _ in self._all("dir"):
            self._attempt(number, lambda folder, last: os.mkdir(last, 0o700, dir_fd=folder))

    def make_files_without_bytes(self) -> None:
        for number, entry in self._all("file"):
            if not entry.extents:
                self._begin(number)
                self._finish_file(number)

    def write(self, uses: list[Use], raw: memoryview) -> None:
        """Writes the places in files that a chunk fills."""
        for use in uses:
            if use.entry not in self._missing:
                self._begin(use.entry)
            self._write(use, raw[use.piece.chunk_offset : use.piece.chunk_offset + use.piece.length])
            self._missing[use.entry] -= 1
            if not self._missing[use.entry]:
                self._finish_file(use.entry)

    def lose(self, uses: list[Use]) -> None:
        """Gives up the files of a damaged chunk."""
        for number in sorted({use.entry for use in uses}):
            if self._entries[number].path not in self._refused:
                self._give_up(number)
                self.lost.append(printable(self._entries[number].path))

    def finish(self, sync: bool) -> None:
        """Makes links, after everything that they could lead to; then sets the modes and times of folders."""
        for number, _ in self._all("hardlink"):
            self._attempt(number, functools.partial(self._link, number))
        for number, _ in self._all("symlink"):
            self._attempt(number, functools.partial(self._symlink, number))
        for number, entry in reversed(list(self._all("dir"))):  # a folder after its content: it may be read-only
            self._attempt(number, lambda *_, entry=entry: self._set_metadata(self._folders.at(entry.path), entry))
        os.close(self._work)
        if sync:
            os.sync()  # before the mark of an unfinished restore goes
        os.rmdir(self._work_name, dir_fd=self._root)
        if self._snapshot.root is not None:
            self._set_metadata(self._root, self._snapshot.root)
        self._folders.close()
        os.close(self._root)

    @property
    def present(self) -> int:
        """Number of entries that are in the target."""
        return len(self._entries) - len(self._refused)

    def _all(self, kind: str) -> Iterator[tuple[int, Entry]]:
        return ((number, entry) for number, entry in enumerate(self._entries) if entry.kind == kind)

    def _attempt(self, number: int, act: Callable[[int, bytes], object]) -> None:
        """Calls `act` with the folder of an entry and its last component; a refusal is a problem of that entry."""
        entry = self._entries[number]
        folder, _, last = entry.path.rpartition(b"/")
        if entry.path in self._refused:
            return
        try:
            if folder in self._refused:
                raise OSError(errno.EINVAL, "its folder could not be restored")
            act(self._folders.at(folder), last)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            self._give_up(number)
            self.problems.append(f"{printable(entry.path)}: {error.strerror}")

    def _give_up(self, number: int) -> None:
        self._refused.add(self._entries[number].path)
        if number in self._missing:
            with contextlib.suppress(FileNotFoundError):  # it was not even begun
                os.unlink(str(number), dir_fd=self._work)

    # A file that is not complete has the entry's number as its name, in the folder of unfinished files.

    def _begin(self, number: int) -> None:
        self._missing[number] = len(self._entries[number].extents)

        def create(*_: object) -> None:
            descriptor = os.open(str(number), CREATE, 0o600, dir_fd=self._work)
            with closing(descriptor):
                os.ftruncate(descriptor, self._entries[number].size)  # what no extent covers is zero

        self._attempt(number, create)

    def _write(self, use: Use, data: memoryview) -> None:
        def write(*_: object) -> None:
            with closing(os.open(str(use.entry), os.O_WRONLY | SAFELY, dir_fd=self._work)) as descriptor:
                done = 0
                while done < len(data):
                    done += os.pwrite(descriptor, data[done:], use.file_offset + done)

        self._attempt(use.entry, write)

    def _finish_file(self, number: int) -> None:
        def finish(folder: int, last: bytes) -> None:
            with closing(os.open(str(number), os.O_RDONLY | SAFELY, dir_fd=self._work)) as descriptor:
                self._set_metadata(descriptor, self._entries[number])
            self._move(str(number), folder, last)

        self._attempt(number, finish)

    def _move(self, name: str, folder: int, last: bytes) -> None:
        """Gives a complete file its name. Where "a" and "A" are one name, it does not replace another file."""
        try:
            os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, last, src_dir_fd=self._work, dst_dir_fd=folder)
        else:
            raise FileExistsError(errno.EEXIST, "the name of another entry, for this file system")

    def _link(self, number: int, folder: int, last: bytes) -> None:
        """Makes a hard link to a file of this restore, or a copy where the file system has no hard links."""
        target = self._entries[number].target
        if target in self._refused:
            raise OSError(errno.EINVAL, "the file that it is a hard link of could not be restored")
        source, _, name = target.rpartition(b"/")
        with closing(os.dup(folder)) as own, closing(os.dup(self._folders.at(source))) as other:
            try:
                os.link(name, last, src_dir_fd=other, dst_dir_fd=own, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                self._copy(other, name)
                self._move("copy", own, last)

    def _copy(self, folder: int, name: bytes) -> None:
        with contextlib.ExitStack() as files:
            old = files.enter_context(closing(os.open(name, os.O_RDONLY | SAFELY | NONBLOCK, dir_fd=folder)))
            new = files.enter_context(closing(os.open("copy", CREATE, 0o600, dir_fd=self._work)))
            while data := memoryview(os.read(old, MIB)):
                while data:
                    data = data[os.write(new, data) :]
            status = os.fstat(old)
            os.utime(new, ns=(status.st_mtime_ns, status.st_mtime_ns))
            os.fchmod(new, stat.S_IMODE(status.st_mode))

    def _symlink(self, number: int, folder: int, last: bytes) -> None:
        entry = self._entries[number]
        os.symlink(entry.target, last, dir_fd=folder)
        times = entry.mtime_ns, entry.mtime_ns
        if os.utime in os.supports_dir_fd & os.supports_follow_symlinks:
            self._note(entry, "time", lambda: os.utime(last, ns=times, dir_fd=folder, follow_symlinks=False))

    def _set_metadata(self, descriptor: int, entry: Entry) -> None:
        self._note(entry, "time", lambda: os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns)))
        self._note(entry, "mode", lambda: os.fchmod(descriptor, entry.mode & PERMISSIONS))

    def _note(self, entry: Entry, trait: str, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            self.problems.append(f"{printable(entry.path or b'.')}: its {trait} cannot be set: {error.strerror}")


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_target(path: str) -> int:
    """Makes the folder that a restore fills, or takes one that is empty (or has a volume's own lost+found)."""
    here = os.supports_dir_fd
    if (
        not {os.open, os.mkdir, os.rename, os.symlink, os.link, os.stat} <= here
        or os.link not in os.supports_follow_symlinks
    ):
        raise ReaderError("restore needs Linux, macOS or another Unix; ls and verify work here")
    try:
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{printable(os.fsencode(path))}: exists and is not a directory") from None
    with os.scandir(descriptor) as listing:
        if not all(item.name == "lost+found" and item.is_dir(follow_symlinks=False) for item in listing):
            os.close(descriptor)
            raise UsageError(f"{printable(os.fsencode(path))}: is not empty; choose a new or empty directory")
    return descriptor


# --- Commands ---------------------------------------------------------------------------------------------------------

LETTERS = {"file": "-", "dir": "d", "symlink": "l", "hardlink": "h"}
MOST_BYTES = 1 << 44  # 16 TiB: no workspace, but what a hostile sparse file declares
EPOCH = datetime.datetime(1970, 1, 1)


def list_entries(snapshot: Snapshot, long: bool) -> None:
    for entry in snapshot.entries:
        if not long:
            print(printable(entry.path))
            continue
        size = str(entry.size) if entry.kind == "file" else ""
        time = (
            ""
            if entry.kind == "hardlink"
            else f"{EPOCH + datetime.timedelta(microseconds=entry.mtime_ns // 1000):%Y-%m-%d %H:%M:%S} UTC"
        )
        arrow = f" -> {printable(entry.target)}" if entry.target else ""
        print(f"{LETTERS[entry.kind]}{entry.mode:04o} {size:>14} {time:23} {printable(entry.path)}{arrow}")


def verify(snapshot: Snapshot) -> None:
    """Checks every byte of the file, and every file's content."""
    uses = uses_of_chunks(snapshot)
    damaged = []
    for number in progress(snapshot, range(len(snapshot.chunks))):
        try:
            read_chunk(snapshot, number, uses[number])
        except DamagedError as error:
            damaged.append(f"chunk {number}: {error}")
    check_padding(snapshot)
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise DamagedError(f"{len(damaged)} of {len(snapshot.chunks)} chunks damaged: {damaged[0]}{more}")
    size = snapshot.header.total_size_original
    print(f"sound: {snapshot.header.snapshot_id}, {len(snapshot.entries)} entries, {size} bytes in files")


def restore(snapshot: Snapshot, target: str, most: int, keep_going: bool, sync: bool) -> int:
    """Restores the tree; returns the exit code."""
    size = snapshot.header.total_size_original
    if size > most:
        raise ReaderError(f"its files have {size} bytes, more than --max-size {most}")
    uses = uses_of_chunks(snapshot)
    job = Restore(snapshot, target)
    try:
        job.make_folders()
        job.make_files_without_bytes()
        for number in progress(snapshot, [number for number, some in enumerate(uses) if some]):
            try:
                raw = read_chunk(snapshot, number, uses[number])
            except DamagedError as error:
                if not keep_going:
                    raise DamagedError(
                        f"chunk {number}: {error}; --keep-going restores the files without damage"
                    ) from None
                job.lose(uses[number])
                continue
            job.write(uses[number], raw)
        job.finish(sync)
    except ReaderError as error:
        raise type(error)(f"{error}; the tree in {printable(os.fsencode(target))} is not complete") from None
    except OSError as error:
        failure = NoSpaceError if error.errno in NO_ROOM else ReaderError
        raise failure(f"{printable(os.fsencode(target))}: {error.strerror}; the tree is not complete") from None
    for problem in job.problems:
        say(problem)
    for path in job.lost:
        say(f"{path}: lost, its chunk is damaged")
    print(f"restored {job.present} of {len(snapshot.entries)} entries")
    return DamagedError.exit_code if job.lost else 3 if job.problems else 0


def progress(snapshot: Snapshot, numbers: Sequence[int]) -> Iterator[int]:
    """Yields numbers of chunks; on a terminal, says how far it is."""
    total, done = sum(snapshot.chunks[number].size_original for number in numbers), 0
    shown = sys.stderr.isatty()
    for number in numbers:
        if shown:
            print(f"\r{done / MIB:.0f} of {total / MIB:.0f} MiB", end="", file=sys.stderr, flush=True)
        yield number
        done += snapshot.chunks[number].size_original
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def say(message: str) -> None:
    line = "".join(char if char.isprintable() else escaped(char) for char in message)
    print(f"{PROGRAM}: {line}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; -h shows the usage")


def parser() -> Parser:
    whole = Parser(prog=PROGRAM, description=(__doc__ or "").split("\n\n")[0])
    commands = whole.add_subparsers(dest="command", metavar="ls|verify|restore", required=True)
    every = Parser(add_help=False)
    every.add_argument("snapshot", metavar="SNAP", help="the snapshot, a file")
    every.add_argument("--expect", metavar="ID", help="refuse any snapshot but the one with this id")
    every.add_argument("--pure", action="store_true", help="use nothing but Python's standard library")
    listing = commands.add_parser("ls", parents=[every], help="list the entries")
    listing.add_argument("-l", dest="long", action="store_true", help="with modes, sizes and times")
    commands.add_parser("verify", parents=[every], help="check every byte and every file's content")
    restoring = commands.add_parser("restore", parents=[every], help="restore the tree into a new or empty folder")
    restoring.add_argument("target", metavar="TARGET", help="the folder")
    restoring.add_argument(
        "--keep-going", action="store_true", help="restore the files that are not damaged; exit code 4"
    )
    restoring.add_argument("--max-size", type=int, default=MOST_BYTES, metavar="BYTES", help="refuse to restore more")
    restoring.add_argument("--no-sync", action="store_true", help="do not wait until everything is on disk")
    return whole


def run(arguments: Optional[Sequence[str]]) -> int:
    options = parser().parse_args(arguments)
    if not options.pure:
        faster.find()
    place = printable(os.fsencode(options.snapshot))
    try:
        snapshot = read_snapshot(options.snapshot, options.expect)
        if options.command == "ls":
            list_entries(snapshot, options.long)
        elif options.command == "verify":
            verify(snapshot)
        else:
            return restore(snapshot, options.target, options.max_size, options.keep_going, not options.no_sync)
    except (DamagedError, UnsupportedError, NotFoundError) as error:
        raise type(error)(f"{place}: {error}") from None
    return 0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a command line; returns the exit code. An error is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not fit the terminal's encoding
    try:
        code = run(arguments)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the list has seen enough
        code = 0
    except ReaderError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except MemoryError:
        say("not enough memory")
        return 1
    except OSError as error:
        name = f"{printable(os.fsencode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
        say(f"{name}{error.strerror or error}")
        code = NoSpaceError.exit_code if error.errno in NO_ROOM else 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what could not be written to stdout is not tried again
    return code


if __name__ == "__main__":
    sys.exit(main())
