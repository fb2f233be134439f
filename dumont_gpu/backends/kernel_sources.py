"""The CUDA sources: where they are, and the compiler options for their headers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dumont_gpu.errors import DeviceError


@dataclass(frozen=True, slots=True)
class KernelSources:
    """Two folders: `cuda` has the kernels (`.cu`) and `device.h`; `shared` has the headers that CPU and GPU share."""

    cuda: Path
    shared: Path

    @classmethod
    def find(cls) -> KernelSources:
        """Returns the sources in the installed package, or else in the checkout.

        Raises:
            DeviceError: neither has them.
        """
        import dumont_gpu

        places = [Path(folder) / "kernels" for folder in dumont_gpu.__path__]
        places.append(Path(__file__).resolve().parent.parent.parent / "kernels")
        for place in places:
            if (place / "cuda" / "device.h").exists():
                return cls(place / "cuda", place / "shared")
        raise DeviceError("the CUDA kernel sources are missing: install dumont-gpu with `pip install .`")

    def read(self, name: str) -> str:
        """Returns the text of one `.cu` file."""
        return (self.cuda / name).read_text(encoding="utf-8")

    def include_options(self) -> tuple[str, ...]:
        """Returns the compiler options for both folders' headers."""
        return f"-I{self.cuda}", f"-I{self.shared}"

    def digest(self) -> str:
        """Returns a text that changes whenever a kernel or a header changes."""
        digest = hashlib.sha256()
        for folder in (self.cuda, self.shared):
            for path in sorted([*folder.glob("*.cu"), *folder.glob("*.h")], key=lambda path: path.name):
                content = path.read_bytes()
                digest.update(f"{path.name} {len(content)} ".encode() + content)
        return digest.hexdigest()
