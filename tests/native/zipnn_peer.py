"""The real `zipnn` package in a process of its own: damaged streams and odd sizes crash it."""

from __future__ import annotations

import multiprocessing
import struct
from dataclasses import dataclass
from multiprocessing.connection import Connection

HEADER_SIZE = 32


@dataclass(frozen=True, slots=True)
class ElementType:
    name: str
    dtype: int  # byte 15 of the header
    planes: int
    bit_reorder: int
    byte_reorder: int


ELEMENT_TYPES = (
    ElementType("fp32", 1, 4, 1, 220),
    ElementType("fp16", 4, 2, 0, 10),
    ElementType("bf16", 6, 2, 1, 10),
    ElementType("fp8_e4m3", 29, 1, 1, 10),
    ElementType("fp8_e5m2", 30, 1, 1, 10),
)


def header_of(kind: ElementType, original_size: int, block_log2: int) -> bytearray:
    fields = bytearray(HEADER_SIZE)
    fields[:9] = bytes((ord("Z"), ord("N"), 0, 5, 4, kind.byte_reorder, kind.bit_reorder, 0, 1))
    fields[14] = block_log2
    fields[15] = kind.dtype
    fields[16:24] = struct.pack("<Q", original_size)
    return fields


def _block_size(kind: ElementType, block_log2: int) -> int:
    return min(1 << block_log2, 1 << 17) if kind.planes == 1 else 1 << block_log2


def _serve(pipe: Connection) -> None:
    import zipnn_core

    while True:
        task, kind, block_log2, data = pipe.recv()
        block_size = _block_size(kind, block_log2)
        if task == "encode":
            private = bytes(bytearray(data))  # zipnn overwrites its input
            header = header_of(kind, len(data), block_log2)
            pipe.send(
                bytes(
                    zipnn_core.zipnn_core(
                        header, private, kind.planes, kind.bit_reorder, kind.byte_reorder, 0, block_size, 0.95, 10, 1
                    )
                )
            )
        else:
            (original_size,) = struct.unpack_from("<Q", data, 16)
            pipe.send(
                bytes(
                    zipnn_core.combine_dtype(
                        data[HEADER_SIZE:],
                        kind.planes,
                        kind.bit_reorder,
                        kind.byte_reorder,
                        block_size,
                        original_size,
                        1,
                    )
                )
            )


class ZipnnPeer:
    """Encodes and decodes with `zipnn`; a crash there is an EOFError here, and the next call starts afresh."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def encode(self, kind: ElementType, data: bytes, block_log2: int) -> bytes:
        return self._ask("encode", kind, block_log2, data)

    def decode(self, kind: ElementType, stream: bytes) -> bytes:
        return self._ask("decode", kind, stream[14], stream)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _ask(self, task: str, kind: ElementType, block_log2: int, data: bytes) -> bytes:
        if self._process is None:
            context = multiprocessing.get_context("fork")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((task, kind, block_log2, data))
            reply: bytes = self._pipe.recv()
            return reply
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.close()
            raise EOFError("zipnn crashed") from None
