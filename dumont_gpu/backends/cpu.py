"""The codecs on this machine's processor."""

from __future__ import annotations

from collections.abc import Callable

from dumont_gpu.backends.base import DigestCheck, nobody_joins
from dumont_gpu.codecs import Codec, codec_by_id


class CpuBackend:
    name = "cpu"
    extra_threads = 0

    def prepare(
        self,
        chunk_size: int,
        *,
        encode: bool = False,
        decode: bool = False,
        on_join: Callable[[int], None] = nobody_joins,
    ) -> None:
        pass

    def expect(self, size: int) -> None:
        pass

    def pin(self, memory: memoryview) -> None:
        pass

    def close(self) -> None:
        pass

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview, digest: bytearray | None = None) -> int:
        if digest is not None:
            digest.clear()
        return codec.encode(chunk, out)

    def decode(
        self, compressor_id: int, encoded: memoryview, out: memoryview, check: DigestCheck | None = None
    ) -> None:
        if check is not None:
            check.on_cpu()
        codec_by_id(compressor_id).decode(encoded, out)
