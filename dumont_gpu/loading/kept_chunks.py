"""The decoded chunks that a loader keeps for its next call."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from dumont_gpu.buffers import Buffer
from dumont_gpu.format.entries import Extent


@dataclass(slots=True)
class DecodedChunk:
    """A decoded chunk in memory of a loader."""

    buffer: Buffer
    content: memoryview
    checked: set[Extent] = field(default_factory=set)  # extents whose content was compared with their digests


class KeptChunks:
    """The last `most` chunks of which only a part was wanted."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chunks: OrderedDict[int, DecodedChunk] = OrderedDict()  # the last one last
        self._lock = threading.Lock()

    def take(self, number: int) -> DecodedChunk | None:
        """Returns a chunk, which is the caller's until `keep`; None if it is not kept."""
        with self._lock:
            return self._chunks.pop(number, None)

    def keep(self, number: int, chunk: DecodedChunk) -> None:
        """Keeps a chunk; gives back the buffer of the one that was used longest ago, if there are too many."""
        with self._lock:
            spare = self._chunks.pop(number, None)  # two reads may have decoded the same chunk
            self._chunks[number] = chunk
            if len(self._chunks) > self._most:
                _, spare = self._chunks.popitem(last=False)
        if spare is not None:
            spare.buffer.release()

    def give_back(self) -> None:
        """Keeps none any more."""
        with self._lock:
            chunks = list(self._chunks.values())
            self._chunks.clear()
        for chunk in chunks:
            chunk.buffer.release()
