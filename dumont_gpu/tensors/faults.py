"""What is wrong with a file of tensors: it breaks its format's rules, or asks for what is not done here."""

from __future__ import annotations

from dumont_gpu.errors import DumontError, UnsupportedError


class MalformedError(DumontError):
    """A file breaks the rules of its own format. The snapshot that holds it may be sound all the same."""


class RefusedError(UnsupportedError):
    """A file may be sound, but has something that is not read here: code, encryption, an unknown kind."""
