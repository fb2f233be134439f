"""The codecs on this machine's processor."""

from __future__ import annotations

from dumont_gpu.codecs import Codec, codec_by_id


class CpuBackend:
    name = "cpu"

    def encode(self, codec: Codec, chunk: memoryview, out: memoryview) -> int:
        return codec.encode(chunk, out)

    def decode(self, compressor_id: int, stored: memoryview, out: memoryview) -> None:
        codec_by_id(compressor_id).decode(stored, out)
