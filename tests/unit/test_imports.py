"""The layers: imports point down only, and nothing heavy is loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import dumont_gpu

PACKAGE = Path(dumont_gpu.__file__).parent
# A line's rooms may import the rooms on the lines above, and their own folder. DESIGN.md draws this order, top line last.
LAYERS = [
    ["errors", "reader"],
    ["forks", "shortages", "sizes"],
    ["limits", "progress", "buffers"],
    ["channel"],
    ["pipeline"],
    ["native", "format"],
    ["disk", "codecs"],
    ["columns", "tensors"],
    ["backends", "storage", "tree"],
    ["snapshot", "plan"],
    ["jobs"],
    ["loading"],
    ["filesystem", "mounting"],
    ["snapshot_queries"],
    ["snapshot_service", "bench", "vllm"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imported_by(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dumont_gpu."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "dumont_gpu":
            names.update(alias.name for alias in node.names if alias.name in RANK)
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dumont_gpu."))
    return names


def test_imports_point_down() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules} == set(RANK)
    wrong = []
    for path in modules:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        wrong += [f"{own} imports {name}" for name in imported_by(path) if name != own and RANK[name] >= RANK[own]]
    assert wrong == []


def test_the_design_document_draws_this_order() -> None:
    drawing = (PACKAGE / "DESIGN.md").read_text(encoding="utf-8").split("## The layers")[1].split("```")[1]
    drawn = [line.split("│")[0].split() for line in drawing.splitlines()[1:]]
    assert [sorted(names) for names in reversed(LAYERS)] == [sorted(names) for names in drawn]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import dumont_gpu")
    assert {name for name in loaded if name.startswith("dumont_gpu")} == {"dumont_gpu"}
    assert not loaded & {"typer", "rich", "lz4", "ctypes", "json", "numpy"}


def test_the_command_line_loads_no_codec_before_a_command_runs() -> None:
    loaded = loaded_by("import dumont_gpu.cli.main, dumont_gpu.cli.options, dumont_gpu.jobs.options")
    assert not loaded & {
        "lz4",
        "lz4.frame",
        "dumont_gpu.native",
        "dumont_gpu.jobs.pack",
        "numpy",
    }


def test_a_list_of_commands_loads_no_command() -> None:
    loaded = {name for name in loaded_by("import dumont_gpu.cli.main") if name.startswith("dumont_gpu.")}
    assert loaded <= {"dumont_gpu.cli", "dumont_gpu.cli.main"}


def test_no_gpu_package_is_needed() -> None:
    loaded = loaded_by(
        "import dumont_gpu.cli.main, dumont_gpu.jobs.pack, dumont_gpu.jobs.restore, dumont_gpu.jobs.verify"
    )
    assert not {name for name in loaded if name.split(".")[0] in {"cupy", "nvidia", "torch", "zipnn", "numpy"}}


def test_a_job_loads_nothing_of_a_device_before_there_is_one() -> None:
    loaded = loaded_by("from dumont_gpu.jobs import pack, restore, verify; pack.select_backend('auto').close()")
    assert "dumont_gpu.backends.auto" in loaded
    assert not loaded & {"dumont_gpu.backends.cuda", "dumont_gpu.backends.launches", "dumont_gpu.backends.slots"}


def test_a_codec_loads_its_library_when_a_chunk_needs_it() -> None:
    assert "zstandard" not in loaded_by("import dumont_gpu.codecs, dumont_gpu.jobs.pack, dumont_gpu.jobs.restore")


def test_local_snapshots_load_nothing_of_the_network() -> None:
    loaded = loaded_by(
        "import dumont_gpu.cli.main, dumont_gpu.jobs.pack, dumont_gpu.jobs.restore, dumont_gpu.jobs.verify"
    )
    assert not loaded & {"http.client", "ssl", "urllib.request", "obstore", "botocore"}


def test_loading_arrays_of_numpy_loads_no_other_framework(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/m.safetensors").write_bytes(
        (58).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}    ' + bytes(8)
    )
    dumont_gpu.SnapshotService().create_snapshot(tmp_path / "source", tmp_path / "x.dumont")
    loaded = loaded_by(f"import dumont_gpu; dumont_gpu.load({str(tmp_path / 'x.dumont')!r}, 'm.safetensors')")
    assert {"numpy", "dumont_gpu.loading.tensor_files"} <= loaded
    assert not loaded & {"torch", "jax", "cupy", "ml_dtypes", "obstore", "http.client"}


def test_modules_and_classes_stay_small() -> None:
    """DESIGN.md lists the exceptions and says why."""
    listed = (PACKAGE / "DESIGN.md").read_text(encoding="utf-8").split("**Exceptions.**")[1]
    modules, classes = [], []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 300:
            modules.append(str(path.relative_to(PACKAGE)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and sum(isinstance(item, ast.FunctionDef) for item in node.body) > 15:
                classes.append(node.name)
    assert [name for name in (*modules, *classes) if f"`{name}`" not in listed] == []
