"""How a backend checks the chunks of a snapshot."""

from __future__ import annotations

from dumont_gpu.backends import DigestCheck
from dumont_gpu.snapshot.reader import Snapshot


def chunk_check(snapshot: Snapshot, number: int, encoded: memoryview) -> DigestCheck:
    """Returns how the encoded bytes of chunk `number` are checked. They may be fetched again, into `encoded`."""
    blake3 = snapshot.manifest.chunk_digests[number] if snapshot.header.digest == "blake3" else None
    return DigestCheck(blake3, lambda: snapshot.check_chunk(number, encoded))
