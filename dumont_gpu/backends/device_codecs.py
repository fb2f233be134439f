"""Which codecs devices run, and how. Names no module of the device's: a job on the CPU loads none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dumont_gpu.codecs import LZ4, LZ4_HC, ZipNN
from dumont_gpu.sizes import KiB

if TYPE_CHECKING:
    from dumont_gpu.backends.decode_slot import DecodeSlot
    from dumont_gpu.backends.device import DeviceRegion
    from dumont_gpu.backends.encode_slot import EncodeSlot

WORTH_THE_TRIP: Final = 256 * KiB  # for smaller chunks, launches and copies take longer than the CPU


class DeviceCodec(NamedTuple):
    """How a device works on the chunks of one codec.

    Args:
        decode: calls a method of a slot: encoded chunk, which is loaded, place of the raw chunk -> True, False or None
            as `DecodeSlot.decode_zipnn`.
        encode: calls a method of a slot: codec, raw chunk, room for the encoded chunk, digest -> size, as
            `EncodeSlot.encode_zipnn`. None: the CPU encodes.
        needs_lz4: whether the device must have nvCOMP's LZ4.
    """

    decode: Callable[[DecodeSlot, memoryview, memoryview | DeviceRegion], bool | None]
    encode: Callable[[EncodeSlot, Any, memoryview, memoryview, bytearray | None], int] | None
    needs_lz4: bool


# The codecs that a device runs, by id; the CPU runs all others.
DEVICE_CODECS: Final = {
    ZipNN().id: DeviceCodec(
        lambda slot, *chunk: slot.decode_zipnn(*chunk), lambda slot, *chunk: slot.encode_zipnn(*chunk), needs_lz4=False
    ),
    LZ4.id: DeviceCodec(
        lambda slot, *chunk: slot.decode_lz4(*chunk), lambda slot, *chunk: slot.encode_lz4(*chunk), needs_lz4=True
    ),
    # nvCOMP compresses fast, not hard.
    LZ4_HC.id: DeviceCodec(lambda slot, *chunk: slot.decode_lz4(*chunk), None, needs_lz4=True),
}


def fit_for_devices(compressor_id: int, size: int, *, encode: bool = False) -> bool:
    """Whether devices, if they have all that this program uses of them, work on chunks of this codec and raw size."""
    on_device = DEVICE_CODECS.get(compressor_id)
    return on_device is not None and size >= WORTH_THE_TRIP and (on_device.encode is not None or not encode)
