"""The reader for any machine, as text: `dumont_reader.py` is one file of Python that needs nothing of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

NAME: Final = "dumont_reader.py"


def reader_source() -> bytes:
    """Returns the reader's file."""
    return Path(__file__).with_name(NAME).read_bytes()
