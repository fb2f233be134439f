"""Strict JSON for the manifest, and values of the stated types. FORMAT.md, section 6.1, is the specification."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from dumont_gpu.errors import DamagedError
from dumont_gpu.format.digests import DIGEST_SIZE
from dumont_gpu.format.paths import shown


def parse_json(line: bytes) -> Any:
    """Parses one JSON value in UTF-8 with nothing around it; raises DamagedError for anything else."""
    try:
        text = line.decode()
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    raise DamagedError(f"malformed manifest: {shown(os.fsdecode(line[:80]))}")


def as_object(value: Any) -> dict[str, Any]:
    """Returns `value`; raises DamagedError unless it is a JSON object."""
    if not isinstance(value, dict):
        raise DamagedError("the manifest has something else where an object belongs")
    return value


def typed(data: dict[str, Any], key: str, kind: type) -> Any:
    """Returns the value of `key`; raises DamagedError unless its type is exactly `kind`: true is no number."""
    value = data.get(key)
    if type(value) is not kind:
        raise DamagedError(f"{key!r} is missing or of the wrong type")
    return value


def whole_number(data: dict[str, Any], key: str, highest: int, lowest: int = 0) -> int:
    """Returns the whole number at `key`; raises DamagedError unless it is there and within its bounds."""
    value: int = typed(data, key, int)
    if not lowest <= value <= highest:
        raise DamagedError(f"{key!r} is outside {lowest} to {highest}")
    return value


def digest_from_json(text: Any) -> bytes:
    """Returns the digest that `text` spells; raises DamagedError unless it is 64 digits 0-9, a-f."""
    if not isinstance(text, str) or len(text) != 2 * DIGEST_SIZE:
        raise DamagedError("a digest that is not 64 hexadecimal digits")
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if digest.hex() != text:  # fromhex skips white space and accepts capitals
        raise DamagedError("a digest that is not 64 hexadecimal digits in lower case")
    return digest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a key with two values, of which two readers might see different ones."""
    data = dict(pairs)
    if len(data) != len(pairs):
        raise DamagedError("malformed manifest: two values for one key")
    return data


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_json)
