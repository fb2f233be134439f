"""What nvCOMP must be like to be used: libraries made for the test, the real ones without a GPU, and one on a device."""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dumont_gpu import native
from dumont_gpu.backends import nvcomp, open_device, requirements
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.bench.measure.gpu.frames import text
from dumont_gpu.codecs import Lz4
from dumont_gpu.sizes import MiB


class Function:
    """A C function in Python: writes what the library says, and returns a status."""

    def __init__(self, said: Callable[..., tuple[int, ...]], status: int = 0) -> None:
        self.said, self.status = said, status

    def __call__(self, *arguments: Any) -> int:
        out = next(argument for argument in arguments if isinstance(argument, ctypes.Array))
        for number, value in enumerate(self.said(*arguments)):
            out[number] = value
        return self.status


def library(recent: bool = True, **changed: Function) -> Any:
    """A library that keeps every rule as 5.1 or 6.0 do, but for what is `changed`."""
    ending = "" if recent else "Async"
    functions = {
        "nvcompGetProperties": Function(lambda *_: (6000 if recent else 5100, 13000)),
        "nvcompBatchedLZ4CompressAsync": Function(lambda *_: ()),
        "nvcompBatchedLZ4DecompressAsync": Function(lambda *_: ()),
        "nvcompBatchedLZ4CompressGetRequiredAlignments": Function(lambda *_: (1, 1, 2)),
        "nvcompBatchedLZ4DecompressGetRequiredAlignments": Function(lambda *_: (1, 1, 1)),
        "nvcompBatchedLZ4CompressGetMaxOutputChunkSize": Function(lambda block, *_: (block + 264,)),
        f"nvcompBatchedLZ4CompressGetTempSize{ending}": Function(lambda blocks, *_: (blocks << 15,)),
        f"nvcompBatchedLZ4DecompressGetTempSize{ending}": Function(lambda *_: (0,)),
    }
    return type("Library", (), functions | changed)()


@pytest.mark.parametrize("recent", [False, True], ids=["5.1", "6.0"])
def test_a_library_that_asks_for_what_slots_give_is_used(recent: bool) -> None:
    assert nvcomp.broken_rule(library(recent)) == ""


@pytest.mark.parametrize(
    ("name", "says", "why"),
    [
        ("nvcompGetProperties", (5000,), "it is version 5.0; supported are 5.1 to 6"),
        ("nvcompGetProperties", (7000,), "it is version 7.0; supported are 5.1 to 6"),
        ("nvcompBatchedLZ4CompressGetRequiredAlignments", (4, 1, 2), "it wants 4/1/2 alignments to encode, dumont-gpu gives 1/1/2"),
        ("nvcompBatchedLZ4CompressGetRequiredAlignments", (1, 8, 2), "it wants 1/8/2 alignments to encode, dumont-gpu gives 1/1/2"),
        ("nvcompBatchedLZ4CompressGetRequiredAlignments", (1, 1, 512), "it wants 1/1/512 alignments to encode, dumont-gpu gives 1/1/2"),
        ("nvcompBatchedLZ4DecompressGetRequiredAlignments", (8, 1, 1), "it wants 8/1/1 alignments to decode, dumont-gpu gives 1/1/1"),
        ("nvcompBatchedLZ4DecompressGetRequiredAlignments", (1, 2, 1), "it wants 1/2/1 alignments to decode, dumont-gpu gives 1/1/1"),
        ("nvcompBatchedLZ4DecompressGetRequiredAlignments", (1, 1, 8), "it wants 1/1/8 alignments to decode, dumont-gpu gives 1/1/1"),
        ("nvcompBatchedLZ4CompressGetMaxOutputChunkSize", (65_809,), "it wants 65809 bytes for an encoded block, dumont-gpu gives 65808"),
        ("nvcompBatchedLZ4CompressGetTempSize", ((1024 << 15) + 1,), "it wants 33554433 bytes of scratch to encode, dumont-gpu gives 33554432"),
        ("nvcompBatchedLZ4DecompressGetTempSize", (1,), "it wants 1 bytes of scratch to decode, dumont-gpu gives 0"),
    ],
)  # fmt: skip
def test_a_library_that_asks_for_more_is_not_used(name: str, says: tuple[int, ...], why: str) -> None:
    assert nvcomp.broken_rule(library(**{name: Function(lambda *_: says)})) == why


QUESTIONS = [name for name in dir(library()) if "Get" in name]


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_that_fails_is_no_answer(name: str) -> None:
    assert nvcomp.broken_rule(library(**{name: Function(lambda *_: (), status=10)}))


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """nvCOMP is looked for again in a test, and after it."""
    nvcomp._load.cache_clear()
    yield
    monkeypatch.undo()
    nvcomp._load.cache_clear()


def installed(folder: Path, version: str, flavour: str = "cu13") -> None:
    for name in (f"nvidia_libnvcomp_{flavour}", f"nvidia_nvcomp_{flavour}"):
        info = folder / f"{name}-{version}.dist-info" / "METADATA"
        info.parent.mkdir(parents=True)
        info.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")


