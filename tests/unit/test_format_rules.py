"""Every row of the table in FORMAT.md, section 9: the valid values of a field, and the error for any other value.

Right and wrong values of each (snapshot_rules.py, column_rules.py, stream_rules.py), judged by the program and by the
independent reader; streams also by a device's decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import independent_reader
from support.column_rules import COLUMN_RULES
from support.devices import emulated_device
from support.hostile import Archive
from support.snapshot_rules import DAMAGED, OK, RULES, UNSUPPORTED
from support.stream_rules import STREAM_RULES

import dumont_gpu
from dumont_gpu.backends import Backend, select_backend
from dumont_gpu.backends.cuda import CudaBackend
from dumont_gpu.errors import DamagedError, UnsupportedError
from dumont_gpu.jobs.options import VerifyOptions
from dumont_gpu.jobs.verify import verify
from dumont_gpu.storage import MemorySource

FORMAT = (Path(dumont_gpu.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
GIB = 1 << 30
SNAPSHOT_RULES = RULES | COLUMN_RULES


def program(data: bytes) -> str:
    try:
        verify(MemorySource(data), VerifyOptions(content=True, jobs=1, device="cpu", memory=4 * GIB))
    except DamagedError:
        return DAMAGED
    except UnsupportedError:
        return UNSUPPORTED
    return OK


def reader(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except independent_reader.Unsupported:
        return UNSUPPORTED
    except ValueError:
        return DAMAGED
    return OK


def decoded(backend: Backend, codec: int, stored: bytes, size: int) -> tuple[str, bytes]:
    out = memoryview(bytearray(size))
    try:
        backend.decode(codec, memoryview(stored), out)
    except DamagedError:
        return DAMAGED, b""
    except UnsupportedError:
        return UNSUPPORTED, b""
    return OK, bytes(out)


@pytest.mark.parametrize("row", SNAPSHOT_RULES)
def test_program_and_reader_give_a_snapshot_the_verdict_of_the_table(row: str) -> None:
    for number, (verdict, data) in enumerate(SNAPSHOT_RULES[row]()):
        assert (number, verdict) == (number, program(data))
        assert (number, verdict) == (number, reader(lambda data=data: independent_reader.read(data)))


@pytest.fixture(scope="module", params=["cpu", "device"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "cpu":
        yield select_backend("cpu")
        return
    device = CudaBackend(emulated_device(), minimum=0)
    device.prepare(1 << 20, decode=True)
    yield device
    device.close()


@pytest.mark.parametrize("row", STREAM_RULES)
def test_decoders_and_reader_give_stored_bytes_the_verdict_of_the_table(row: str, backend: Backend) -> None:
    for number, (verdict, codec, stored, size) in enumerate(STREAM_RULES[row]()):
        found, content = decoded(backend, codec, stored, size)
        assert (number, verdict) == (number, found)
        if backend.name != "cpu":
            continue
        entry = independent_reader.Chunk(0, len(stored), size, codec, b"")
        assert (number, verdict) == (number, reader(lambda e=entry, s=stored: independent_reader.decode_chunk(s, e)))
        if verdict == OK:
            assert content == independent_reader.decode_chunk(stored, entry)


def test_every_row_of_the_table_has_cases() -> None:
    table = FORMAT.split("\n## 9. ")[1].split("\n## ")[0]
    rows = [
        re.split(r" \| ?", line.strip("| ").replace("`", "")) for line in table.splitlines() if line.startswith("| ")
    ]
    named = {f"{part}: {field}" for part, field, *_ in rows[1:]}
    assert named == SNAPSHOT_RULES.keys() | STREAM_RULES.keys()


def test_every_row_has_a_wrong_value_or_says_that_there_is_none() -> None:
    for line in FORMAT.split("\n## 9. ")[1].split("\n## ")[0].splitlines():
        if not line.startswith("| ") or line.startswith("| part"):
            continue
        part, field, _, otherwise = (cell.strip() for cell in line.strip("|").split("|"))
        row = f"{part}: {field}".replace("`", "")
        verdicts = {case[0] for case in (SNAPSHOT_RULES.get(row) or STREAM_RULES[row])()}
        assert {word for word in (DAMAGED, UNSUPPORTED) if word in otherwise} <= verdicts, row
        assert otherwise or verdicts == {OK}, row


def test_the_largest_file_is_sound() -> None:
    """The independent reader is not asked, because it returns only the files' content."""
    archive = Archive()
    archive.file("f", size=(1 << 63) - 1)
    assert program(archive.to_bytes()) == OK
