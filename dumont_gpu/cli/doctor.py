"""The command `doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from dumont_gpu.cli.options import Only, Output


def doctor(output: Annotated[Output, Only("as_json")]) -> None:
    """Say what this machine can do, and what is missing for more."""
    from dumont_gpu.cli.examination import examine

    findings = examine()
    for finding in findings:
        if output.as_json:
            print(json.dumps({"type": "finding", **asdict(finding)}))
        else:
            print(f"{'ok' if finding.found else '--':3} {finding.what:15} {finding.detail}")
