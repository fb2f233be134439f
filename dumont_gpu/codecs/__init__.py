"""How bytes are encoded: one module per codec, and the registry of codecs by their id on disk."""

from __future__ import annotations

from typing import Final

from dumont_gpu.codecs.base import Codec
from dumont_gpu.codecs.lz4 import LZ4, LZ4_HC, Lz4
from dumont_gpu.codecs.raw import Raw
from dumont_gpu.codecs.zipnn import ZipNN
from dumont_gpu.codecs.zstd import ZSTD, Zstd
from dumont_gpu.errors import UnsupportedError

CODECS: Final[tuple[Codec, ...]] = (
    Raw(),
    LZ4,
    LZ4_HC,
    ZipNN(),
    ZSTD,
)
_BY_ID: Final = {codec.id: codec for codec in CODECS}


def codec_by_id(compressor_id: int) -> Codec:
    """Returns the codec that decodes chunks of this compressor_id.

    Raises:
        UnsupportedError: no codec of this version has the id.
    """
    codec = _BY_ID.get(compressor_id)
    if codec is None:
        raise UnsupportedError(
            f"made by a newer version: the snapshot uses codec {compressor_id}, which this version lacks"
        )
    return codec


__all__ = ["CODECS", "LZ4", "LZ4_HC", "ZSTD", "Codec", "Lz4", "Raw", "ZipNN", "Zstd", "codec_by_id"]