@pytest.mark.usefixtures("unloaded")
def test_doctor_and_device_0_say_why_a_library_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(tmp_path, "7.0.0.1")
    (tmp_path / "nvidia/libnvcomp/lib64").mkdir(parents=True)
    (tmp_path / "nvidia/libnvcomp/lib64/libnvcomp.so.7").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(requirements, "driver_is_there", lambda: True)
    monkeypatch.setattr(requirements, "find_cupy", lambda: requirements.Finding("CuPy", True, ""))
    finding = requirements.find_nvcomp()
    assert not finding.found
    assert finding.detail.startswith("unusable, nvidia-libnvcomp-cu13 7.0.0.1: libnvcomp.so.7 does not load: ")
    assert nvcomp.load_nvcomp() is None
    assert requirements.missing_packages(needs_lz4=True) == f"nvCOMP is {finding.detail}"
    assert requirements.missing_packages(needs_lz4=False) == ""  # --device auto leaves LZ4 to the CPU


@pytest.mark.usefixtures("unloaded")
def test_broken_rule_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = library(nvcompBatchedLZ4DecompressGetTempSize=Function(lambda *_: (256,)))
    monkeypatch.setattr(nvcomp, "nvcomp_path", lambda: tmp_path / "libnvcomp.so.6")
    monkeypatch.setattr(ctypes, "CDLL", lambda path: wrong)
    assert nvcomp.load_nvcomp() is None
    assert nvcomp.nvcomp_refusal() == "libnvcomp.so.6: it wants 256 bytes of scratch to decode, dumont-gpu gives 0"


@pytest.mark.usefixtures("unloaded")
def test_a_library_without_a_function_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvcomp, "nvcomp_path", lambda: tmp_path / "libnvcomp.so.4")
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert nvcomp.load_nvcomp() is None
    assert "does not load" in nvcomp.nvcomp_refusal()


@pytest.mark.usefixtures("unloaded")
def test_doctor_names_library_and_binding_and_two_flavours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(tmp_path, "6.0.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(nvcomp, "_load", lambda: (library(), ""))
    monkeypatch.setattr(nvcomp, "nvcomp_refusal", lambda: "")
    expected = "nvidia-libnvcomp-cu13 6.0.0, nvidia-nvcomp-cu13 6.0.0"
    assert requirements.find_nvcomp() == requirements.Finding("nvCOMP", True, expected)
    installed(tmp_path, "5.1.0", "cu12")
    assert requirements.find_nvcomp().detail == (
        f"{expected}; nvidia-libnvcomp-cu13 and nvidia-libnvcomp-cu12 overwrite each other: keep one"
    )


# --- the real library -------------------------------------------------------------------------------------------------

REAL = [folder for folder in os.environ.get("DUMONT_TEST_NVCOMP", "").split(os.pathsep) if folder]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("folder", REAL or [pytest.param("", marks=pytest.mark.skip("DUMONT_TEST_NVCOMP names none"))])
def test_real_libraries_keep_the_rules(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that `pip install --target` has put an nvCOMP into; no driver is needed to ask it."""
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    found = nvcomp.load_nvcomp()
    assert (nvcomp.nvcomp_refusal(), found is not None) == ("", True)
    assert nvcomp.lz4_encode_scratch(found, 7, 65_536) == 7 << 15


@pytest.mark.skipif("DUMONT_TEST_DEVICE" not in os.environ, reason="needs a GPU: DUMONT_TEST_DEVICE names it")
@pytest.mark.parametrize("encoder", ["CPU", "device"])
def test_the_binding_decodes_our_lz4_blocks_to_the_same_bytes(encoder: str) -> None:
    """A second opinion: through nvCOMP's own interface, not through our declarations of its C functions."""
    from dumont_gpu.bench.measure.gpu.binding import decode_lz4_blocks

    content = memoryview(bytearray(bytes(text(3 * MiB, 0.25)) + random.Random(2).randbytes(70_000) + b"tail " * 999))
    frame = memoryview(bytearray(2 * len(content)))
    if encoder == "CPU":
        frame = frame[: Lz4().encode(content, frame)]
    else:
        backend = CudaBackend(open_device(int(os.environ["DUMONT_TEST_DEVICE"])), minimum=0)
        backend.prepare(len(content), encode=True)
        frame = frame[: backend.encode(Lz4(), content, frame)]
        backend.close()
    capacity = len(content) // 65_536 + 1
    table = memoryview(bytearray(capacity * (native.LZ4_BLOCK + native.STORED_COPY)))
    compressed, _copies = native.lz4_device_blocks(frame, len(content), 0, 0, table) or (0, 0)
    assert compressed > 30
    columns = [table[8 * capacity * column :][: 8 * compressed].cast("Q").tolist() for column in range(4)]
    blocks = [frame[start : start + size] for start, size in zip(*columns[:2], strict=True)]
    for decoded, start, size in zip(decode_lz4_blocks(blocks), *columns[2:], strict=True):
        assert decoded == content[start : start + size]
