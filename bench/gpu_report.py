"""Writes the report of a GPU check: see dumont_gpu/bench/report/check.py."""

import importlib.util
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("dumont_gpu") is None:  # the installation failed, which the report will say
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONPATH": str(CHECKOUT)})

from dumont_gpu.bench.report.check import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(CHECKOUT))
