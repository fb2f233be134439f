"""Sizes and counts in people's notation, and text that is safe to print."""

from __future__ import annotations

import re
from typing import Final

from dumont_gpu.errors import UsageError

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30
PAGE: Final = 4 * KiB

LOCAL: Final = 0  # in place of a link's rate: a snapshot that crosses no link

_UNITS: Final = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("", 1024), ("IB", 1024), ("B", 1000))
}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s|m|min|h|d|)\s*", re.ASCII | re.IGNORECASE)
_RATE: Final = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]?)bit(?:/s)?\s*", re.ASCII | re.IGNORECASE)
_BITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TOO_LARGE: Final = 1 << 63
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def align_up(offset: int, alignment: int = PAGE) -> int:
    """Returns the first multiple of `alignment` at or after `offset`."""
    return -(-offset // alignment) * alignment


def parse_size(text: str) -> int:
    """Returns the number of bytes in `64MiB`, `1.5GiB`, `100MB` or `4096`; a bare K, M, G or T is a binary unit.

    Raises:
        UsageError: `text` is no size, or a size of 8 EiB or more.
    """
    match = _SIZE.fullmatch(text)
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is no size; write it as 64MiB, 1.5GiB, 100MB or 4096")
    size = float(match[1]) * factor
    if size >= _TOO_LARGE:
        raise UsageError(f"{text[:20]!r} is more than 8 EiB")
    return int(size)


def parse_duration(text: str) -> float:
    """Returns the number of seconds in `90`, `90s`, `5m`, `1h` or `1d`.

    Raises:
        UsageError: `text` is no duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no time; write it as 90, 90s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2].lower()]


def parse_rate(text: str) -> int:
    """Returns the bytes per second of `1Gbit`, `100Mbit/s`, `125MB` or `125MB/s`; LOCAL for `local`.

    Raises:
        UsageError: `text` is no rate, or less than a byte per second.
    """
    if text.strip().lower() == "local":
        return LOCAL
    match = _RATE.fullmatch(text)
    size = text.removesuffix("/s")
    try:
        rate = float(match[1]) * _BITS[match[2].lower()] / 8 if match else parse_size(size)
    except UsageError:
        rate = 0
    if not 1 <= rate < _TOO_LARGE or size.rstrip().endswith("b"):  # 1Gb: a bit, or a byte?
        raise UsageError(f"{text[:20]!r} is no rate of a link; write it as 1Gbit, 100Mbit/s, 125MB or local")
    return int(rate)


def write_rate(rate: int) -> str:
    """Returns `rate`, in bytes per second, as `parse_rate` takes it: `1Gbit`, `local`."""
    for unit in "TGMk":
        if rate and rate * 8 % _BITS[unit.lower()] == 0:
            return f"{rate * 8 // _BITS[unit.lower()]}{unit}bit"
    return write_size(rate) if rate else "local"


def write_size(size: int) -> str:
    """Returns `size` bytes as `parse_size` takes them: `64MiB`, `0`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit.upper()] == 0:
            return f"{size // _UNITS[unit.upper()]}{unit}"
    return str(size)


def write_duration(seconds: float) -> str:
    """Returns `seconds` as `parse_duration` takes them: `5m`, `90`."""
    return f"{seconds:g}" if not seconds or seconds % 60 else f"{seconds / 60:g}m"


def format_size(size: float) -> str:
    """Returns `size`, in bytes, with a binary unit and a single decimal."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def counted(count: int, one: str, many: str = "") -> str:
    """Returns `1 file` or `1,234 files`; `many` is the plural where an s is not enough."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def one_line(text: str) -> str:
    """Returns `text` with unprintable characters escaped: a path may hold characters that move the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    """Returns the escape sequence of `char` in Python's notation; a byte that is not UTF-8 keeps its value."""
    if 0xDC80 <= ord(char) <= 0xDCFF:  # `os.fsdecode` turns such a byte into a surrogate
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
