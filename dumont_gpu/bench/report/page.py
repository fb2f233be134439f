"""A record as a self-contained HTML file: the picture, then the tables."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final

from dumont_gpu.bench.report.plot import picture
from dumont_gpu.bench.report.record import machines
from dumont_gpu.bench.report.summary import headline, problems, tables
from dumont_gpu.bench.report.tables import Table

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2328; --muted: #59636e; --line: #d1d9e0; --page: #ffffff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --muted: #9198a1; --line: #3d444d; --page: #0d1117 } }
body { margin: 2rem auto; max-width: 1120px; padding: 0 1rem; background: var(--page); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif }
svg { max-width: 100%; height: auto }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
p { color: var(--muted); font-size: 14px }
.failed { color: #d1242f; font-weight: bold }
"""


def page(record: dict[str, Any]) -> str:
    """Returns the document."""
    title = escape(headline(record))
    body = "\n".join(_body(record))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n'
        "</body></html>\n"
    )


def _body(record: dict[str, Any]) -> Iterator[str]:
    yield f"<h1>dumont-gpu bench</h1><p>{escape(headline(record))}</p>"
    yield from (f'<p class="failed">{escape(text)}</p>' for text in problems(record) if text.startswith("FAILED"))
    yield picture(record)
    for table in tables(record):
        yield f'<h2>{escape(table.title)}</h2><div class="scroll">{_table(table)}</div><p>{escape(table.notes)}</p>'
    for machine, parts in machines(record):
        yield f"<h2>Machine</h2><p>{escape(', '.join(parts))}</p>"
        yield _table(Table("", "", ("property", "value"), tuple(machine.items())))


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
