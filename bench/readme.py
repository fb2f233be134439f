"""Puts the figures of one run of `dumont-gpu bench --results bench/results` into README.md, between its two markers.

python bench/readme.py bench/results/bench-MACHINE.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dumont_gpu.bench.summary import contention, ratio, seed_row, tables
from dumont_gpu.bench.tables import table

REPOSITORY = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures of dumont-gpu bench -->\n", "<!-- end of figures -->\n"


def block(record: dict[str, Any], name: str) -> str:
    """Returns what stands between the markers. `name`: of the files of the run, without their suffix."""
    by_title = {found.title: found for found in tables(record)}
    real = by_title["By type, corpus real, MB/s"]
    texts = [row for row in record["rows"] if row["corpus"] == "seed" and row["key"] in ("python", "json", "logs")]
    ours = ", ".join(f"{ratio(row):.0f}x" for row in texts)
    theirs = ", ".join(f"{seed_row(row['key']).ratio:.0f}x" for row in texts)
    parts = [
        f"![ratios, rates, peers and the stages of a restore](bench/results/{name}.svg)\n",
        table(real.header, real.rows),
        f"{record['machine']['CPU']}; {record['corpora']['real']}; everything else about how it was measured is "
        f"in [the report](bench/results/{name}.md). The original's ratios of text came from one text repeated: given "
        f"that, code, JSON and logs shrink {ours} here ({theirs} there).\n",
        *(f"{warning[0].upper()}{warning[1:]}.\n" for warning in contention(record)),
    ]
    return "\n".join(parts)


def main(path: Path) -> None:
    readme = REPOSITORY / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(before + BEGIN + block(json.loads(path.read_text(encoding="utf-8")), path.stem) + END + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
