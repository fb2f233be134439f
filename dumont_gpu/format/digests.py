"""The digests that may cover a snapshot's content: BLAKE3 by default, SHA-256 on request.

Measured on a core that encodes bf16 weights at 3 GB/s, SHA-256 runs at 1.8 GB/s with the CPU's SHA instructions and
BLAKE3 at 4.3: with SHA-256, hashing was the largest single cost of a pack. SHA-256 always covers the table of contents,
so that a snapshot id never depends on this choice.

There are two implementations of BLAKE3. The package, which this module uses, is the fastest for one large input. The
library of CPU kernels (`native.digest_many`) hashes many small pieces in one call, where the package's calls from
Python would cost more than the digests: kernels/README.md has the figures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from dumont_gpu.errors import UsageError

Digest = Callable[["bytes | memoryview"], bytes]

DIGEST_SIZE: Final = 32
DEFAULT_DIGEST: Final = "blake3"
DIGESTS: Final = ("blake3", "sha256")


def digest_function(name: str) -> Digest:
    """Returns the function that maps bytes to their 32-byte digest.

    Raises:
        UsageError: there is no such digest.
    """
    if name == "sha256":
        return _sha256
    if name == "blake3":
        from blake3 import blake3

        return lambda data: blake3(data).digest()
    raise UsageError(f"unknown digest {name!r}; there are {', '.join(DIGESTS)}")


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
