"""Names of files: bytes on disk, `str` as from `os.fsdecode` in memory, UTF-8 in a manifest and in JSON.

`os.fsdecode` follows the locale, but a snapshot must not: "café" packed under Latin-1 is "café" everywhere.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from typing import Final

_MEMORY_IS_UTF8: Final = sys.getfilesystemencoding() == "utf-8"


def to_utf8(name: str) -> str:
    """Returns `name` as it would be in memory under a UTF-8 locale: bytes that are not UTF-8 are surrogates."""
    return name if _MEMORY_IS_UTF8 or name.isascii() else os.fsencode(name).decode("utf-8", "surrogateescape")


def from_utf8(name: str) -> str:
    """Undoes `to_utf8`.

    Raises:
        UnicodeEncodeError: `name` has surrogates that stand for no byte.
    """
    return name if _MEMORY_IS_UTF8 or name.isascii() else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def to_json(key: str, name: str) -> dict[str, str]:
    """Returns the field that holds `name` exactly: `key` if it is UTF-8, `key` with `_b64` (Base64) if it is not."""
    text = to_utf8(name)
    try:
        text.encode()
    except UnicodeEncodeError:
        return {f"{key}_b64": base64.b64encode(os.fsencode(name)).decode()}
    return {key: text}


def from_json(data: Mapping[str, object], key: str) -> str:
    """Returns the name in the field that `to_json` made for `key`.

    Raises:
        ValueError: both fields are present, or neither, or the field is malformed.
    """
    text, encoded = data.get(key), data.get(f"{key}_b64")
    if isinstance(text, str) and f"{key}_b64" not in data:
        if not text.isascii():
            text.encode()  # JSON can contain lone surrogates
            return from_utf8(text)
        return text
    if isinstance(encoded, str) and key not in data:
        name = base64.b64decode(encoded, validate=True)
        if base64.b64encode(name).decode() == encoded:  # b64decode accepts other spellings, more in some versions
            return os.fsdecode(name)
    raise ValueError("not exactly one name")
