"""Where the tests find the installed commands, whatever lies in the working directory."""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path

import dumont_gpu

ENTRIES = {"dumont-gpu": "main", "dumont-pack": "pack_main", "dumont-restore": "restore_main"}
LAUNCHER = """#!{python}
import sys

sys.path.insert(0, {packages!r})
from dumont_gpu.__main__ import {entry}

sys.exit({entry}())
"""


def program(name: str = "dumont-gpu") -> str:
    """Returns the path of a command beside this interpreter.

    Where only the package is there (`pip --target` puts scripts elsewhere), of one that starts it as pip's would.
    """
    installed = Path(sys.executable).parent / name
    return str(installed if installed.exists() else _launchers() / name)


@functools.cache
def _launchers() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dumont-commands-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    packages = str(Path(dumont_gpu.__path__[0]).parent)
    for name, entry in ENTRIES.items():
        path = folder / name
        path.write_text(LAUNCHER.format(python=sys.executable, packages=packages, entry=entry), encoding="utf-8")
        path.chmod(0o755)
    return folder
