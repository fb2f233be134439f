"""The documents: every link leads somewhere, the README stays one page, and tables name what the program has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumont_gpu import SnapshotService
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.codecs import CODECS
from dumont_gpu.plan.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("dumont_gpu", "kernels", "bench", "tests")
DOCUMENTS = [ROOT / "README.md", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)


def prose(path: Path) -> str:
    """Returns a document without its code."""
    return re.sub(
        r"`[^`\n]*`", "", re.sub(r"^( *)```.*?^\1```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    )


def anchors(path: Path) -> Iterator[str]:
    """Yields the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document: Path) -> None:
    broken = []
    for found in LINK.findall(prose(document)):
        link = next(filter(None, found))
        name, _, anchor = link.partition("#")
        if name.startswith(("http://", "https://")):
            continue
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_is_one_page() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
    assert [line for line in lines if len(line) > 100] == []


def test_the_specification_lists_every_codec() -> None:
    section = (
        (ROOT / "dumont_gpu" / "FORMAT.md").read_text(encoding="utf-8").split("## 5. Codecs")[1].split("### 5.1")[0]
    )
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", section, flags=re.M)
    assert [(codec.id, codec.name) for codec in CODECS] == [(int(number), name) for number, name in rows]


def test_files_that_the_design_document_names_exist() -> None:
    text = (ROOT / "dumont_gpu" / "DESIGN.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./]+\.(?:py|cu|cpp|h|md|toml))`", text) if "NAME" not in name}
    folders = [ROOT, *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_dir())]
    assert [
        name
        for name in sorted(named)
        if not any((folder / name).exists() for folder in [*folders, ROOT / "dumont_gpu"])
    ] == []


def test_every_kernel_is_compiled_and_described() -> None:
    found = {}
    for source in (ROOT / "kernels" / "cuda").glob("*.cu"):
        for name in re.findall(r'^extern "C" __global__ void (\w+)\(', source.read_text(encoding="utf-8"), flags=re.M):
            found[name] = source.name
    assert found == {name: kernel.source for name, kernel in KERNELS.items()}
    described = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    assert [name for name in found if f"`{name}`" not in described] == []


def test_the_guide_names_every_method() -> None:
    guide = (ROOT / "dumont_gpu/GUIDE.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in guide and f"--method {name}`" not in guide] == []


def test_the_api_lists_every_method() -> None:
    described = SnapshotService.create_snapshot.__doc__ or ""
    assert [name for name in METHODS if f'"{name}"' not in described] == []
