"""From figures of variants to the options that the product compiles with; no figure here is real."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.snapshots import ROOT

from dumont_gpu.backends import kernel_options
from dumont_gpu.backends.cupy_device import CupyDevice
from dumont_gpu.backends.kernels import KERNELS
from dumont_gpu.bench.measure.gpu.variant_table import AS_WRITTEN, MEMORY, SOURCE, VARIANTS
from dumont_gpu.bench.report.kernel_options import chosen, write_options

OTHER_MEMORY = next(name for name, values in VARIANTS.items() if MEMORY in values)
MODULE = ROOT / "dumont_gpu" / "backends" / "kernel_options.py"


def row(variant: str, rate: float, kind: str = "bf16", batch: int = 16, verified: bool = True) -> dict[str, Any]:
    return {
        "variant": variant,
        "kind": kind,
        "batch": batch,
        "size": 1 << 30,
        "seconds": [(1 << 30) / rate],
        "verified": verified,
    }


def record(*rows: dict[str, Any], capability: str = "9.0") -> dict[str, Any]:
    return {"steps": {"variants": {"data": {"capability": capability, "variants": list(rows)}}}}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(AS_WRITTEN, 100), row("4 CTAs", 110)], {"9.0": ("-DDUMONT_DECODE_CTAS=4",)}),
        ([row(AS_WRITTEN, 100), row("4 CTAs", 101)], {}),
        ([row("4 CTAs", 110)], {}),  # as written it was not measured
        ([row(AS_WRITTEN, 100), row("4 CTAs", 110, verified=False)], {}),
        ([row(AS_WRITTEN, 100), row("4 CTAs", 110), row("4 CTAs", 1, "fp16", verified=False)], {}),
        ([row(AS_WRITTEN, 100), row("4 CTAs", 90), row("4 CTAs", 999, batch=1), row("4 CTAs", 999, "fp16")], {}),
        ([row(AS_WRITTEN, 100), row(OTHER_MEMORY, 200), row("4 CTAs", 110)], {"9.0": ("-DDUMONT_DECODE_CTAS=4",)}),
        ([row(AS_WRITTEN, 100), row("no such variant", 200)], {}),
        ([], {}),
    ],
)
def test_the_fastest_right_variant_is_chosen(rows: list[dict[str, Any]], expected: dict[str, tuple[str, ...]]) -> None:
    assert chosen([record(*rows), {"steps": {}}]) == expected


def test_the_table_is_rewritten_and_read(tmp_path: Path) -> None:
    module = tmp_path / "kernel_options.py"
    shutil.copy(MODULE, module)
    records = [
        record(row(AS_WRITTEN, 100), row("4 CTAs", 110)),
        record(row(AS_WRITTEN, 100), row("look-back of 64 bits", 130), capability="12.0"),
    ]
    expected = {"12.0": ("-DDUMONT_DECODE_LOOK_BACK=64",), "9.0": ("-DDUMONT_DECODE_CTAS=4",)}
    assert write_options(module, records) == expected
    assert runpy.run_path(str(module))["OPTIONS"] == expected
    assert runpy.run_path(str(module))["kernel_options"](SOURCE, "12.0") == expected["12.0"]
    assert runpy.run_path(str(module))["kernel_options"]("zipnn_encode.cu", "12.0") == ()
    assert write_options(module, [record(row(AS_WRITTEN, 100))]) == {}
    assert runpy.run_path(str(module))["OPTIONS"] == {}


def test_a_device_compiles_with_the_options_of_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_options, "OPTIONS", {"9.0": ("-DDUMONT_DECODE_CTAS=4",)})
    monkeypatch.setattr(CupyDevice, "__init__", lambda device, number: None)
    monkeypatch.setattr(CupyDevice, "capability", "9.0")
    compiled: dict[str, tuple[str, ...]] = {}

    def compiling(device: CupyDevice, source: str, names: list[str], *options: str) -> dict[str, object]:
        compiled[source] = options
        return dict.fromkeys(names)

    monkeypatch.setattr(CupyDevice, "compile", compiling)
    assert set(CupyDevice(0)._load_all()) == set(KERNELS)
    assert {source for source, options in compiled.items() if options} == {SOURCE}
    assert compiled[SOURCE] == ("-DDUMONT_DECODE_CTAS=4",)


def test_every_constant_of_a_variant_can_be_set() -> None:
    """A macro that no source knows would be timed as a variant, and change nothing."""
    sources = [*(ROOT / "kernels" / "cuda").iterdir(), *(ROOT / "kernels" / "shared").iterdir()]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    names = {name for values in VARIANTS.values() for name in values}
    assert {name for name in names if f"#ifndef {name}\n" not in text} == set()
