"""Prints requirements of pyproject.toml, one a line: bench/gpu_check.sh repeats none of them.

    python bench/requirements.py run check cuda13 --lean
    python bench/requirements.py run check cuda13 --lean --wheels DIR    # prints what the wheels there do not satisfy

`run`: requirements of the package. `check`: those of its tests on a GPU. Any other word: that extra. `--lean` leaves
out packages that come with CuPy. With `--wheels`, the exit code is 1 if something is printed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
CHECK = ("pytest", "pytest-timeout", "hypothesis")  # of the extra `test`
BESIDE_CUPY = ("numpy", "cupy", "nvidia-cuda-nvrtc")  # beginnings of names


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0].lower() if found else ""


def requirements(groups: list[str], lean: bool) -> list[str]:
    """Raises KeyError for an extra that there is not."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = {
        **extras,
        "run": project["dependencies"],
        "check": [each for each in extras["test"] if name_of(each) in CHECK],
    }
    found = [each for group in groups for each in known[group]]
    return [each for each in found if not (lean and name_of(each).startswith(BESIDE_CUPY))]


def unsatisfied(wanted: list[str], wheels: Path) -> list[str]:
    """Returns what is wrong with the wheels of a folder; requirements of the wheels themselves are pip's business."""
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

    found: dict[str, list[str]] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(wheel.name)
        found.setdefault(name, []).append(str(version))
    problems = [f"{name}: {len(versions)} versions" for name, versions in found.items() if len(versions) > 1]
    for each in map(Requirement, wanted):
        versions = found.get(canonicalize_name(each.name), [])
        if not any(each.specifier.contains(version) for version in versions):
            problems.append(f"{each}: {', '.join(versions) or 'no wheel'}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Print requirements of pyproject.toml.")
    parser.add_argument("groups", nargs="+")
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--wheels", type=Path, metavar="DIR")
    options = parser.parse_args()
    wanted = requirements(options.groups, options.lean)
    if options.wheels is None:
        print(*wanted, sep="\n")
        return 0
    problems = unsatisfied(wanted, options.wheels)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
