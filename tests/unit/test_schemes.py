"""The table of schemes: every row is whole, and every scheme goes through the suites of sources and sinks."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
from support.places import SINKS, SOURCES

from dumont_gpu.errors import UnsupportedError
from dumont_gpu.snapshot_service import SnapshotService
from dumont_gpu.storage import READ_FROM, SCHEMES, WRITTEN_TO, Scheme, check_place, open_sink, open_source

UNTESTED = {"https", "az"}  # https: by the tests of proxies and certificates; az: no server is at hand


def parameters(module: str, function: str) -> list[str]:
    found = getattr(importlib.import_module(f"dumont_gpu.storage.{module}"), function)
    return [parameter.kind.name for parameter in inspect.signature(found).parameters.values()]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.shown)
def test_the_modules_of_a_row_have_its_functions(scheme: Scheme) -> None:
    two = ["POSITIONAL_OR_KEYWORD"] * 2
    assert parameters(scheme.source, "open_source") == two
    if scheme.sink:
        assert parameters(scheme.sink, "open_sink") == [*two, "KEYWORD_ONLY"]
        assert parameters(scheme.sink, "check_place") == [*two, "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"]
    assert bool(scheme.sink) == bool(scheme.example)


def test_every_scheme_goes_through_the_suites() -> None:
    read = {name for scheme in SCHEMES for name in scheme.names}
    written = {name for scheme in SCHEMES if scheme.sink for name in scheme.names}
    assert {name for row in SOURCES.values() for name in row.schemes} == read - UNTESTED
    assert {name for row in SINKS.values() for name in row.schemes} == written


def test_messages_and_help_texts_name_every_scheme() -> None:
    with pytest.raises(UnsupportedError) as unread:
        open_source("ftp://host/x")
    for attempt in (lambda: open_sink("ftp://host/x"), lambda: check_place("ftp://host/x", [])):
        with pytest.raises(UnsupportedError) as unwritten:
            attempt()
    for scheme in SCHEMES:
        assert scheme.shown in str(unread.value)
        assert scheme.shown in READ_FROM
        assert scheme.example in str(unwritten.value)
        assert scheme.example in WRITTEN_TO


def test_the_api_lists_every_scheme() -> None:
    assert f"snapshot_path: {READ_FROM}." in (SnapshotService.restore_snapshot.__doc__ or "")


def test_the_table_loads_no_module_of_storage() -> None:
    code = "import dumont_gpu.storage, sys; print(*(name for name in sys.modules if 'dumont_gpu.storage.' in name))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
