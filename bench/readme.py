"""Renders every record in bench/results anew, and puts the figures of one into bench/README.md, between two markers.

python bench/readme.py bench/results/bench-MACHINE.json
"""

import json
import sys
from pathlib import Path

from dumont_gpu.bench.report.by_type import contention, is_of, original_row, ratio, row_table
from dumont_gpu.bench.report.plot import picture
from dumont_gpu.bench.report.record import read_record
from dumont_gpu.bench.report.tables import Json, markdown_table
from dumont_gpu.bench.report.text import markdown

README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- figures of dumont-gpu bench -->\n", "<!-- end of figures -->\n"


def block(record: Json, name: str) -> str:
    """Returns the text between the markers. `name`: of the files of the run, without their suffix."""
    real = row_table(record, "real")
    seed = [row for row in record["rows"] if row["corpus"] == "seed" and is_of(row, "hybrid_v2")]
    texts = [row for row in seed if row["key"] in ("python", "json", "logs")]
    ours = ", ".join(f"{ratio(row):.0f}x" for row in texts)
    theirs = ", ".join(f"{original_row(row['key']).ratio:.0f}x" for row in texts)
    parts = [
        f"![ratios, rates, peers and the stages of a restore](results/{name}.svg)\n",
        markdown_table(real.header, real.rows),
        f"MB/s on {record['machine']['CPU']}; {record['corpora']['real']}; how it was measured is in "
        f"[the report](results/{name}.md). The original's ratios of text came from one text repeated: given that, "
        f"code, JSON and logs shrink {ours} here by the original's method ({theirs} there).\n",
        *(f"{warning[0].upper()}{warning[1:]}.\n" for warning in contention(record)),
    ]
    return "\n".join(parts)


def render(path: Path) -> None:
    """Writes the report of a record beside it, and its picture if there is one."""
    if record := read_record(path):
        path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
        if path.with_suffix(".svg").exists():
            path.with_suffix(".svg").write_text(picture(record), encoding="utf-8")


def main(path: Path) -> None:
    for each in (README.parent / "results").glob("*.json"):
        render(each)
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    figures = block(json.loads(path.read_text(encoding="utf-8")), path.stem)
    README.write_text(before + BEGIN + figures + END + after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
