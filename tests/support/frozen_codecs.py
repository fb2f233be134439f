"""The codecs of the format, by their id on disk. Ids and names are frozen: a new codec adds a row, and no row changes."""

from __future__ import annotations

from typing import Final

FROZEN_CODECS: Final = {
    0: "none",
    1: "lz4",
    2: "lz4_hc",
    3: "zipnn",
    4: "zstd",
}
FIRST_UNKNOWN: Final = max(FROZEN_CODECS) + 1
