"""The options of a restore that concern its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dumont_gpu.format.entries import FileEntry

Overwrite = Literal["refuse", "always", "if-changed", "never"]
OVERWRITE_CHOICES: Final = ("always", "if-changed", "never")
_PERMISSIONS: Final = 0o777
_ALL_MODE_BITS: Final = 0o7777


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How a restore treats existing files, and the metadata that it sets."""

    overwrite: Overwrite = "refuse"  # policy for a target that is not empty
    preserve_special: bool = False  # restore setuid, setgid and sticky bits
    owner: bool = False  # restore user and group ids, where the snapshot has them
    sync: bool = True  # return only when everything is on disk

    @property
    def mode_mask(self) -> int:
        """The bits of modes that are restored."""
        return _ALL_MODE_BITS if self.preserve_special else _PERMISSIONS

    def mode(self, entry: FileEntry) -> int:
        """Returns the mode that an entry gets in the target."""
        return entry.mode & self.mode_mask
